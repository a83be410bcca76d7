"""Damaged, truncated, or not a squashfs: a clear error, never a hang, excessive memory use or a traceback."""

from __future__ import annotations

import resource
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType

import pytest

from packager.squashfs.images import Member, directory, mksquashfs, varied
from packager.squashfs.payload import ours, payload
from pxe_pack.image.limits import Limit, LimitError
from pxe_pack.squashfs import Image, SquashfsError, graft

CPU_LIMIT = 20.0  # seconds of the processor for one damaged image; a sound one takes a tenth of one
PLAIN = ("-noI", "-noD", "-noF", "-noX", "-noId", "-no-fragments")


def few() -> list[Member]:
    """An image small enough to damage in many places."""
    return [member for member in varied() if len(member.data) < 80_000 and not member.path.startswith("etc/conf00")]


@pytest.fixture
def limited() -> Iterator[None]:
    """SIGPROF, sent by a CPU time limit, fails the test, so that an endless loop does not hang the run."""

    def fail(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"it took more than {CPU_LIMIT} s of the processor")

    before = signal.signal(signal.SIGPROF, fail)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def read_all(path: Path) -> None:
    ours(path)


def edited(image: Path, output: Path, at: int, new: bytes) -> Path:
    raw = bytearray(image.read_bytes())
    raw[at : at + len(new)] = new
    output.write_bytes(raw)
    return output


@pytest.mark.parametrize(
    ("at", "new", "said"),
    [
        (0, b"sqsh", "not a squashfs"),
        (28, struct.pack("<H", 3), "version 3.0"),
        (20, struct.pack("<H", 7), "unknown compressor number 7"),
        (24, struct.pack("<H", 0x8000), "unknown flags: 0x8000"),
        (12, struct.pack("<I", 4096), "block size is given as 4096 and as 2^17"),
        (22, struct.pack("<H", 60_000), "block size"),
        (4, bytes(4), "counts no inodes"),
        (26, bytes(2), "counts no inodes, or no owners"),
        (40, struct.pack("<Q", 1 << 62), "truncated"),
        (32, struct.pack("<Q", 9000), "outside its metadata block"),
        (64, struct.pack("<Q", 1 << 40), "table comes after"),
        (72, struct.pack("<Q", 0), "table comes after"),
        (16, struct.pack("<I", 1 << 31), "are outside its"),
        (4, struct.pack("<I", 1 << 31), "are outside its"),
    ],
)
def test_a_superblock_that_contradicts_itself_is_refused(
    gzip_image: Path, tmp_path: Path, at: int, new: bytes, said: str
) -> None:
    image = edited(gzip_image, tmp_path / "image", at, new)
    with pytest.raises(SquashfsError) as caught:
        read_all(image)
    assert said in str(caught.value)
    with pytest.raises(SquashfsError):
        graft(image, additions=payload(tmp_path), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, 3, 95, 96, 5000, 200_000])
def test_an_image_that_is_cut_short_is_refused(gzip_image: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "image").write_bytes(gzip_image.read_bytes()[:size])
    with pytest.raises(SquashfsError, match=r"truncated|not a squashfs"):
        Image.open(tmp_path / "image")


def test_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n" * 100)
    for path, said in ((tmp_path / "text", "not a squashfs"), (tmp_path, "cannot read"), (tmp_path / "0", "No such")):
        with pytest.raises(SquashfsError, match=said):
            Image.open(path)


def test_a_directory_that_contains_itself_is_no_endless_walk(tmp_path: Path) -> None:
    image = mksquashfs(tmp_path / "image", [directory("outer"), directory("outer/inner")], *PLAIN)
    with Image.open(image) as opened:
        outer, inner = opened.find("outer"), opened.find("outer/inner")
        assert outer
        assert inner
        start = opened.superblock.directory_table
    raw = image.read_bytes()
    # An entry has its inode's offset 8 bytes before its name; this one now leads to the directory that it is in.
    place = raw.index(b"inner", start) - 8
    assert struct.unpack_from("<H", raw, place)[0] == inner.reference & 0xFFFF
    looped = edited(image, tmp_path / "looped", place, struct.pack("<H", outer.reference & 0xFFFF))
    with pytest.raises(SquashfsError, match="contains itself"):
        read_all(looped)


def test_sizes_that_cannot_be_are_no_flood_of_memory(tmp_path: Path) -> None:
    hollow = Member(path="hollow", data=bytes(1 << 20))
    image = mksquashfs(tmp_path / "image", [hollow], *PLAIN)
    with Image.open(image) as opened:
        table = opened.superblock.inode_table
    size = image.read_bytes().index(struct.pack("<Q", 1 << 20), table)
    for lie in (1 << 62, (1 << 64) - 1, 1 << 21):
        lying = edited(image, tmp_path / "lying", size, struct.pack("<Q", lie))
        with pytest.raises(SquashfsError):
            read_all(lying)
        with Image.open(lying) as opened, pytest.raises(LimitError, match="more than 1,048,576 bytes"):
            opened.read(opened.find("hollow"), limit=Limit.ROOT_TEXT)  # type: ignore[arg-type]


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("compressor", ["gzip", "xz", "zstd", "lz4", "lzo", "lzma", "none"])
def test_any_damaged_byte_ends_in_an_error_or_an_answer(tmp_path: Path, compressor: str) -> None:
    options = PLAIN if compressor == "none" else ("-comp", compressor)
    image = mksquashfs(tmp_path / "image", few(), *options, "-b", "64K")
    raw = image.read_bytes()
    with Image.open(image) as opened:
        tables = opened.superblock.inode_table
        end = opened.superblock.bytes_used
    random = Random(compressor)
    additions = payload(tmp_path)[:8]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"error": 0, "answer": 0}
    for turn in range(60):
        damaged = bytearray(raw)
        for _ in range(1 + turn % 3):
            # Most of what can go wrong is in the superblock and the tables.
            at = random.choice([random.randrange(96), random.randrange(tables, end), random.randrange(len(raw))])
            damaged[at] = random.choice([random.randrange(256), damaged[at] ^ 1 << random.randrange(8), 0, 255])
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT)
        try:
            read_all(path)
            graft(path, additions=additions, removals=["usr/bin/su", "tmp"], output=tmp_path / "out")
        except (SquashfsError, LimitError):
            outcomes["error"] += 1
        else:
            outcomes["answer"] += 1
    assert min(outcomes.values()) > 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak  # KiB
    assert grown < 200 << 10


def test_any_cut_ends_in_an_error(tmp_path: Path) -> None:
    image = mksquashfs(tmp_path / "image", few())
    raw = image.read_bytes()
    with Image.open(image) as opened:
        end = opened.superblock.bytes_used
    random = Random(0)
    for size in [random.randrange(end) for _ in range(200)]:
        # The superblock agrees with the cut, so that the damage is found further in.
        cut = bytearray(raw[:size].ljust(96, b"\0"))
        cut[40:48] = struct.pack("<Q", len(cut))
        (tmp_path / "cut").write_bytes(cut)
        with pytest.raises(SquashfsError):
            read_all(tmp_path / "cut")
