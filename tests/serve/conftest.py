from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.collector import Collector, collector


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collector]:
    """A collector with an SQLite database."""
    with collector(tmp_path / "collector") as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for tests that each have nodes of their own."""
    with collector(tmp_path_factory.mktemp("collector")) as made:
        yield made
