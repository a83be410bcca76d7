"""SHA256SUMS files as servers have them: whichever program wrote them, and however large."""

from __future__ import annotations

import gzip
import hashlib
import time
import tracemalloc

import pytest

from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.sha256sums import LARGEST, digest_of

HEX = "0123456789abcdef" * 4
OTHER = "f" * 64
LARGE = {
    "newlines": "\n",
    "digests without names": f"{OTHER}\n",
    "digests on one line": f"{OTHER} ",
    "names": f"{OTHER}  file\n",
    "blanks behind a digest": f"{OTHER}{' ' * 4000}{'a' * 9000}\n",
    "backslashes": f"\\{OTHER}  " + "\\" * 400 + "\n",
    "half of BSD's lines": f"SHA256 ({') =' * 2000}\n",
}


@pytest.mark.parametrize(
    "line",
    [
        f"{HEX}  m 1.bin",
        f"{HEX} *m 1.bin",
        f"{HEX}  ./m 1.bin",
        f"{HEX} *./m 1.bin",
        f"{HEX.upper()}  m 1.bin",
        f"{HEX} m 1.bin",
        f"{HEX}\tm 1.bin",
        f"{HEX}    m 1.bin  ",
        f"{HEX}  iso/m 1.bin",
        f"SHA256 (m 1.bin) = {HEX}",
        f"SHA256 (./m 1.bin) = {HEX}",
        f"SHA2-256(m 1.bin)= {HEX}",
        f"SHA256(m 1.bin)= {HEX}",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_of_any_program_is_found_among_others(line: str, encoding: str, end: str) -> None:
    lines = ["# a comment", f"{OTHER}  n", f"SHA256 (n) = {OTHER}", f"{OTHER}  xm 1.bin", line, f"{OTHER}  m 1.bin.sig"]
    for text in (end.join(lines), end.join([*lines, ""]), line):
        assert digest_of(b"m 1.bin", sums=text.encode(encoding)) == HEX


@pytest.mark.parametrize("text", [HEX, f"{HEX}\n", f" {HEX.upper()} \r\n\r\n", f"{HEX}  -\n", f"{HEX} *-"])
def test_a_digest_alone_in_the_file_is_that_of_the_artifact(text: str) -> None:
    assert digest_of(b"m", sums=text.encode()) == HEX


def test_escaped_names_are_those_that_sha256sum_escaped() -> None:
    sums = f"\\{OTHER}  na\\\\nme\n\\{HEX}  na\\nme\nSHA256 (na\\nme) = {'e' * 64}\n".encode()
    assert digest_of(b"na\nme", sums=sums) == HEX
    assert digest_of(b"na\\nme", sums=sums) == OTHER


def test_a_name_in_another_encoding_is_compared_byte_by_byte() -> None:
    sums = f"{OTHER}  caf\u00e9\n".encode() + f"{HEX}  caf\u00e9\n".encode("latin-1")
    assert digest_of(b"caf\xe9", sums=sums) == HEX


def test_a_name_alone_comes_before_one_in_a_folder() -> None:
    sums = f"{OTHER}  old/m\n{HEX}  m\n".encode()
    assert digest_of(b"m", sums=sums) == HEX


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{HEX}  m",
        f"{HEX[:-1]}  m 1.bin",
        f"{HEX}0  m 1.bin",
        f"x{HEX}  m 1.bin",
        f"{HEX}m 1.bin",
        f"{HEX}\n{HEX}\n",
        f"{HEX[:-1]}\n",
        "<html>",
    ],
)
def test_a_missing_line_is_an_error_that_names_both(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has no line for m 1\.bin"):
        digest_of(b"m 1.bin", sums=text.encode())


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\n<!DOCTYPE html><title>Log in</title>", "a web page"),
        (b"<HTML>", "a web page"),
        (gzip.compress(f"{HEX}  m\n".encode(), mtime=0), "compressed"),
    ],
)
def test_what_is_no_list_of_digests_at_all_is_named(sent: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^has no line for m: it is {said}"):
        digest_of(b"m", sums=sent)


@pytest.mark.parametrize("kind", LARGE)
def test_the_largest_file_takes_little_time_and_memory(kind: str) -> None:
    sums = (LARGE[kind] * (LARGEST // len(LARGE[kind]) + 1)).encode()[:LARGEST]
    began = time.process_time()
    with pytest.raises(ValueError, match="has no line"):
        digest_of(b"m", sums=sums)
    assert time.process_time() - began < 0.5
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="has no line"):
            digest_of(b"m", sums=sums)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_is_too_large_is_refused(node: FakeNode) -> None:
    with Server({"/SUMS": Script(body=b"\n" * (LARGEST + 1)), "/m": Script(body=b"m")}) as server:
        ran = node.run_config(
            {"name": "m", "url": server.url("/m"), "sha256_url": server.url("/SUMS"), "dest": f"{node.out}/m"}
        )
    assert ran.code == 77
    assert str(LARGEST) in ran.err


def test_an_artifact_is_verified_by_the_digest_beside_it(node: FakeNode) -> None:
    digest = hashlib.sha256(b"m").hexdigest()
    with Server({"/m.sha256": Script(body=digest.encode()), "/m": Script(body=b"m")}) as server:
        ran = node.run_config(
            {"name": "m", "url": server.url("/m"), "sha256_url": server.url("/m.sha256"), "dest": f"{node.out}/m"}
        )
    assert ran.code == 0
    assert ran.artifact("m")["sha256"] == digest
