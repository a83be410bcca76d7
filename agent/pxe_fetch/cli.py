"""The command line, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys

from pxe_fetch.contract.exits import Exit

TYPE_CHECKING = False  # typing is an import that `status` need not pay
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
usage: pxe-fetch run [--config FILE] [--debug]   bring this node's artifacts
       pxe-fetch status [--wait] [--json]        how the latest run went, or goes
       pxe-fetch check FILE                      whether FILE is a right configuration
       pxe-fetch version
"""
HELP = """
`run` finds its configuration on the kernel command line (pxe-fetch.config=URL), in the credential pxe-fetch.config,
in /etc/pxe-fetch/fetch.yaml or in /usr/lib/pxe-fetch/fetch.yaml, in this order; --config comes before all of them.

exit codes: 0 done, 2 done but an optional artifact failed, 64 usage, 65 configuration, 69 network, 70 bug,
73 cannot create, 74 input/output, 75 deadline or stopped, 76 integrity, 77 refused, 78 TLS trust, 79 no room
"""


class UsageError(Exception):
    """The command line says nothing that can be done."""


def main(arguments: Sequence[str], *, root: str = "/") -> int:
    """Do what `arguments` say; the exit code. The node's own files are read below `root`: "/" but for tests."""
    words = list(arguments)
    debug = "--debug" in words
    try:
        return _command(words, root=root)
    except UsageError as error:
        sys.stderr.write(f"pxe-fetch: {error}\n{USAGE}")
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell has it
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        return Exit.IO
    except Exception as error:
        from pxe_fetch.reporting.journal import ERROR, Journal
        from pxe_fetch.reporting.result import result_of_error

        result = result_of_error(error)
        Journal().send(result.message, priority=ERROR, error=result.cause)
        if debug:
            raise
        return result.exit_code


def _command(words: list[str], *, root: str) -> int:
    if any(word in {"-h", "--help"} for word in words) or words == ["help"]:
        sys.stdout.write(USAGE + HELP)
        return Exit.DONE
    if not words:
        raise UsageError("what is to be done?")
    command, *rest = words
    match command:
        case "run":
            return _run(rest, root=root)
        case "status":
            options = _options(rest, known=("--wait", "--json"))
            from pxe_fetch.reporting.status import status

            return status(wait="--wait" in options, as_json="--json" in options)
        case "check":
            if len(rest) != 1 or rest[0].startswith("-"):
                raise UsageError("`check` takes one FILE")
            return _check(rest[0])
        case "version" | "--version":
            from pxe_fetch import __version__

            sys.stdout.write(f"pxe-fetch {__version__}\n")
            return Exit.DONE
    raise UsageError(f"there is no command `{command}`")


def _run(words: list[str], *, root: str) -> int:
    config: str | None = None
    rest: list[str] = []
    given = iter(words)
    for word in given:
        if word == "--config":
            config = next(given, None)
            if config is None:
                raise UsageError("--config needs a FILE")
        elif word.startswith("--config="):
            config = word.partition("=")[2]
        else:
            rest.append(word)
    options = _options(rest, known=("--debug",))
    import signal
    from pathlib import Path

    from pxe_fetch.errors import StoppedError
    from pxe_fetch.reporting.notify import is_service
    from pxe_fetch.run import run

    result = run(given=Path(config) if config is not None else None, debug="--debug" in options, root=Path(root))
    if result.cause == StoppedError.reference and is_service():
        # systemd takes the death by its own SIGTERM for a clean end, an exit code for a failure (systemd.service(5)).
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return result.exit_code


def _check(file: str) -> int:
    """Say whether `file` is a right configuration: all its problems on stderr, or what it would bring on stdout."""
    from pathlib import Path

    from pxe_fetch.config_source import read_file, text_of
    from pxe_fetch.contract import reader
    from pxe_fetch.contract.problem import ProblemError, show_all
    from pxe_fetch.humanize import count

    try:
        document = reader.read(text_of(read_file(Path(file)), name=file), name=file)
    except ProblemError as error:
        sys.stderr.write(show_all(error.problems) + "\n")
        return Exit.CONFIG
    sys.stdout.write(f"{file} is right: {count(len(document.fetch.artifacts), 'artifact')}\n")
    for artifact in document.fetch.artifacts:
        origin = artifact.urls[0] if artifact.urls else f"source: {artifact.source}"
        more = f" and {count(len(artifact.urls) - 1, 'mirror')}" if len(artifact.urls) > 1 else ""
        sys.stdout.write(f"  {artifact.name}: {origin}{more} -> {artifact.dest}\n")
    return Exit.DONE


def _options(words: list[str], *, known: tuple[str, ...]) -> frozenset[str]:
    for word in words:
        if word not in known:
            raise UsageError(f"`{word}` is not understood here")
    return frozenset(words)
