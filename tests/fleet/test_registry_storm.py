"""Sixteen nodes that ask at once for a file in a registry, behind two of the printed caches."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import ports
from fakes.chunks import chunk_listing
from fakes.layers import chunk_list
from fakes.network import Host
from fakes.process import WebServer
from fakes.registry import PASSWORD, USER, Registry, descriptor, digest, manifest, put, registry
from fleet.conftest import BODY, NODES, Fleet, mirrors
from fleet.storm import CHUNK, CREDENTIAL, Sources, check, printed_cache, storm

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="networks with lines of their own take root")
PORT = 5000
BLOB = f"/v2/site/model/blobs/{digest(BODY)}"


@dataclass(frozen=True, kw_only=True)
class Site:
    """The fleet with its servers running."""

    origin: Registry
    caches: Sequence[WebServer]
    nodes: Sequence[tuple[Host, Sources]]

    def copies(self) -> float:
        """How often the registry has sent the file so far."""
        return self.origin.sent(BLOB) / len(BODY)


@contextlib.contextmanager
def served(fleet: Fleet, folder: Path, *, private: bool) -> Iterator[Site]:
    """A registry with the file, to which nodes have to log in if it is `private`, and two caches with nothing yet.

    It is filled where it can be reached, and served at its place in the network.
    """
    layers = [descriptor(BODY, title="file"), chunk_list(BODY, title="file", size=CHUNK)]
    with registry(folder / "filled") as filled:
        named = put(filled, "site/model", manifest(*layers), BODY, chunk_listing(BODY, size=CHUNK))
    host = fleet.origin
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(
            registry(
                folder / "registry",
                htpasswd=private,
                data=filled.data,
                address=host.address,
                port=PORT,
                inside=host.inside,
            )
        )
        url = f"http://{host.address}:{PORT}"
        caches = [stack.enter_context(printed_cache(one, folder / one.name, origin=url)) for one in fleet.caches]
        login = {"registry_credential": CREDENTIAL, "insecure": True} if private else {}
        sources = {"oci": mirrors(fleet, f"/site/model@{named}", port=PORT), "title": "file", **login}
        yield Site(origin=origin, caches=caches, nodes=[(node, sources) for node in fleet.nodes])


def test_a_private_registry_sends_a_blob_to_each_cache(fleet: Fleet, tmp_path: Path) -> None:
    secret = f"{USER}:{PASSWORD}"
    with (
        served(fleet, tmp_path, private=True) as site,
        storm(tmp_path, body=BODY, nodes=site.nodes, secret=secret) as run,
    ):
        check(run.end())
        assert site.copies() <= len(site.caches) + 0.2


def test_all_nodes_finish_although_a_cache_of_a_registry_dies(fleet: Fleet, tmp_path: Path) -> None:
    secret, host = f"{USER}:{PASSWORD}", fleet.caches[0]
    with (
        served(fleet, tmp_path, private=True) as site,
        storm(tmp_path, body=BODY, nodes=site.nodes, secret=secret) as run,
    ):
        until = time.monotonic() + 30
        while sum(ports.taken(80, inside=host.inside)) < NODES // 2 * len(BODY) // 4:
            assert time.monotonic() < until, "the nodes take nothing from it"
            time.sleep(0.02)
        site.caches[0].kill()
        check(run.end())
        assert site.copies() <= len(site.caches) + 2


def test_all_nodes_finish_from_warm_caches_although_a_public_registry_is_dead(fleet: Fleet, tmp_path: Path) -> None:
    with served(fleet, tmp_path, private=False) as site:
        with storm(tmp_path / "first", body=BODY, nodes=site.nodes[:4]) as run:
            check(run.end())
        asked = [sum(BLOB in line for line in cache.requests()) for cache in site.caches]
        assert all(asked), "a cache is still cold"
        site.origin.process.kill()
        with storm(tmp_path, body=BODY, nodes=site.nodes) as run:
            check(run.end())
