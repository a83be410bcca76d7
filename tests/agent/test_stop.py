"""SIGTERM ends a run at once, whatever it is doing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping

import pytest

from fakes.chunks import chunk_digests
from fakes.exchange import Fault
from fakes.faults import Hang, Status, drip, stall, unavailable
from fakes.node import FakeNode
from fakes.server import Script, Server
from fakes.stopwatch import Stopwatch
from fakes.waiting import until

BODY = b"x" * 400_000
CHUNK = 64 * 1024
DIGESTS = chunk_digests(BODY, size=CHUNK)
LARGE = 2 << 30  # bytes: they take seconds to hash
PIECE, PIECES = 64 << 20, 96  # bytes of zeros, and how many of them: more than any run here unpacks
COMPRESS = {"gzip": ["gzip", "-1"], "xz": ["xz", "-0"], "zstd": ["zstd", "-q"], "tar": ["zstd", "-q"]}
SECONDS = 1.0  # half of one for the run, and as much for a busy machine


def packed(how: str) -> bytes:
    """`PIECES` compressed streams, one after the other, of a file or of an archive with one file."""

    def compressed(data: bytes) -> bytes:
        return subprocess.run(COMPRESS[how], input=data, capture_output=True, check=True).stdout

    body = compressed(bytes(PIECE)) * PIECES
    if how != "tar":
        return body
    info = tarfile.TarInfo("zeros")
    info.size = PIECE * PIECES
    return compressed(info.tobuf(tarfile.GNU_FORMAT)) + body + compressed(bytes(1024))


def stop(node: FakeNode, entry: Mapping[str, object], *, under_way: Callable[[], bool] = lambda: True) -> float:
    """Seconds that a run takes to end after SIGTERM, sent half a second after it fetches `entry` and is `under_way`."""
    file = node.folder / "fetch.yaml"
    file.write_text(node.config(entry, defaults={"retry": {"base": "60s", "max": "60s"}}))
    process = node.start("run", "--config", str(file))
    try:
        until(lambda: node.state().get("phase") == "fetching" and under_way())
        time.sleep(0.5)
        assert process.poll() is None
        with Stopwatch(process.pid) as watch:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 75, err
    assert "stopped by SIGTERM" in out
    assert "Traceback" not in err
    assert node.state()["cause"] == "stopped"
    return watch.seconds


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
@pytest.mark.parametrize(
    "fault",
    [unavailable("60"), Status(503), Hang(), stall(0.5), drip(0.5, every=0.1)],
    ids=["asked to wait", "backing off", "no answer", "silence", "dripping"],
)
def test_a_stop_ends_any_wait_for_a_server(fault: Fault, chunked: bool, node: FakeNode) -> None:  # noqa: FBT001
    chunks = {"size": len(BODY), "chunks": {"size": CHUNK, "sha256": DIGESTS}} if chunked else {}
    with Server({"/m": Script(body=BODY, then=fault)}) as server:
        assert stop(node, node.entry("m", server.url("/m"), BODY, **chunks)) < SECONDS


@pytest.mark.parametrize("name", ["m", ".m.pxe-fetch-part"], ids=["destination", "part file"])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_a_stop_ends_the_hashing_of_what_is_there(name: str, chunked: bool, node: FakeNode) -> None:  # noqa: FBT001
    node.out.mkdir()
    with (node.out / name).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, LARGE)  # blocks, not a hole: holes of chunks are not read
    size = {"size": LARGE}
    chunks = {"chunks": {"size": LARGE // 8, "sha256": ["0" * 64] * 8}} if chunked else {}
    with Server({"/m": Script(then=Hang())}) as server:
        assert stop(node, node.entry("m", server.url("/m"), BODY, **size, **chunks)) < SECONDS


def test_a_stop_ends_the_wait_for_another_run(node: FakeNode) -> None:
    node.out.mkdir()
    with (node.out / ".m.pxe-fetch-part").open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        assert stop(node, node.entry("m", "http://127.0.0.1:9/m", BODY)) < SECONDS


@pytest.mark.parametrize("how", COMPRESS)
def test_a_stop_ends_unpacking_and_leaves_what_can_be_resumed(how: str, node: FakeNode) -> None:
    body = packed(how)
    source = node.folder / "source"
    source.write_bytes(body)
    extract = "tar" if how == "tar" else "decompress"
    staging = node.out / ".m.pxe-fetch-staging"
    entry = node.entry("m", f"file://{source}", body, extract=extract)
    assert stop(node, entry, under_way=staging.exists) < SECONDS
    assert node.files() == [".m.pxe-fetch-part"]
    assert (node.out / ".m.pxe-fetch-part").read_bytes() == body
    assert not staging.exists()
