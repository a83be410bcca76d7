"""The record of a packed ISO is input from outside: one that is wrong is as good as none."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site, files_of

Packs = Callable[..., str]
FIELDS = struct.Struct("<16sQQQ")  # magic, size of the original, offset and size of the body; SHA-256 follows
PIECE = struct.Struct("<cQQ")  # kind, size, offset
DIGEST = 32
HUGE = 1 << 62


def with_record(image: Path, body: bytes, *, size: int, packed: bytes | None = None) -> None:
    """Replace the record of a packed ISO by one with this body, whose digest is right."""
    raw = image.read_bytes()
    magic, _, at, _ = FIELDS.unpack_from(raw, len(raw) - FIELDS.size - DIGEST)
    packed = zlib.compress(body) if packed is None else packed
    fields = FIELDS.pack(magic, size, at, len(packed))
    terminator = next(sector for sector in range(16, 32) if raw[sector * 2048] == 255)
    head = bytearray(raw[: (terminator + 1) * 2048])
    head[16 * 2048 + 883 : 16 * 2048 + 1395] = bytes(512)
    digest = hashlib.sha256(bytes(head) + fields + packed).digest()
    padding = bytes(-(len(packed) + FIELDS.size + DIGEST) % 2048)
    image.write_bytes(raw[:at] + packed + padding + fields + digest)


def body(*pieces: tuple[bytes, int, int], kept: bytes = b"", count: int | None = None) -> bytes:
    return (
        struct.pack("<Q", len(pieces) if count is None else count)
        + b"".join(PIECE.pack(*piece) for piece in pieces)
        + kept
    )


def removed(image: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Remove the payload, with little memory."""
    command = [sys.executable, "-m", "pxe_pack", "remove", str(image), "-o", str(output), "--quiet"]
    limited = ["sh", "-c", 'ulimit -v 700000; ulimit -f 200000; exec "$@"', "sh", *command]
    return subprocess.run(limited, capture_output=True, text=True, check=False)


def test_a_right_record_is_used(site: Site, packs: Packs) -> None:
    packs("--inject", "updates")
    with_record(site.iso, body((b"K", 5, 0), (b"Z", 3, 0), (b"F", 8, 32768), kept=b"hello"), size=16)
    output = site.folder / "back.iso"
    assert removed(site.iso, output).returncode == 0
    assert output.read_bytes() == b"hello\0\0\0\1CD001\1\0"


def bomb(size: int) -> bytes:
    """So many zeros, compressed."""
    stream = zlib.compressobj(1)
    return b"".join(stream.compress(bytes(1 << 20)) for _ in range(size >> 20)) + stream.flush()


def with_other_digest(image: Path) -> None:
    raw = image.read_bytes()
    image.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


WRONG: dict[str, Callable[[Path], None]] = {
    "found behind the end": lambda iso: with_record(iso, body((b"F", 16, iso.stat().st_size)), size=16),
    "found at an offset that overflows": lambda iso: with_record(iso, body((b"F", 16, 2**64 - 8)), size=16),
    "kept behind the end": lambda iso: with_record(iso, body((b"K", 16, 1), kept=bytes(16)), size=16),
    "too little": lambda iso: with_record(iso, body((b"Z", 15, 0)), size=16),
    "too much": lambda iso: with_record(iso, body((b"Z", 17, 0)), size=16),
    "zeros without end": lambda iso: with_record(iso, body((b"Z", HUGE, 0)), size=HUGE),
    "the same bytes again and again": lambda iso: with_record(iso, body(*[(b"F", 1 << 20, 0)] * 4096), size=4 << 30),
    "an unknown kind": lambda iso: with_record(iso, body((b"X", 16, 0)), size=16),
    "more pieces than there are": lambda iso: with_record(iso, body((b"Z", 16, 0), count=1 << 60), size=16),
    "an empty body": lambda iso: with_record(iso, b"", size=16),
    "a body that explodes": lambda iso: with_record(iso, b"", size=16, packed=bomb(1 << 30)),
    "a body that is cut off": lambda iso: with_record(
        iso, b"", size=16, packed=zlib.compress(body((b"Z", 16, 0)))[:-6]
    ),
    "no body": lambda iso: with_record(iso, b"", size=16, packed=b"garbage"),
    "a digest of other bytes": with_other_digest,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record_is_not_used(site: Site, packs: Packs, name: str) -> None:
    packs("--inject", "updates")
    packed = site.folder / "packed.iso"
    shutil.copyfile(site.iso, packed)
    WRONG[name](packed)
    output = site.folder / "back.iso"
    done = removed(packed, output)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    before, after = files_of(site.image), files_of(output)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"boot.catalog"}
