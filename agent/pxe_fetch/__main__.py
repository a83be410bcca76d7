"""Where the program begins. What costs nothing to answer is answered before anything is imported."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line of this process; its exit code."""
    code = _command()
    if hasattr(sys, "frozen"):
        # There is nothing left to clean up, and taking a few hundred modules apart one by one takes 5 to 15 ms.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _command() -> int:
    match sys.argv[1:]:
        case ["version" | "--version"]:
            from pxe_fetch import __version__

            sys.stdout.write(f"pxe-fetch {__version__}\n")
            return 0
        case ["run"]:
            from pxe_fetch import idle

            if message := idle.reason():
                idle.tell(message)
                return 0
    import gc

    # Imports make tens of thousands of objects that stay; looking for garbage among them each time costs 30 ms.
    gc.set_threshold(50_000)
    from pxe_fetch.cli import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
