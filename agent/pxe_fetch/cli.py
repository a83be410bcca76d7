"""The command line, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from pxe_fetch import __version__
from pxe_fetch.contract.commands import COMMANDS, Exit


class UsageError(Exception):
    """The command line is not understood."""


def main(arguments: Sequence[str], *, root: str = "/") -> int:
    """Run the command in `arguments`; return the exit code. The node's own files are read below `root` ("/" in use)."""
    code: int = Exit.IO
    try:
        code = _run_command(list(arguments), root=root)
        sys.stdout.flush()
    except UsageError as error:
        return _complain(f"{error} (see `pxe-fetch --help`)", Exit.USAGE)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    except OSError as error:  # of stdout: commands translate those of other files
        # Otherwise the interpreter prints an error when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            _complain(f"cannot write to stdout: {error.strerror}", Exit.IO)
        return code if arguments[0] == "run" else Exit.IO
    except Exception as error:  # a run reports its errors itself, and `check` those of the file
        if "--debug" in arguments:
            raise
        return _complain(f"a bug in pxe-fetch: {type(error).__name__}: {error}", Exit.BUG)
    return code


def _complain(message: str, code: int) -> int:
    from pxe_fetch.contract.problem import printable

    _to_stderr(f"pxe-fetch: {printable(message)}\n")
    return code


def _to_stderr(text: str) -> None:
    with suppress(OSError):  # it is closed or full; the exit code says enough
        sys.stderr.write(text)


def _run_command(words: list[str], *, root: str) -> int:
    """Run the command. Raises UsageError, and OSError if stdout cannot be written."""
    if words in (["version"], ["--version"]):  # the quickest, it imports nothing more
        sys.stdout.write(f"pxe-fetch {__version__}\n")
        return Exit.DONE
    if not words:
        raise UsageError("no command given")
    if words[0] == "help" or not {"-h", "--help"}.isdisjoint(words):
        sys.stdout.write(_help(next((word for word in words if word in COMMANDS), None)))
        return Exit.DONE
    name, *rest = words
    if name not in COMMANDS:
        raise UsageError(f"unknown command `{name}`{_suggestion(name, COMMANDS)}")
    command = COMMANDS[name]
    values = _parse(name, {one.flag: one.metavar for one in command.options}, command.operand, rest)
    # Each command imports what it needs: nothing more for `version`, little for `status`; `run` takes 0.1 s to import.
    if name == "status":
        from pxe_fetch.reporting.status import status

        return status(wait="--wait" in values, as_json="--json" in values)
    if name == "check":
        return _check(values["FILE"], as_json="--json" in values)
    if "--unpinned" in values and "--config" not in values:
        raise UsageError("--unpinned needs --config FILE")
    return _run(values, root=root)


def _parse(name: str, metavars: Mapping[str, str], operand: str, words: Iterable[str]) -> Mapping[str, str]:
    """The values of the flags and of the operand in `words`. Raises UsageError.

    `metavars` are those of the flags' values; a flag without one has the value "".
    """
    values: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if flag in metavars:
            metavar = metavars[flag]
            values[flag] = value if equals or not metavar else next(remaining, "")
            if bool(values[flag]) != bool(metavar):
                raise UsageError(f"{flag} needs a {metavar}" if metavar else f"{flag} takes no value")
        elif word.startswith("-") or not operand:
            raise UsageError(f"unexpected argument `{word}`{_suggestion(flag, metavars)}")
        elif operand in values:
            raise UsageError(f"`{name}` takes one {operand}")
        else:
            values[operand] = word
    if operand and operand not in values:
        raise UsageError(f"`{name}` takes one {operand}")
    return values


def _suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` if one of the `known` words is like `word`."""
    from pxe_fetch.contract.problem import suggestion

    near = suggestion(word, known)
    return near and f"; {near}"


def _help(name: str | None) -> str:
    """The help of a command, or of the program."""
    import textwrap

    def filled(text: str) -> str:
        return textwrap.fill(text, width=100, break_on_hyphens=False)

    if name:
        command = COMMANDS[name]
        options = [(" ".join(filter(None, (one.flag, one.metavar))), one.help) for one in command.options]
        listed = "".join(f"  {flag:16}{text}\n" for flag, text in [*options, ("--help", "show this help")])
        about = f"\n{filled(command.details)}\n" if command.details else ""
        return f"usage: {command.usage(name)}\n\n{command.summary}\n\n{listed}{about}"
    usages = {command.usage(name): command.summary for name, command in COMMANDS.items()}
    width = max(map(len, usages)) + 2
    listed = "".join(f"  {usage:{width}}{summary}\n" for usage, summary in usages.items())
    codes = filled(f"exit codes: {', '.join(f'{code} {code.meaning}' for code in Exit)}")
    return f"usage: pxe-fetch COMMAND\n\n{listed}\n`pxe-fetch COMMAND --help` describes a command.\n\n{codes}\n"


def _run(values: Mapping[str, str], *, root: str) -> int:
    """Fetch and install this node's artifacts; return the exit code. `values` are those of the flags.

    A service that was stopped ends by SIGTERM instead: systemd takes that for a clean end, and an exit code for a
    failure (systemd.service(5), SuccessExitStatus=).
    """
    import gc
    import signal
    from pathlib import Path

    from pxe_fetch.contract import checks
    from pxe_fetch.errors import StoppedError
    from pxe_fetch.reporting.journal import is_service
    from pxe_fetch.run import run

    if not gc.get_freeze_count():  # what was imported stays: no search for garbage looks at it
        gc.freeze()
    result = run(
        config_file=Path(values["--config"]) if "--config" in values else None,
        pin=(lambda artifact, _: artifact) if "--unpinned" in values else checks.unpinned,
        debug="--debug" in values,
        root=Path(root),
    )
    if result.cause == StoppedError.reference and is_service():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return result.exit_code


def _check(file: str, *, as_json: bool) -> int:
    """Print what `file` would fetch, or every problem in it (to stderr, if not as JSON); return the exit code."""
    import json
    from pathlib import Path

    from pxe_fetch.config_source import decode, read_file
    from pxe_fetch.contract import reader
    from pxe_fetch.contract.mirrors import requested
    from pxe_fetch.contract.problem import ProblemError, printable, show_all
    from pxe_fetch.contract.quantity import count
    from pxe_fetch.contract.registry import written
    from pxe_fetch.contract.url import flat

    try:
        config = reader.read(decode(read_file(Path(file)), name=file), name=file)
    except ProblemError as error:
        if as_json:
            at = ("file", "line", "column")
            problems = [
                one.as_document() | {key: getattr(one.where, key, None) for key in at} for one in error.problems
            ]
            sys.stdout.write(json.dumps({"file": file, "valid": False, "problems": problems}, indent=2) + "\n")
        else:
            _to_stderr(show_all(error.problems) + "\n")
        return Exit.CONFIG
    artifacts = [(one, flat(requested(one, base=config.base_url).file)) for one in config.artifacts]
    if as_json:
        listed = [{"name": one.name, "urls": urls, "source": one.source, "dest": one.dest} for one, urls in artifacts]
        document = {"file": file, "valid": True, "problems": [], "artifacts": listed}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return Exit.DONE
    sys.stdout.write(f"{printable(file)} is valid: {count(len(artifacts), 'artifact')}\n")
    for artifact, urls in artifacts:
        origin = artifact.urls[0] if artifact.urls else f"source: {artifact.source}"
        if artifact.title is not None:
            origin = f"{artifact.title} of {written(origin)}"
        more = f" and {count(len(urls) - 1, 'mirror')}" if len(urls) > 1 else ""
        sys.stdout.write(printable(f"  {artifact.name}: {origin}{more} -> {artifact.dest}") + "\n")
    return Exit.DONE
