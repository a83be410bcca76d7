"""The program `pxe-pack-collector`, and `python -m pxe_pack.collector`."""

from __future__ import annotations

import signal
import sys

from pxe_pack.collector_options import HOW_TO_INSTALL


def main() -> int:
    """Run the collector until SIGTERM or SIGINT, by which it ends; the exit code 2 if it cannot be run."""
    # Python's own handler would end a start, and uvicorn's loop when it has stopped serving, with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from pxe_pack.collector import command
    except ModuleNotFoundError as error:
        print(f"collector: {error.name} is not installed; {HOW_TO_INSTALL}", file=sys.stderr)
        return 2
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
