"""Archives that nobody would make: a tree is placed or they are refused, and nothing else is ever made."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import tracemalloc
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.transfers import Bench
from pxe_fetch.errors import FetchError
from pxe_fetch.filesystem import Folder
from pxe_fetch.install import tree

BLOCK = tarfile.BLOCKSIZE
names = st.text("ab/.\u00e9\udc80 \n", max_size=8) | st.text(max_size=8) | st.just("n" * 300)
numbers = st.sampled_from(["0", "1", "-1", "512", "1e9", "1" * 30, "", "x", "0.5", "nan", "inf", "1,2,3"]) | st.text(
    max_size=4
)
fields = st.dictionaries(
    st.sampled_from(
        [
            *("path", "linkpath", "size", "mtime", "uid", "gid", "uname", "hdrcharset", "comment"),
            *("GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.size"),
            *("GNU.sparse.map", "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.numblocks"),
        ]
    ),
    numbers | names,
    max_size=4,
)
formats: st.SearchStrategy[Literal[0, 1, 2]] = st.sampled_from((0, 1, 2))  # ustar, GNU, pax
kinds = st.sampled_from([bytes((byte,)) for byte in b"01234567DKLMNSVxgX\0AZ"])


@st.composite
def members(draw: st.DrawFn) -> bytes:
    """A header of any kind, its fields as odd as they can be written, and some body."""
    info = tarfile.TarInfo(draw(names))
    info.type, info.linkname = draw(kinds), draw(names)
    info.size = draw(st.sampled_from([0, 1, 512, 1000, 1 << 33, 1 << 62]) | st.integers(0, 3000))
    info.mode = draw(st.integers(0, 0o7777))
    info.mtime = draw(st.sampled_from([0, 1, -1, 1 << 40, 1 << 62]))
    info.uid = draw(st.sampled_from([0, 1000, 1 << 40]))
    info.pax_headers = draw(fields)
    try:
        header = info.tobuf(draw(formats), errors="surrogateescape")
    except ValueError:
        header = b""
    body = draw(st.binary(max_size=40)) * draw(st.sampled_from([0, 1, 40]))
    return header + body + bytes(-len(body) % BLOCK)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Such members one after the other; a few bytes changed with the sum put right, and the end cut off, perhaps."""
    data = bytearray(b"".join(draw(st.lists(members(), max_size=4))) + bytes(2 * BLOCK))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 2 * BLOCK), st.integers(0, 255)), max_size=4)):
        if at < len(data):
            data[at] = byte
            start = at - at % BLOCK
            header = data[start : start + 148] + b" " * 8 + data[start + 156 : start + BLOCK]
            data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    whole = bytes(data[: draw(st.sampled_from([len(data), len(data), len(data) * 2 // 3]))])
    return gzip.compress(whole, 1) if draw(st.booleans()) else whole


def place(body: bytes, folder: Path) -> Path:
    """`body` placed as a tree; the part has to be gone, or to be there for another try."""
    bench = Bench(body=body, folder=folder, urls=())
    bench.part.write_bytes(body)
    transfer = replace(bench.transfer(), extract="tar")
    with closing(Folder(str(folder))) as opened, bench.part.open("rb") as part:
        tree.install(transfer, opened, part.fileno(), lambda: None)
    return folder / bench.name


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archives() | st.binary(max_size=2000))
def test_no_archive_brings_anything_but_a_tree_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(tree, "_ctypes", None)  # so that it is os.sync that writes to the disk
    monkeypatch.setattr(os, "sync", lambda: None)  # hundreds of times, it would be all that the test does
    around = tmp_path_factory.mktemp("any")
    folder = around / "a/b"
    folder.mkdir(parents=True)
    refusal: Exception | None = None
    try:
        place(body, folder)
    except (FetchError, OSError) as error:
        refusal = error
    assert (refusal is None) == (folder / "model").exists()
    assert type(refusal) is not FetchError
    assert "\n" not in str(refusal)
    assert {path.name for path in folder.iterdir()} <= {"model", "model.part", ".model.pxe-fetch-tree"}
    assert [path.name for path in (around / "a").iterdir()] == ["b"]
    assert [path.name for path in around.iterdir()] == ["a"]


def header(kind: bytes = tarfile.REGTYPE, *, name: str = "x", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


EXTENDED = [
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
]


@pytest.mark.parametrize("kind", EXTENDED)
def test_a_header_that_claims_to_be_huge_takes_no_memory(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not a complete tar archive"):
        place(header(kind, size=1 << 62) + bytes(4 * BLOCK), tmp_path)


@pytest.mark.parametrize("kind", EXTENDED)
def test_a_long_chain_of_headers_is_refused(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not a complete tar archive"):
        place((header(kind, size=BLOCK) + b"11 path=abc\n".ljust(BLOCK, b"\0")) * 5000 + header(), tmp_path)


def extended(kind: bytes, keys: range) -> bytes:
    """A header with a field of a kilobyte for each of `keys`."""
    fields = b"".join(b"1013 k%06d=%s\n" % (key, b"v" * 999) for key in keys)
    return header(kind, size=len(fields)) + fields + bytes(-len(fields) % BLOCK)


@pytest.mark.parametrize(
    "archive",
    [
        b"".join(extended(tarfile.XHDTYPE, range(900)) + header(name=f"f{n}") for n in range(80)),
        b"".join(extended(tarfile.XGLTYPE, range(n * 10, n * 10 + 10)) + header(name=f"f{n}") for n in range(4000)),
        header(tarfile.DIRTYPE, name=".") * 60_000,
    ],
    ids=["large", "shared", "many"],
)
def test_memory_does_not_grow_with_the_number_of_members(archive: bytes, tmp_path: Path) -> None:
    archive = gzip.compress(archive, 1)
    tracemalloc.start()
    try:
        with suppress(FetchError):
            place(archive, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("at", [0, 100, 124, 148, 156, 257])  # name, mode, size, sum, type, magic: pax(1)
def test_a_header_that_is_none_is_not_the_end(at: int, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a", "b", "c"):
            tar.addfile(tarfile.TarInfo(name))
    body = bytearray(out.getvalue())
    body[BLOCK + at] ^= 0xFF  # of the second, so that its sum is wrong
    with pytest.raises(FetchError, match="not a complete tar archive"):
        place(bytes(body), tmp_path)


@pytest.mark.parametrize("kept", [BLOCK + 1, BLOCK + 511, 2 * BLOCK + 1, 3 * BLOCK - 1])
def test_an_archive_cut_off_inside_a_member_is_refused(kept: int, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = BLOCK if name == "b" else 0
            tar.addfile(info, io.BytesIO(b"x" * BLOCK))
    with pytest.raises(FetchError, match="not a complete tar archive"):
        place(out.getvalue()[:kept], tmp_path)


def test_an_archive_may_end_without_blocks_of_zeros(tmp_path: Path) -> None:
    assert sorted(path.name for path in place(header(name="a") + header(name="b"), tmp_path).iterdir()) == ["a", "b"]


def test_compressed_bytes_that_are_cut_off_behind_the_archive_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(header(name="a") + bytes(2 * BLOCK))
    with pytest.raises(FetchError, match="truncated"):
        place(whole[:-4], tmp_path)


@pytest.mark.parametrize(
    "options", ["--format=gnu", *(f"--format=posix --sparse-version={v}" for v in ("0.0", "0.1", "1.0"))]
)
@pytest.mark.parametrize("compress", [False, True])
def test_sparse_files_keep_their_content_and_their_holes(options: str, compress: bool, tmp_path: Path) -> None:  # noqa: FBT001
    source, into = tmp_path / "source", tmp_path / "into"
    source.mkdir()
    into.mkdir()
    with (source / "sparse").open("wb") as file:
        for number in range(40):  # more pieces than one header of the old form has room for
            file.seek(number * 1_000_000)
            file.write(b"%d" % number * 1000)
        file.truncate(64_000_000)
    (source / "tail").write_bytes(b"behind it")
    words = ["tar", "-C", str(source), "--sparse", *options.split(), "-cf", "-", "sparse", "tail"]
    body = subprocess.run(words, capture_output=True, check=True).stdout
    assert len(body) < 2_000_000
    tree_ = place(gzip.compress(body) if compress else body, into)
    assert (tree_ / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (tree_ / "sparse").stat().st_blocks * 512 < 32_000_000
    assert (tree_ / "tail").read_bytes() == b"behind it"
