"""Compressed files put in place as what is in them: whole or not at all, whatever their names are."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import stat
import subprocess
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.faults import cut
from fakes.node import FakeNode, Ran
from fakes.server import Script, Server
from pxe_fetch.install import decompress

CONTENT = random.Random(1).randbytes(300_000) + b"\0" * 3_000_000
Compress = Callable[[bytes], bytes]
WAYS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: subprocess.run(["zstd", "-q"], input=data, capture_output=True, check=True).stdout,
}


def run_with(node: FakeNode, body: bytes, **others: object) -> Ran:
    with Server({"/t.bin": Script(body=body)}) as server:
        return node.run_config(node.entry("m", server.url("/t.bin"), body, extract="decompress", **others))


@pytest.mark.parametrize("way", WAYS)
def test_content_is_placed_and_digest_and_size_are_of_the_wire(node: FakeNode, way: str) -> None:
    body = WAYS[way](CONTENT)
    ran = run_with(node, body, size=len(body), mode="0640")
    assert ran.code == 0
    assert (node.out / "m").read_bytes() == CONTENT
    assert stat.S_IMODE((node.out / "m").stat().st_mode) == 0o640
    assert ran.artifact("m")["bytes"] == len(body)
    assert f"m: decompressed at {node.out}/m" in ran.err
    assert node.files() == [".m.pxe-fetch-content", "m"]


@pytest.mark.parametrize("way", WAYS)
def test_several_streams_and_the_zeros_after_them_are_one_file(node: FakeNode, way: str) -> None:
    compress = WAYS[way]
    body = compress(b"one") + compress(b"") + compress(CONTENT) + b"\0" * 600_000
    assert run_with(node, body).code == 0
    assert (node.out / "m").read_bytes() == b"one" + CONTENT


def test_empty_content_is_an_empty_file(node: FakeNode) -> None:
    assert run_with(node, gzip.compress(b"")).code == 0
    assert (node.out / "m").read_bytes() == b""


def test_what_is_right_already_is_kept_and_not_asked_for(node: FakeNode) -> None:
    body = gzip.compress(CONTENT)
    with Server({"/m": Script(body=body)}) as server:
        entry = node.entry("m", server.url("/m"), body, extract="decompress")
        assert node.run_config(entry).artifact("m")["phase"] == "placed"
        assert node.run_config({**entry, "mode": "0600"}).artifact("m")["phase"] == "kept"
        assert len(server.asked) == 1
    assert stat.S_IMODE((node.out / "m").stat().st_mode) == 0o600


def test_content_that_was_changed_is_made_anew_even_if_nothing_else_tells(node: FakeNode) -> None:
    body = gzip.compress(CONTENT)
    assert run_with(node, body).code == 0
    placed = node.out / "m"
    before = placed.stat()
    placed.write_bytes(CONTENT[:-1] + b"?")
    os.utime(placed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run_with(node, body).artifact("m")["phase"] == "placed"
    assert placed.read_bytes() == CONTENT


def test_another_artifact_replaces_it(node: FakeNode) -> None:
    assert run_with(node, gzip.compress(CONTENT)).code == 0
    assert run_with(node, lzma.compress(b"new")).artifact("m")["phase"] == "placed"
    assert (node.out / "m").read_bytes() == b"new"
    assert run_with(node, lzma.compress(b"new")).artifact("m")["phase"] == "kept"


def test_transfer_that_was_cut_off_is_resumed_before_anything_is_decompressed(node: FakeNode) -> None:
    body = gzip.compress(CONTENT)
    with Server({"/m": Script(body=body, faults=[cut(0.5)])}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), body, extract="decompress"))
        assert [asked.range for asked in server.asked] == [None, f"bytes={len(body) // 2}-"]
    assert ran.code == 0
    assert (node.out / "m").read_bytes() == CONTENT


def test_zstd_file_that_several_threads_made_is_one_file(node: FakeNode) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"ignored"
    assert run_with(node, skippable + WAYS["zstd"](CONTENT) + skippable).code == 0
    assert (node.out / "m").read_bytes() == CONTENT


GZIP = gzip.compress(CONTENT)
BAD = {
    "not compressed": (b"plain text " * 100, "is not compressed with"),
    "nothing at all": (b"", "is not compressed with"),
    "cut off": (GZIP[:-20], "truncated"),
    "cut off in its header": (GZIP[:5], "truncated"),
    "damaged": (GZIP[:1000] + b"?" * 50 + GZIP[1050:], "damaged"),
    "wrong checksum": (GZIP[:-8] + b"????" + GZIP[-4:], "damaged"),
    "followed by something else": (GZIP + b"and more", "followed by something else"),
    "followed by another kind": (GZIP + lzma.compress(b"x"), "followed by something else"),
    "damaged zstd": (WAYS["zstd"](CONTENT)[:-4] + b"????", "damaged"),
    "damaged xz": (lzma.compress(CONTENT)[:-40] + b"?" * 40, "damaged"),
    "damaged bzip2": (bz2.compress(CONTENT)[:1000] + b"?" * 1000, "damaged"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_decompressed_is_refused_in_a_sentence(node: FakeNode, what: str) -> None:
    body, said = BAD[what]
    node.out.mkdir()
    (node.out / "m").write_text("still here")
    ran = run_with(node, body)
    assert ran.code == 77
    assert ran.state["cause"] == "policy"
    assert said in ran.err
    assert (node.out / "m").read_text() == "still here"
    assert node.files() == ["m"]


def with_window(exponent: int) -> bytes:
    """A zstd stream that wants a window of 2 to the power of `exponent` bytes (RFC 8878, 3.1.1.1.2)."""
    body = bytearray(WAYS["zstd"](CONTENT))
    assert not body[4] & 0x20
    body[5] = exponent - 10 << 3
    return bytes(body)


def with_dictionary(bits: int) -> bytes:
    """An xz stream whose dictionary has the size that is written as `bits` (.xz file format, 5.3.1)."""
    body = bytearray(lzma.compress(CONTENT))
    end = 12 + 4 * (body[12] + 1)
    at = body.index(b"\x21\x01", 12)
    body[at + 2] = bits
    body[end - 4 : end] = zlib.crc32(body[12 : end - 4]).to_bytes(4, "little")
    return bytes(body)


LARGE_WINDOWS = {
    "--long=31": (with_window(31), "2.00 GiB"),
    "--long=28": (with_window(28), "256 MiB"),
    "one segment": (b"\x28\xb5\x2f\xfd\xe0" + (3 << 30).to_bytes(8, "little") + b"\1\0\0", "3.00 GiB"),
    "after another stream": (WAYS["zstd"](CONTENT) + with_window(30), "1.00 GiB"),
}


@pytest.mark.parametrize("extract", ["decompress", "tar"])
@pytest.mark.parametrize("what", LARGE_WINDOWS)
def test_a_window_that_is_too_large_is_named_with_the_limit_and_the_remedy(
    what: str, extract: str, node: FakeNode
) -> None:
    body, window = LARGE_WINDOWS[what]
    with Server({"/m": Script(body=body)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), body, extract=extract))
    if extract == "tar" and what.startswith("after"):
        assert ran.code == 77  # the first stream is no archive
        return
    assert ran.code == 77
    assert f"a window of {window}" in ran.out
    assert "128 MiB at most" in ran.out
    assert "--long=27" in ran.out
    assert "memory" not in ran.out
    assert node.files() == []


def test_the_largest_window_that_zstd_takes_unasked_is_taken(node: FakeNode) -> None:
    assert run_with(node, with_window(27)).code == 0
    assert (node.out / "m").read_bytes() == CONTENT


def test_a_dictionary_that_memory_has_no_room_for_is_named(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "memory_available", lambda: 512 << 20)
    assert run_with(node, with_dictionary(28)).code == 0  # 64 MiB, as with `xz -9`
    ran = run_with(node, with_dictionary(36), dest=str(node.out / "n"))
    assert ran.code == 79
    assert "a dictionary of 1.00 GiB in memory (xz)" in ran.out
    assert "512 MiB available" in ran.out
    assert "`xz -9`" in ran.out
    assert node.files() == [".m.pxe-fetch-content", "m"]


def test_directory_at_the_destination_is_73_before_anything_is_fetched(node: FakeNode) -> None:
    (node.out / "m/inside").mkdir(parents=True)
    body = gzip.compress(CONTENT)
    with Server({"/m": Script(body=body)}) as server:
        assert node.run_config(node.entry("m", server.url("/m"), body, extract="decompress")).code == 73
        assert not server.asked


def test_disk_that_is_full_mid_way_is_79_with_nothing_left(node: FakeNode) -> None:
    body = gzip.compress(CONTENT)
    assert len(body) < 1_000_000 < len(CONTENT)
    with Server({"/m": Script(body=body)}) as server:
        assert node.run_on_full_disk(node.entry("m", server.url("/m"), body, extract="decompress")) == 79
    assert node.state()["cause"] == "no-room"
    assert node.files() == []


def test_what_a_killed_run_left_is_cleared_away(node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / ".m.pxe-fetch-staging").write_bytes(b"half")
    assert run_with(node, gzip.compress(CONTENT)).code == 0
    assert node.files() == [".m.pxe-fetch-content", "m"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WAYS)), st.binary(max_size=3000), st.integers(0, 200), st.binary(max_size=3))
def test_no_damage_brings_anything_but_the_content_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, way: str, content: bytes, at: int, junk: bytes
) -> None:
    from pxe_fetch.errors import FetchError
    from pxe_fetch.install.decompress import pieces

    body = WAYS[way](content)
    file = tmp_path_factory.mktemp("damaged") / "m"
    file.write_bytes(body[:at] + junk + body[at + len(junk) :] if junk else body)
    with file.open("rb", buffering=0) as packed:
        try:
            found = b"".join(pieces(packed))
        except FetchError:
            return
    assert found == content or way == "gzip"  # a gzip header may be damaged where nothing checks it
