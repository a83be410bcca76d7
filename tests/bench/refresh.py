#!/usr/bin/env python3
"""Measures, and writes the figures into tests/bench/README.md: what each program printed, on what machine, and when.

    .venv/bin/python tests/bench/refresh.py                      # all that have a block there, on an idle machine
    .venv/bin/python tests/bench/refresh.py bench_start.py -- --rounds 3

A block is what is between `<!-- figures of COMMAND -->` and `<!-- end of figures -->`, where COMMAND is the program and
its options. A command without a block gets one at the end of the page. What follows `--` goes to the given programs.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

PAGE = Path(__file__).with_name("README.md")
_BLOCK = "<!-- figures of {command} -->\n{text}<!-- end of figures -->\n"
_BLOCKS = re.compile(r"<!-- figures of (.+?) -->\n.*?<!-- end of figures -->\n", re.DOTALL)


def main() -> int:
    """Refresh the blocks; exit code 1 if a program fails, whose block then stays as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    parser.add_argument("--page", type=Path, default=PAGE, help=argparse.SUPPRESS)
    ours, _, theirs = " ".join(["", *sys.argv[1:]]).partition(" -- ")
    given = parser.parse_args(ours.split())
    page: Path = given.page
    failed = 0
    if theirs and not given.programs:
        parser.error("options after -- need a PROGRAM before it")
    commands = [" ".join([name, *theirs.split()]) for name in given.programs]
    for command in commands or _BLOCKS.findall(page.read_text(encoding="utf-8")):
        name, *options = command.split()
        print(command, file=sys.stderr)
        words = [sys.executable, str(page.parent / name), *options]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"error: {command} ended with {done.returncode}", file=sys.stderr)
            failed = 1
            continue
        what = f"`{command}`, {time.strftime('%Y-%m-%d')}, {_machine()}"
        text = f"\n{what}:\n\n```text\n{done.stdout.rstrip()}\n```\n\n"
        page.write_text(rewritten(page.read_text(encoding="utf-8"), command=command, text=text), encoding="utf-8")
    return failed


def rewritten(page: str, *, command: str, text: str) -> str:
    """The `page` with another text in the block of `command`."""
    block = _BLOCK.format(command=command, text=text)
    if command not in _BLOCKS.findall(page):
        return f"{page.rstrip()}\n\n{block}"
    return _BLOCKS.sub(lambda found: block if found[1] == command else found[0], page)


def _machine() -> str:
    """The processor and how many of them this process may use."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"(?m)^model name\s*: (.*)$", text)
    return f"{len(os.sched_getaffinity(0))} of {model[1] if model else platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
