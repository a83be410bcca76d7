"""SIGTERM while an artifact is hashed, decompressed or unpacked: the run ends at once, with nothing half done."""

from __future__ import annotations

import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from fakes.node import Entry, FakeNode
from pxe_fetch.contract.commands import Exit

PIECE, PIECES = 64 << 20, 96  # bytes of zeros, and how many of them: more than any run here gets done
SOON = 1.0  # seconds; half of that where the machine does nothing else
COMPRESS = {"gzip": ["gzip", "-1"], "xz": ["xz", "-0"], "zstd": ["zstd", "-q"], "tar": ["zstd", "-q"]}


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


def stop_when(node: FakeNode, entry: Entry, under_way: Path | None) -> tuple[float, str]:
    """Start a run, send SIGTERM once `under_way` exists (None: soon); seconds until it has ended, and its output."""
    config = node.folder / "fetch.yaml"
    config.write_text(node.config(entry))
    with node.start("run", "--config", str(config)) as process:
        while not (under_way.exists() if under_way else node.state().get("artifacts")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        out, err = process.communicate(timeout=30)
        seconds = time.monotonic() - begin
        print(f"{seconds:.2f} s")
    assert process.returncode == Exit.DEADLINE, err
    assert "Traceback" not in err
    return seconds, out


def test_a_run_that_hashes_what_is_there_ends_at_once(node: FakeNode) -> None:
    node.out.mkdir()
    with (node.out / "m").open("wb") as file:
        file.truncate(PIECE * PIECES)
    entry = {**node.entry("m", "http://127.0.0.1:1/m", b""), "size": PIECE * PIECES}
    seconds, out = stop_when(node, entry, None)
    assert "stopped by SIGTERM" in out
    assert seconds < SOON
    assert (node.out / "m").stat().st_size == PIECE * PIECES
    assert node.files() == ["m"]


@pytest.mark.parametrize("how", COMPRESS)
def test_a_run_that_unpacks_ends_at_once_and_leaves_what_can_be_resumed(how: str, node: FakeNode) -> None:
    body = packed(how)
    source = node.folder / "source"
    source.write_bytes(body)
    extract = "tar" if how == "tar" else "decompress"
    entry = node.entry("m", f"file://{source}", body, extract=extract)
    seconds, out = stop_when(node, entry, node.out / ".m.pxe-fetch-staging")
    assert "stopped by SIGTERM" in out
    assert seconds < SOON
    assert node.files() == [".m.pxe-fetch-part"]
    assert (node.out / ".m.pxe-fetch-part").read_bytes() == body
    assert not (node.out / ".m.pxe-fetch-staging").exists()
