"""The command line, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pxe_fetch import __version__
from pxe_fetch.contract.exits import Exit

USAGE = """\
usage: pxe-fetch run [--config FILE] [--debug]   fetch and install this node's artifacts
       pxe-fetch status [--wait] [--json]        show the state of the latest run
       pxe-fetch check FILE                      validate a configuration file
       pxe-fetch version                         print the version
"""
HELP = """
`run` uses the first configuration that exists: --config FILE, the URL in pxe-fetch.config= on the kernel command line,
the credential pxe-fetch.config, /etc/pxe-fetch/fetch.yaml, /usr/lib/pxe-fetch/fetch.yaml.

exit codes: 0 done, 2 done but an optional artifact failed, 64 usage, 65 configuration, 69 network, 70 bug,
73 cannot create, 74 input/output, 75 deadline or stopped, 76 integrity, 77 refused, 78 TLS trust, 79 no room
"""


class UsageError(Exception):
    """The command line is not understood."""


def main(arguments: Sequence[str], *, root: str = "/") -> int:
    """Run the command in `arguments`; return the exit code. The node's own files are read below `root` ("/" in use)."""
    try:
        return _run_command(list(arguments), root=root)
    except UsageError as error:
        sys.stderr.write(f"pxe-fetch: {error}\n{USAGE}")
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    except BrokenPipeError:
        # Otherwise the interpreter prints an error when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.IO
    except Exception as error:  # a run reports its errors itself, and `check` those of the file
        sys.stderr.write(f"pxe-fetch: a bug in pxe-fetch: {type(error).__name__}: {error}\n")
        if "--debug" in arguments:
            raise
        return Exit.BUG


def _run_command(words: list[str], *, root: str) -> int:
    if any(word in {"-h", "--help"} for word in words) or words == ["help"]:
        sys.stdout.write(USAGE + HELP)
        return Exit.DONE
    if not words:
        raise UsageError("no command given")
    command, *rest = words
    match command:
        case "version" | "--version":
            sys.stdout.write(f"pxe-fetch {__version__}\n")
            return Exit.DONE
        case "status":
            options = _options(rest, known=("--wait", "--json"))
        case "check":
            if len(rest) != 1 or rest[0].startswith("-"):
                raise UsageError("`check` takes one FILE")
        case "run":
            config_file, rest = _config_option(rest)
            options = _options(rest, known=("--debug",))
        case _:
            raise UsageError(f"unknown command `{command}`")
    # Each command imports what it needs: nothing more for `version`, little for `status`; `run` takes 0.1 s to import.
    if command == "status":
        from pxe_fetch.reporting.status import status

        return status(wait="--wait" in options, as_json="--json" in options)
    if command == "check":
        return _check(rest[0])
    return _run(config_file, debug="--debug" in options, root=root)


def _run(config_file: str | None, *, debug: bool, root: str) -> int:
    """Fetch and install this node's artifacts; return the exit code.

    A service that was stopped ends by SIGTERM instead: systemd takes that for a clean end, and an exit code for a
    failure (systemd.service(5), SuccessExitStatus=).
    """
    from pxe_fetch.errors import StoppedError
    from pxe_fetch.reporting.journal import is_service
    from pxe_fetch.run import run

    file = None if config_file is None else Path(config_file)
    result = run(config_file=file, debug=debug, root=Path(root))
    if result.cause == StoppedError.reference and is_service():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return result.exit_code


def _check(file: str) -> int:
    """Print what `file` would fetch, or every problem in it to stderr; return the exit code."""
    from pxe_fetch.config_source import decode, read_file
    from pxe_fetch.contract import reader
    from pxe_fetch.contract.problem import ProblemError, show_all
    from pxe_fetch.humanize import count

    try:
        document = reader.read(decode(read_file(Path(file)), name=file), name=file)
    except ProblemError as error:
        sys.stderr.write(show_all(error.problems) + "\n")
        return Exit.CONFIG
    sys.stdout.write(f"{file} is valid: {count(len(document.fetch.artifacts), 'artifact')}\n")
    for artifact in document.fetch.artifacts:
        origin = artifact.urls[0] if artifact.urls else f"source: {artifact.source}"
        more = f" and {count(len(artifact.urls) - 1, 'mirror')}" if len(artifact.urls) > 1 else ""
        sys.stdout.write(f"  {artifact.name}: {origin}{more} -> {artifact.dest}\n")
    return Exit.DONE


def _config_option(words: list[str]) -> tuple[str | None, list[str]]:
    """The FILE of --config, and the words without that option. The last one wins."""
    file: str | None = None
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--config":
            file = next(remaining, None)
            if file is None:
                raise UsageError("--config needs a FILE")
        elif word.startswith("--config="):
            file = word.partition("=")[2]
        else:
            rest.append(word)
    return file, rest


def _options(words: list[str], *, known: tuple[str, ...]) -> frozenset[str]:
    for word in words:
        if word not in known:
            raise UsageError(f"unexpected argument `{word}`")
    return frozenset(words)
