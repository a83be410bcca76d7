"""`pxe-fetch run` and `pxe-fetch check`: the commands that read a configuration."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pxe_fetch.config_source import decode, read_file
from pxe_fetch.contract import reader
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.problem import ProblemError, show_all
from pxe_fetch.errors import StoppedError
from pxe_fetch.humanize import count
from pxe_fetch.reporting.notify import is_service
from pxe_fetch.run import run as run_once


def run(config_file: str | None, *, debug: bool, root: str) -> int:
    """Fetch and install this node's artifacts; return the exit code.

    A service that was stopped ends by SIGTERM instead: systemd takes that for a clean end, and an exit code for a
    failure (systemd.service(5), SuccessExitStatus=).
    """
    file = None if config_file is None else Path(config_file)
    result = run_once(config_file=file, debug=debug, root=Path(root))
    if result.cause == StoppedError.reference and is_service():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return result.exit_code


def check(file: str) -> int:
    """Print what `file` would fetch, or every problem in it to stderr; return the exit code."""
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
