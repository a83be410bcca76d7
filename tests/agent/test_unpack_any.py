"""Archives that nobody would make: a tree is placed or they are refused, and nothing else is ever made."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.transfers import Bench
from pxe_fetch.errors import FetchError
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
    tree.install(replace(bench.transfer(), extract="tar"))
    return folder / bench.name


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archives() | st.binary(max_size=2000))
def test_no_archive_brings_anything_but_a_tree_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)  # hundreds of times, it would be all that the test does
    around = tmp_path_factory.mktemp("any")
    folder = around / "a/b"
    folder.mkdir(parents=True)
    refusal = None
    try:
        place(body, folder)
    except FetchError as error:
        refusal = error
    assert (refusal is None) == (folder / "model").exists()
    assert type(refusal) is not FetchError
    assert "\n" not in str(refusal)
    assert {path.name for path in folder.iterdir()} <= {"model", "model.part", ".model.pxe-fetch-tree"}
    assert [path.name for path in (around / "a").iterdir()] == ["b"]
    assert [path.name for path in around.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_claims_to_be_huge_takes_no_memory(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 62
    with pytest.raises(FetchError, match="not a whole tar archive"):
        place(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 * BLOCK), tmp_path)


def test_a_header_that_is_none_is_not_the_end(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a", "b", "c"):
            tar.addfile(tarfile.TarInfo(name))
    body = bytearray(out.getvalue())
    body[BLOCK + 1] ^= 0xFF  # the name of the second, so that its sum is wrong
    with pytest.raises(FetchError, match="not a whole tar archive"):
        place(bytes(body), tmp_path)
