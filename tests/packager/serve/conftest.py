"""A network with a server and a node, and a layout to serve."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.wire import Wire, wire
from packing.site import Site

Packs = Callable[..., str]


@pytest.fixture(scope="module")
def net() -> Iterator[Wire]:
    """A server with two addresses, and a node."""
    with wire("10.0.0.1/24", "2001:db8::1/64") as made:
        yield made


@pytest.fixture
def layout(site: Site, packs: Packs) -> Site:
    (site.folder / "m.bin").write_bytes(b"weights " * 1000)
    site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
    packs()
    return site


@pytest.fixture
def readable(layout: Site) -> Iterator[Path]:
    """A folder that every user can read, with a copy of the layout and room for temporary files."""
    with tempfile.TemporaryDirectory(prefix="served-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(layout.output, folder / "pxe")
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o777)
        yield folder
