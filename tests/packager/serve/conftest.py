"""A network with a server and a node, and a layout to serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
