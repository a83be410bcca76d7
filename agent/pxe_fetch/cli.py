"""The command line, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

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
    # The only late imports: `version` needs nothing more and `status` little. What `run` needs takes 0.1 s to import.
    if command == "status":
        from pxe_fetch.reporting.status import status

        return status(wait="--wait" in options, as_json="--json" in options)
    from pxe_fetch import commands

    if command == "check":
        return commands.check(rest[0])
    return commands.run(config_file, debug="--debug" in options, root=root)


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
