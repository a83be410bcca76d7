"""Chunk digests from the configuration to the place: lists in it and beside the file, trees, what is kept."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile

import pytest

from fakes.faults import Flip, Status
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server
from fakes.transfers import cut

CHUNK = 64 * 1024
BODY = random.Random(21).randbytes(20 * CHUNK + 1)


def listed(body: bytes) -> bytes:
    digests = cut(body, chunk=CHUNK).digests
    return "".join(f"{digests[at : at + 32].hex()}\n" for at in range(0, len(digests), 32)).encode()


def entry(node: FakeNode, name: str, url: str, body: bytes, /, **chunks: object) -> Entry:
    """An artifact that chunk digests alone pin."""
    whole = dict(node.entry(name, url, body, size=len(body), chunks={"size": CHUNK} | chunks))
    del whole["sha256"]
    return whole


def beside(node: FakeNode, server: Server, body: bytes = BODY) -> Entry:
    digest = hashlib.sha256(listed(body)).hexdigest()
    return entry(node, "m", server.url("/m"), body, url=server.url("/m.chunks"), sha256=digest)


def site(body: bytes = BODY) -> dict[str, Script]:
    return {"/m": Script(body=body), "/m.chunks": Script(body=listed(body))}


def test_a_list_in_the_configuration(node: FakeNode) -> None:
    with Server(site()) as server:
        ran = node.run_config(entry(node, "m", server.url("/m"), BODY, sha256=listed(BODY).decode().split()))
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert node.files() == ["m"]
    found = ran.artifact("m")
    assert (found["phase"], found["bytes"], found["bytes_received"]) == ("placed", len(BODY), len(BODY))
    assert (found["attempts"], found["sha256"]) == (1, None)


def test_a_list_beside_the_file(node: FakeNode) -> None:
    with Server(site()) as server:
        ran = node.run_config(beside(node, server))
        assert ran.code == 0, ran.err
        assert len(server.asked_for("/m.chunks")) == 1
    assert (node.out / "m").read_bytes() == BODY


def test_a_list_that_is_not_the_named_one_is_an_integrity_error(node: FakeNode) -> None:
    with Server(site() | {"/m.chunks": Script(body=listed(BODY[::-1]))}) as server:
        ran = node.run_config(beside(node, server))
        assert not server.asked_for("/m")
    assert (ran.code, ran.artifact("m")["cause"]) == (76, "integrity")


def test_a_list_of_another_length_is_refused(node: FakeNode) -> None:
    text = listed(BODY)[:-65]
    with Server(site() | {"/m.chunks": Script(body=text)}) as server:
        digest = hashlib.sha256(text).hexdigest()
        ran = node.run_config(entry(node, "m", server.url("/m"), BODY, url=server.url("/m.chunks"), sha256=digest))
    assert ran.code == 77
    assert "20 lines, but the file has 21 chunks" in str(ran.artifact("m")["error"])


def test_what_is_right_already_is_kept_by_its_chunks(node: FakeNode) -> None:
    with Server(site()) as server:
        config = beside(node, server)
        assert node.run_config(config).code == 0
        ran = node.run_config(config)
        assert ran.artifact("m")["phase"] == "kept"
        assert len(server.asked_for("/m.chunks")) == 2
        before = len(server.asked)
        (node.out / "m").write_bytes(BODY[:-1] + b"\0")
        assert node.run_config(config).artifact("m")["phase"] == "placed"
        assert len(server.asked) > before
    assert (node.out / "m").read_bytes() == BODY


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = 5 * CHUNK
            tar.addfile(info, io.BytesIO(BODY[: info.size]))
    return out.getvalue()


def test_an_archive_is_unpacked_and_kept(node: FakeNode) -> None:
    packed = archive()
    with Server(site(packed)) as server:
        config = {**beside(node, server, packed), "extract": "tar"}
        ran = node.run_config(config)
        assert ran.code == 0, ran.err
        assert (node.out / "m/a").read_bytes() == BODY[: 5 * CHUNK]
        assert node.run_config(config).artifact("m")["phase"] == "kept"


def test_a_bad_chunk_and_its_mending_are_told_in_a_line_each(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, then=Flip())}) as bad, Server({"/m": Script(body=BODY)}) as good:
        digests = listed(BODY).decode().split()
        config = dict(entry(node, "m", bad.url("/m"), BODY, sha256=digests))
        del config["url"]
        ran = node.run_config({**config, "urls": [bad.url("/m"), good.url("/m")]}, parallel=1)
        gave = [line for line in ran.err.splitlines() if "fetching that chunk again" in line]
        came = [line for line in ran.err.splitlines() if "is correct now" in line]
    assert ran.code == 0, ran.err
    if bad.asked_for("/m"):
        assert len(gave) == len(came) == 1
        assert "wrong bytes from 655360 to 720895: chunk 10" in gave[0]
        assert f"chunk 10 is correct now, from {good.url('/m')}" in came[0]
    assert len(ran.err.splitlines()) < 10


def test_a_digest_of_the_whole_that_is_another_is_told_as_a_contradiction(node: FakeNode) -> None:
    with Server(site()) as server:
        wrong = {**beside(node, server), "sha256": "0" * 64}
        ran = node.run_config(wrong)
    assert ran.code == 76
    assert "the configuration contradicts itself" in str(ran.artifact("m")["error"])


@pytest.mark.parametrize("parallel", [1, 3])
def test_there_are_never_more_streams_than_allowed(parallel: int, node: FakeNode) -> None:
    names = ["a", "b", "c", "d", "e"]
    with Server({f"/{name}": Script(body=BODY) for name in names}) as server:
        digests = listed(BODY).decode().split()
        ran = node.run_config(
            *(entry(node, name, server.url(f"/{name}"), BODY, sha256=digests) for name in names), parallel=parallel
        )
        assert ran.code == 0, ran.err
        assert len({asked.connection for asked in server.asked}) <= parallel
    for name in names:
        assert (node.out / name).read_bytes() == BODY


def test_a_list_that_is_gone_names_its_cause(node: FakeNode) -> None:
    with Server(site() | {"/m.chunks": Script(then=Status(404))}) as server:
        ran = node.run_config(beside(node, server))
    assert (ran.code, ran.artifact("m")["cause"]) == (69, "not-found")


def test_a_list_that_is_gone_matters_not_where_there_is_a_digest_of_the_whole(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY), "/m.chunks": Script(then=Status(500))}) as server:
        pinned = {**beside(node, server), "sha256": hashlib.sha256(BODY).hexdigest()}
        first, second = node.run_config(pinned), node.run_config(pinned)
        assert server.sent("/m") == len(BODY)
    assert (first.code, second.code) == (0, 0), first.err
    assert (first.artifact("m")["phase"], second.artifact("m")["phase"]) == ("placed", "kept")


def test_the_list_moves_with_what_pxe_pack_exported(node: FakeNode) -> None:
    packed = "http://127.0.0.1:1/exported/"
    with Server({f"/there{path}": script for path, script in site().items()}) as server:
        node.boot_with(f"pxe-fetch.artifact_url={server.url('/there')}")
        digest = hashlib.sha256(listed(BODY)).hexdigest()
        config = entry(node, "m", f"{packed}m", BODY, url=f"{packed}m.chunks", sha256=digest)
        ran = node.run_config(config, artifact_url=packed)
    assert ran.code == 0, ran.err
