"""The collector (docs/collector.md) as one more child: it takes the nodes' reports, and reads the servers' logs."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.serve.children import Child
from pxe_pack.serve.configuration import Folders
from pxe_pack.serve.plan import Options
from pxe_pack.tools import InputError

MODULE = "pxe_pack.collector"
LISTEN = "127.0.0.1:8787"  # its page is for this machine; nodes reach `/report` through nginx


def address(options: Options) -> str | None:
    """Where the collector will listen; None without one. Raises InputError if it is wanted, but not installed."""
    if options.token_file is None:
        return None
    if find_spec(MODULE) is None or find_spec("starlette") is None:
        message = "--token-file is for the collector, which is not installed"
        hint = "pip install 'pxe-pack[serve]'"
        raise InputError(Problem(reference="collector-missing", message=message, hint=hint))
    return LISTEN


def child(options: Options, folders: Folders, *, folder: str) -> Child:
    """The collector for the layout in `folder`. Its database is in the log folder, if none is given."""
    log = folders.logs / "collector.log"
    log.touch()
    before = log.stat().st_size
    database = options.database or f"sqlite:///{folders.logs / 'nodes.db'}"
    arguments: list[str | Path] = [
        *("-m", MODULE, "--listen", LISTEN, "--database", database, "--token-file", str(options.token_file)),
        *("--nginx-log", folders.nginx_access, "--dnsmasq-log", folders.dnsmasq_log, "--layout", folder),
    ]
    return Child(
        name="the collector",
        program=sys.executable,
        arguments=arguments,
        log=log,
        is_ready=lambda: b"collector: listening" in log.read_bytes()[before:],
    )
