#!/usr/bin/env python3
"""Prints how many files of the agent one run passes: those that have a function which runs.

    .venv/bin/python tests/bench/passes.py run --config fetch.yaml

The arguments are those of pxe-fetch. What runs at imports does not count, nor do classes.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

from pxe_fetch import cli

FOLDER = str(Path(cli.__file__).parent)


def main() -> int:
    passed: set[str] = set()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        is_function = code.co_name != "<module>" and not code.co_name[0].isupper()
        if event == "call" and is_function and code.co_filename.startswith(FOLDER):
            passed.add(code.co_filename)

    import pxe_fetch.run
    import pxe_fetch.transport.http  # noqa: F401  before it is looked at: no decorator of theirs counts

    threading.setprofile(look)
    sys.setprofile(look)
    code = cli.main(sys.argv[1:])
    sys.setprofile(None)
    print(len(passed), *sorted(path.removeprefix(FOLDER)[1:] for path in passed))
    return code


if __name__ == "__main__":
    sys.exit(main())
