"""`pxe-pack lock FILE` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console

STALE, FAILED = 3, 1  # exit codes of --check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `lock`."""
    parser.description = (
        "Download each artifact that has a url and no digest from all of its mirrors, and write size and digests to "
        "the lock file beside the configuration (fetch.lock), which packing and `check` then use. Artifacts that are "
        "locked already stay as they are."
    )
    parser.add_argument("config", type=Path, metavar="FILE", help="the fetch.yaml")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--check",
        action="store_true",
        help="download everything again, compare it with the lock file, and write nothing; exit with code 3 if "
        "anything has changed",
    )
    action.add_argument(
        "--upgrade",
        action="append",
        default=[],
        metavar="NAME",
        help="lock this artifact again, as its mirrors have it now; repeatable",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write or check the lock file. Raises InputError, WorkError and OSError."""
    from pxe_pack.lock import update

    config: Path = arguments.config
    if not arguments.check:
        change = update.lock(config, upgrade=arguments.upgrade, console=console)
        console.result(update.document(change), update.summary(change))
        return 0
    problems = update.check(config, console=console)
    console.result(update.findings_document(config, problems), update.findings_text(config, problems))
    is_stale = any(problem.reference in update.OUTDATED for problem in problems)
    return STALE if is_stale else FAILED if problems else 0
