from __future__ import annotations

from pathlib import Path

import pytest

from fakes.node import FakeNode


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    """A node with nothing on it: no configuration, an empty kernel command line."""
    node = FakeNode(folder=tmp_path)
    node.boot_with("quiet")
    return node
