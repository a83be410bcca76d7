"""The program `pxe-pack`, and `python -m pxe_pack`."""

import signal


def main() -> int:
    """Run the command in sys.argv and return the exit code."""
    # block signals until the handlers are installed: otherwise Ctrl-C shows a traceback of imports
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    from pxe_pack import cleanup

    with cleanup.handle_signals():
        from pxe_pack import cli

        return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
