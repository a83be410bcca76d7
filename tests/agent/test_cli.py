"""The command line: what is understood, and what is said to what is not."""

from __future__ import annotations

import pytest

import pxe_fetch
from fakes.node import FakeNode


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "no command given"),
        (["fetch"], "unknown command `fetch`"),
        (["run", "--confg", "x"], "unexpected argument `--confg`"),
        (["run", "--config"], "--config needs a FILE"),
        (["run", "extra"], "unexpected argument `extra`"),
        (["status", "--watch"], "unexpected argument `--watch`"),
        (["check"], "`check` takes one FILE"),
        (["check", "a", "b"], "`check` takes one FILE"),
    ],
)
def test_wrong_usage_is_64_with_a_short_help(node: FakeNode, words: list[str], complaint: str) -> None:
    ran = node.run(*words)
    assert ran.code == 64
    assert ran.err.startswith(f"pxe-fetch: {complaint}\nusage: pxe-fetch run ")
    assert ran.out == ""
    assert ran.state == {}


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["run", "--help"]])
def test_help_goes_to_stdout_and_names_the_exit_codes(node: FakeNode, words: list[str]) -> None:
    ran = node.run(*words)
    assert ran.code == 0
    assert "79 no room" in ran.out
    assert ran.err == ""


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_is_the_packages(node: FakeNode, word: str) -> None:
    assert node.run(word).out == f"pxe-fetch {pxe_fetch.__version__}\n"


def test_check_shows_every_problem_with_its_line(node: FakeNode) -> None:
    file = node.write(
        "f.yaml", "version: 1\nartifacts:\n  - name: m\n    sha256: beef\n    url: http://h/m\n    dest: x\n"
    )
    ran = node.run("check", str(file))
    assert ran.code == 65
    assert f"  --> {file}:4:13" in ran.err
    assert "error[checksum-invalid]" in ran.err
    assert "error[path-invalid]" in ran.err
    assert "2 problems found" in ran.err
    assert ran.out == ""


def test_check_of_a_valid_file_says_what_it_would_fetch(node: FakeNode) -> None:
    file = node.write("f.yaml", node.config(node.entry("m", "http://h/m", b""), node.entry("n", "http://h/n", b"")))
    ran = node.run("check", str(file))
    assert ran.code == 0
    assert ran.out.startswith(f"{file} is valid: 2 artifacts\n")
    assert f"  n: http://h/n -> {node.out}/n" in ran.out
    assert ran.state == {}


def test_check_of_a_missing_file_or_of_bytes_is_a_sentence(node: FakeNode) -> None:
    ran = node.run("check", "/no/such/file")
    assert ran.code == 65
    assert "/no/such/file cannot be read: No such file or directory" in ran.err
    file = node.root / "bytes"
    file.write_bytes(b"\xff\xfe\x00")
    ran = node.run("check", str(file))
    assert ran.code == 65
    assert "is not UTF-8 text" in ran.err


def test_missing_file_for_run_is_65(node: FakeNode) -> None:
    ran = node.run("run", "--config=/no/such/file")
    assert ran.code == 65
    assert "/no/such/file cannot be read" in ran.err
