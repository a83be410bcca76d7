"""`chunks:` of an artifact as its users write it: what is taken, and every mistake at its place."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from pxe_fetch.contract import chunks, reader
from pxe_fetch.contract.model import NO_CHUNKS, Artifact, Chunks
from pxe_fetch.contract.problem import Problem, ProblemError, show_all

SHA256 = "0" * 64
OTHER = "Ab" * 32


def text(*lines: str, given: str = "url: http://h/a") -> str:
    return "\n".join(
        [
            "version: 1",
            "artifacts:",
            "  - name: a",
            f"    {given}",
            "    dest: /srv/a",
            *(f"    {one}" for one in lines),
        ]
    )


def artifact(*lines: str, given: str = "url: http://h/a") -> Artifact:
    (only,) = reader.read(text(*lines, given=given), name="fetch.yaml").artifacts
    return only


def problems(*lines: str, given: str = "url: http://h/a") -> dict[str, Problem]:
    with pytest.raises(ProblemError) as caught:
        artifact(*lines, given=given)
    found = {problem.reference: problem for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems), show_all(caught.value.problems)
    assert all(problem.where for problem in found.values())
    return found


def test_a_list_in_the_configuration() -> None:
    found = artifact("size: 100KiB", f"chunks: {{size: 64KiB, sha256: [{SHA256}, {OTHER}]}}")
    assert found.chunks == Chunks(size=65536, digests=bytes(32) + b"\xab" * 32)
    assert found.digest is None


def test_a_list_beside_the_file() -> None:
    found = artifact("size: 1GiB", f"chunks: {{size: 4MiB, url: m.bin.chunks, sha256: {OTHER}}}")
    digest = bytes.fromhex(OTHER)
    assert found.chunks == Chunks(size=4 << 20, mirrors=(("m.bin.chunks",),), digests=digest)


def test_a_list_has_mirrors_and_the_base_of_its_artifact() -> None:
    lines = ["size: 1GiB", "base_url: http://h/x", f"chunks: {{size: 4MiB, urls: [a, http://o/b], sha256: {OTHER}}}"]
    pieces = artifact(*lines, given="url: a").chunks
    assert pieces is not None
    assert pieces.mirrors == (("http://h/x/a", "http://o/b"),)


def test_a_digest_of_the_whole_may_stand_beside_chunks() -> None:
    found = artifact("size: 1", f"sha256: {OTHER}", f"chunks: {{size: 4MiB, sha256: {SHA256}}}")
    assert found.digest
    assert found.chunks


def test_of_a_source_the_size_alone_is_given() -> None:
    assert artifact("chunks: {size: 1MiB}", given="source: a").chunks == Chunks(size=1 << 20)
    wrong = problems(f"chunks: {{size: 1MiB, sha256: [{SHA256}]}}", given="source: a")
    assert "pxe-pack computes" in wrong["chunks-of-source"].hint


def test_chunks_of_a_source_can_be_declined() -> None:
    assert artifact("chunks: none", given="source: a").chunks == NO_CHUNKS
    assert "which only applies to a `source`" in problems(f"sha256: {SHA256}", "chunks: none")["chunks-unclear"].message
    assert list(problems("chunks: many", given="source: a")) == ["wrong-type"]


@pytest.mark.parametrize(
    ("lines", "reference", "says"),
    [
        (["size: 1", f"chunks: {{sha256: [{SHA256}]}}"], "chunk-size-missing", "has no `size`"),
        (["size: 1", f"chunks: {{size: 5000, sha256: [{SHA256}]}}"], "chunk-size-invalid", "is not a valid chunk size"),
        (
            ["size: 1", f"chunks: {{size: 32KiB, sha256: [{SHA256}]}}"],
            "chunk-size-invalid",
            "is not a valid chunk size",
        ),
        (["size: 1", f"chunks: {{size: 2GiB, sha256: [{SHA256}]}}"], "chunk-size-invalid", "is not a valid chunk size"),
        (["size: 1", f"chunks: {{size: many, sha256: [{SHA256}]}}"], "size-invalid", "is not a size"),
        ([f"chunks: {{size: 4MiB, sha256: [{SHA256}]}}"], "size-missing", "has chunks and no `size`"),
        (["size: 1", "chunks: {size: 4MiB}"], "chunks-unpinned", "has no digests"),
        (["size: 1", "chunks: {size: 4MiB, url: c}"], "chunks-unpinned", "names a list without its digest"),
        (["size: 1", f"chunks: {{size: 4MiB, url: c, sha256: [{SHA256}]}}"], "chunks-unclear", "and the url of one"),
        (
            ["size: 1", f"chunks: {{size: 4MiB, url: c, urls: [c], sha256: {SHA256}}}"],
            "chunks-unclear",
            "url and urls",
        ),
        (["size: 1", "chunks: {size: 4MiB, sha256: [beef]}"], "checksum-invalid", "is not a SHA-256 digest"),
        (
            ["size: 0", f"chunks: {{size: 4MiB, sha256: [{SHA256}]}}"],
            "chunk-count",
            "is an empty file, which has no chunks",
        ),
        (
            ["size: 9MiB", f"chunks: {{size: 4MiB, sha256: [{SHA256}]}}"],
            "chunk-count",
            "has 1 digests, but a file of 9MiB has 3 chunks of 4MiB",
        ),
        (
            ["size: 1TiB", f"chunks: {{size: 4MiB, url: c, sha256: {SHA256}}}"],
            "chunk-size-invalid",
            "would have 262144 chunks",
        ),
        (["size: 1", f"chunks: {{size: 4MiB, sha256: {SHA256}, shape: round}}"], "unknown-key", "unknown key `shape`"),
        (["size: 1", "chunks: 4MiB"], "wrong-type", "must be a mapping"),
    ],
)
def test_each_mistake_has_its_name(lines: list[str], reference: str, says: str) -> None:
    found = problems(*lines)
    assert list(found) == [reference], show_all(list(found.values()))
    assert says in found[reference].message


def test_all_mistakes_are_told_at_once() -> None:
    found = problems("chunks:", "  size: 5000", "  url: 'a b'", "  shape: round")
    assert set(found) == {"chunk-size-invalid", "url-invalid", "chunks-unpinned", "unknown-key", "size-missing"}


def test_too_many_chunks_come_with_the_size_that_would_do() -> None:
    hint = problems("size: 1TiB", f"chunks: {{size: 4MiB, url: c, sha256: {SHA256}}}")["chunk-size-invalid"].hint
    assert hint == "`size: 8MiB` or more"
    assert artifact("size: 1TiB", f"chunks: {{size: 8MiB, url: c, sha256: {SHA256}}}").chunks


def test_the_recipe_in_the_hint_makes_the_list(tmp_path: Path) -> None:
    body = bytes(range(256)) * 600
    (tmp_path / "FILE").write_bytes(body)
    hint = problems("size: 153600", f"chunks: {{size: 64KiB, sha256: [{SHA256}]}}")["chunk-count"].hint
    recipe = re.findall("`(.*?)`", hint)[0]
    told = subprocess.run(["bash", "-c", recipe], cwd=tmp_path, capture_output=True, check=True).stdout
    expected = b"".join(hashlib.sha256(body[at : at + 65536]).digest() for at in range(0, len(body), 65536))
    assert chunks.unlisted(told, number=3) == expected
