"""The command line: the only reader of argv, and the one place where errors become exit codes.

The exit codes are listed in `parser.EXIT_CODES`; `cleanup` handles signals.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pxe_fetch.contract.problem import Problem
from pxe_pack import cleanup, parser
from pxe_pack.console import Console, ConsoleHandler, console
from pxe_pack.tools import InputError, WorkError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: sys.argv) and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parsed(words)
    shown = console(json_lines=arguments.json, quiet=arguments.quiet)
    cleanup.before_exit_by_signal(lambda came: shown.interrupted("interrupted" if came == signal.SIGINT else ""))
    try:
        with _logged(shown, verbosity=arguments.verbose):
            return _run(arguments, shown)
    except InputError as error:
        shown.problems(error.problems)
        return BAD_INPUT
    except WorkError as error:
        shown.problems(error.problems)
        return FAILED
    except KeyboardInterrupt:
        shown.say("interrupted")
        return INTERRUPTED
    except OSError as error:
        shown.problems([_system_problem(error)])
        return FAILED


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """The parsed command line. Exits with code 2 and a message if it is invalid."""
    tree = parser.build_parser(parser.commands_in(words))
    if unknown := parser.unknown_word(tree, words):
        asked, message = unknown
        asked.error(message)
    arguments = tree.parse_args(words)
    if flags := parser.misplaced_flags(arguments):
        tree.error(f"{', '.join(flags)}: this is for packing only, and cannot be given before {arguments.command}")
    file = getattr(arguments, "file", None) if arguments.command == "pack" else None
    if file and arguments.pack_agent_config:
        tree.error(f"two configurations are given: {file}, and --agent-config {arguments.pack_agent_config}")
    arguments.pack_agent_config = arguments.pack_agent_config or file
    if arguments.command == "pack" and not arguments.pack_agent_config:
        tree.error("give the configuration: pxe-pack pack FILE")
    if not arguments.command and not arguments.pack_agent_config:
        tree.error(f"give --agent-config FILE to pack, or a command: {', '.join(parser.COMMANDS)}")
    return arguments


def _run(arguments: argparse.Namespace, shown: Console) -> int:
    if not arguments.command:
        return pack_as(arguments, shown)
    code: int = arguments.run(arguments, shown)
    return code


@contextmanager
def _logged(shown: Console, *, verbosity: int) -> Iterator[None]:
    """Show log records of our modules on the console: INFO with -v, DEBUG (also the programs' output) with -vv."""
    log, handler = logging.getLogger("pxe_pack"), ConsoleHandler(shown)
    before = log.level
    log.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def pack_as(arguments: argparse.Namespace, shown: Console) -> int:
    """Pack as the flags in `arguments` say. Raises InputError, WorkError and OSError."""
    from pxe_pack.pack import pack, show_plan  # half a second, not for --help
    from pxe_pack.pack_result import result_document, summary
    from pxe_pack.settings import Options

    options = Options(
        config=arguments.pack_agent_config,
        image=arguments.pack_image,
        output=arguments.pack_output,
        format=arguments.pack_format or "dir",
        publish=arguments.pack_publish,
        keep=arguments.pack_keep,
        boot_url=arguments.pack_boot_url,
        artifact_url=arguments.pack_artifact_url,
        inject=arguments.pack_inject,
        compressor=arguments.pack_compressor,
        level=arguments.pack_level,
        verify_iso=arguments.pack_verify_iso,
        node_memory=arguments.pack_node_memory,
        agent=arguments.pack_agent,
        boot_loader=arguments.pack_boot_loader,
        leave_out=tuple(arguments.pack_leave_out) if arguments.pack_leave_out else None,
        trust=tuple(arguments.pack_trust) if arguments.pack_trust else None,
        report=arguments.pack_report,
        input_digest=arguments.pack_input_digest,
        secure_boot_key=arguments.pack_secure_boot_key,
        secure_boot_cert=arguments.pack_secure_boot_cert,
        secure_boot_passphrase=arguments.pack_secure_boot_passphrase,
        secure_boot_chain=arguments.pack_secure_boot_chain,
    )
    if arguments.pack_dry_run:
        show_plan(options, console=shown)
    else:
        packed = pack(options, console=shown)
        shown.result(result_document(packed), summary(packed))
    return 0


def _system_problem(error: OSError) -> Problem:
    """The operating system's error as a problem."""
    place = f"{error.filename}: " if isinstance(error.filename, str | os.PathLike) else ""  # not a descriptor
    hint = "free some space, or use --output on another file system" if error.errno == errno.ENOSPC else ""
    return Problem(reference="system-error", message=f"{place}{error.strerror or error}", hint=hint)
