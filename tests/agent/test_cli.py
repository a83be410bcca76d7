"""The command line: what is understood, and what is said to what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

import pxe_fetch
from fakes.node import FakeNode
from pxe_fetch.contract.commands import COMMANDS, Exit


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "no command given"),
        (["fetch"], "unknown command `fetch`"),
        (["stats"], "unknown command `stats`; did you mean `status`?"),
        (["\x1b[31m\n"], "unknown command ` [31m `"),
        (["run", "--confg", "x"], "unexpected argument `--confg`; did you mean `--config`?"),
        (["run", "--config"], "--config needs a FILE"),
        (["run", "--config="], "--config needs a FILE"),
        (["run", "--unpinned"], "--unpinned needs --config FILE"),
        (["run", "--debug=yes"], "--debug takes no value"),
        (["status", "--jsn"], "unexpected argument `--jsn`; did you mean `--json`?"),
        (["check", "--jason", "f"], "unexpected argument `--jason`; did you mean `--json`?"),
        (["run", "extra"], "unexpected argument `extra`"),
        (["status", "--watch"], "unexpected argument `--watch`; did you mean `--wait`?"),
        (["check"], "`check` takes one FILE"),
        (["check", "a", "b"], "`check` takes one FILE"),
    ],
)
def test_wrong_usage_is_64_with_a_sentence(node: FakeNode, words: list[str], complaint: str) -> None:
    ran = node.run(*words)
    assert ran.code == 64
    assert ran.err == f"pxe-fetch: {complaint} (see `pxe-fetch --help`)\n"
    assert ran.out == ""
    assert ran.state == {}


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_goes_to_stdout_and_names_the_exit_codes(node: FakeNode, words: list[str]) -> None:
    ran = node.run(*words)
    assert ran.code == 0
    assert "79 no room" in ran.out
    assert all(f"{one.usage(name)}  " in ran.out for name, one in COMMANDS.items())
    assert ran.err == ""


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_is_the_packages(node: FakeNode, word: str) -> None:
    assert node.run(word).out == f"pxe-fetch {pxe_fetch.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("ask", [lambda name: [name, "--help"], lambda name: [name, "-h"], lambda name: ["help", name]])
def test_each_command_has_its_help(node: FakeNode, name: str, ask: Callable[[str], list[str]]) -> None:
    ran = node.run(*ask(name))
    assert (ran.code, ran.err, ran.state) == (0, "", {})
    assert ran.out.startswith(f"usage: pxe-fetch {name}")
    assert all(option.flag in ran.out and option.help in ran.out for option in COMMANDS[name].options)


def test_help_says_what_each_exit_code_means(node: FakeNode) -> None:
    codes = " ".join(node.run("--help").out.split("exit codes: ")[1].split())
    assert codes == ", ".join(f"{code} {code.meaning}" for code in Exit)
    assert "79 no room" in codes


def program(words: str, redirections: str, node: FakeNode) -> subprocess.CompletedProcess[str]:
    """`pxe-fetch` with `words` in a shell, which ends with the agent's exit code, not with that of the last program."""
    script = f"set -o pipefail; {sys.executable} -m pxe_fetch {words} {redirections}"
    environment = os.environ | {"RUNTIME_DIRECTORY": str(node.state_file.parent), "PYTHONUNBUFFERED": ""}
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", ["status", "status --json", "check fetch.yaml", "version", "--help"])
def test_output_that_nobody_reads_is_no_error_message(node: FakeNode, words: str) -> None:
    assert node.run_config().code == 0
    words = words.replace("fetch.yaml", str(node.folder / "fetch.yaml"))
    ran = program(words, "| true", node)
    assert (ran.returncode, ran.stderr) in {(0, ""), (74, "")}  # `true` may come to its end later
    closed = program(words, ">&-", node)
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")
    full = program(words, ">/dev/full", node)
    assert (full.returncode, full.stderr) == (74, "pxe-fetch: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize(
    "redirections", [">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full", "| true", "2>&1 | true"]
)
def test_run_without_output_ends_as_any_other(node: FakeNode, redirections: str) -> None:
    body = b"x" * 5000
    node.out.mkdir()
    (node.folder / "m").write_bytes(body)
    file = node.folder / "fetch.yaml"
    file.write_text(node.config(node.entry("m", (node.folder / "m").as_uri(), body)))
    ran = program(f"run --config {file}", redirections, node)
    assert ran.returncode == 0
    assert "Traceback" not in ran.stderr
    assert node.state()["phase"] == "done"
    assert (node.out / "m").read_bytes() == body
    assert program("frobnicate", redirections, node).returncode == 64


def test_check_prints_its_problems_as_json(node: FakeNode) -> None:
    file = node.write("f.yaml", "version: 1\nartifacts:\n  - {name: m, url: m, sha256: beef, dest: /etc/x}\n")
    ran = node.run("check", "--json", str(file))
    assert (ran.code, ran.err) == (65, "")
    document = json.loads(ran.out)
    assert (document["file"], document["valid"]) == (str(file), False)
    first, second = document["problems"]
    assert (first["reference"], first["file"], first["line"], first["column"]) == ("checksum-invalid", str(file), 3, 31)
    assert first["message"] == "artifacts[0].sha256 is not a SHA-256 digest"
    assert "sha256sum" in first["hint"]
    assert second["reference"] == "dest-outside-roots"
    missing = json.loads(node.run("check", "/no/such/file", "--json").out)["problems"]
    assert [(one["reference"], one["line"], one["column"]) for one in missing] == [("config-unreadable", None, None)]


def test_check_of_a_valid_file_as_json_lists_what_it_would_fetch(node: FakeNode) -> None:
    file = node.write("f.yaml", node.config(node.entry("m", "http://h/m", b"")))
    ran = node.run("check", "--json", str(file))
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert (document["valid"], document["problems"]) == (True, [])
    (artifact,) = document["artifacts"]
    assert artifact == {"name": "m", "urls": ["http://h/m"], "source": None, "dest": str(node.out / "m")}


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
