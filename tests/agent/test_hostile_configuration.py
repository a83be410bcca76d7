"""A configuration made to do harm, or damaged: sentences and exit code 65, in little time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fakes.node import FakeNode

LARGEST = 1 << 20  # bytes of a configuration
# Check a file, then say by how many KiB and seconds of this process.
PROGRAM = """\
import resource, sys, time
import pxe_fetch.cli, pxe_fetch.config_source, pxe_fetch.contract.reader
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = pxe_fetch.cli.main(["check", sys.argv[1]])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time())
"""


def filled(head: str, each: str, tail: str = "") -> str:
    """As much of `each` between `head` and `tail` as a configuration may have."""
    return head + each * ((LARGEST - len(head) - len(tail)) // len(each)) + tail


def laughs() -> str:
    lines = [f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9)}]" for level in range(1, 30)]
    return "\n".join(["version: 1", "x0: &x0 [ha, ha, ha]", *lines])


LARGE = {
    "duplicate keys": filled("version: 1\n", "a:\n"),
    "unknown keys": "version: 1\n" + "".join(f"k{number}: 1\n" for number in range(45_000)),
    "odd tags": filled("version: 1\nartifacts: [", "!a b, ", "]"),
    "wrong types": "version: 1\nartifacts: [" + "a, " * 90_000 + "]",
    "empty artifacts": "version: 1\nartifacts: [" + "{}, " * 30_000 + "]",
    "small values": filled("[", "a,", "]"),
    "aliases that multiply": laughs(),
    "merge keys that multiply": laughs().replace("[*", "{<<: [*").replace("]", "]}", 1),
    "brackets": "[" * LARGEST,
    "braces": filled("", "{a: "),
    "dashes": filled("", "- "),
    "indents": "".join(" " * level + "-\n" for level in range(1_400)),
    "documents": filled("", "---\n"),
    "one long key": filled("version: 1\n", "k", ": 1"),
    "one long value": filled('version: 1\nparallel: "', "x", '"'),
    "one long number": filled("version: 1\nparallel: ", "9"),
    "escapes": filled('version: 1\nparallel: "', "\\x41", '"'),
    "newlines": filled("", "\n"),
    "too much": "#" * (LARGEST + 1),
}
SMALL = {
    b"version: 1\nparallel: !!bool maybe": "`maybe` does not fit its tag `!!bool`",
    b"version: !!int x": "`x` does not fit its tag `!!int`",
    b"version: !!float x": "`x` does not fit its tag `!!float`",
    b"version: !!null x": "`x` does not fit its tag `!!null`",
    b"version: !!timestamp 2001-01-01": "the tag `!!timestamp` is not allowed",
    b"version: !!timestamp x": "the tag `!!timestamp` is not allowed",
    b"version: !!binary '%'": "the tag `!!binary` is not allowed",
    b"version: !!python/name:os.system x": "the tag `!!python/name:os.system` is not allowed",
    b"version: !!set {a}": "the tag `!!set` is not allowed",
    b"version: 1\n<<: {parallel: 2}": "unknown key `<<`",
    b"version: 1\nparallel: .inf": "parallel must be a whole number",
    b"version: 1\nparallel: .nan": "parallel must be a whole number",
    b"version: 1\nparallel: 1e400": "parallel must be a whole number",
    b"version: 1\nparallel: *p": "no complete value `&p` before",
    b"version: 1\nparallel: &p [*p]": "no complete value `&p` before",
    b"version: 1\nparallel: \0": "control characters are not allowed",
    b'version: 1\ndefaults: {owner: "\\0"}': "defaults.owner is not the name",
    b'version: 1\ndefaults: {owner: "\\ud800"}': "invalid Unicode character escape code",
    b"version: 1 # \xff": "is not UTF-8",
    "version: 1\n".encode("utf-16"): "is not UTF-8",
    b"version: 1\nparallel: \xed\xa0\x80": "is not UTF-8",
}


@pytest.mark.parametrize("kind", LARGE)
def test_no_configuration_takes_much_time_or_memory(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "fetch.yaml"
    file.write_text(LARGE[kind])
    done = subprocess.run([sys.executable, "-c", PROGRAM, file], capture_output=True, text=True, check=True)
    code, kibibytes, seconds = done.stdout.split()
    assert code == "65"
    assert done.stderr.startswith("error[")
    assert len(done.stderr) < 100_000
    assert float(kibibytes) < 80 * 1024
    assert float(seconds) < 2.0


def test_problems_beyond_the_first_hundred_are_counted(node: FakeNode) -> None:
    file = node.folder / "fetch.yaml"
    file.write_text("version: 1\n" + "".join(f"k{number}: 1\n" for number in range(1_234)))
    ran = node.run("check", str(file))
    assert ran.err.count("error[unknown-key]") == 100
    assert "1,134 more are not shown" in ran.err
    ran = node.run("run", "--config", str(file))
    assert ran.code == 65
    assert "and 1233 more problems" in ran.out


@pytest.mark.parametrize("body", SMALL)
@pytest.mark.parametrize("command", ["check", "run"])
def test_what_is_odd_in_a_configuration_is_said_in_a_sentence(node: FakeNode, body: bytes, command: str) -> None:
    file = node.folder / "fetch.yaml"
    file.write_bytes(body)
    ran = node.run(*([command, str(file)] if command == "check" else [command, "--config", str(file)]))
    assert ran.code == 65
    assert SMALL[body] in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())


def test_a_long_line_is_shown_around_the_problem(node: FakeNode) -> None:
    file = node.folder / "fetch.yaml"
    file.write_text("{version: 1, " + "".join(f"allowed_roots{number}: 1, " for number in range(500)) + "parallel: no}")
    ran = node.run("check", str(file))
    shown = ran.err.split("\n\n")[0].splitlines()
    assert max(map(len, ran.err.splitlines())) < 250
    line, carets = shown[3], shown[4]
    assert line[carets.index("^") : carets.rindex("^") + 1] == "allowed_roots0"


def test_what_could_steer_a_terminal_is_not_shown(node: FakeNode) -> None:
    file = node.folder / "fetch.yaml"
    file.write_text('version: 1\n"\\e[31mred\\u202e": 1\n# \u202e\nparallel: \u202e1\n')
    ran = node.run("check", str(file))
    assert ran.code == 65
    assert all(line.isprintable() for line in ran.err.splitlines())
