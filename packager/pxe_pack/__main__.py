"""The program `pxe-pack`, and `python -m pxe_pack`."""

import os
import signal
import sys


def main() -> int:
    """Run the command in sys.argv and return the exit code."""
    # block signals until the handlers are installed: otherwise Ctrl-C shows a traceback of imports
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    _open_closed_streams()
    from pxe_pack import cleanup

    with cleanup.handle_signals():
        from pxe_pack import cli

        return cli.main()


def _open_closed_streams() -> None:
    """Have the null device for a closed stdin, stdout or stderr, whose number the next file would get otherwise."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    raise SystemExit(main())
