"""The program `pxe-pack`, and `python -m pxe_pack`."""

import signal


def main() -> int:
    """Run the command that sys.argv names; gives the exit code."""
    # a signal waits for its handler, so that it shows no traceback of imports
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    from pxe_pack import cleanup

    with cleanup.handled():
        from pxe_pack import cli

        return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
