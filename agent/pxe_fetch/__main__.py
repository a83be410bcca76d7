"""Where the program begins: `python -m pxe_fetch`, the script `pxe-fetch`, the frozen agent."""

from __future__ import annotations

import gc
import os
import sys

# Imports create tens of thousands of objects that stay. Searching them for garbage again and again takes 30 ms.
gc.set_threshold(50_000)

from pxe_fetch import cli  # noqa: E402  after the line above


def main() -> int:
    """Run the command line of this process; return its exit code."""
    code = cli.main(sys.argv[1:])
    if hasattr(sys, "frozen"):
        # Everything is closed and flushed; taking down a few hundred modules takes 5 to 15 ms.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
