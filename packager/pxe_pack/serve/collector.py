"""The collector (docs/collector.md) as one more child: it takes the nodes' reports, and reads the servers' logs."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import unquote

from pxe_fetch.contract.problem import Problem
from pxe_pack.collector_options import HOW_TO_INSTALL
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.published import served_folder
from pxe_pack.layout.urls import server
from pxe_pack.serve.children import Child
from pxe_pack.serve.configuration import Folders
from pxe_pack.serve.plan import Options
from pxe_pack.serve.ports import Port
from pxe_pack.tools import InputError

MODULE = "pxe_pack.collector"
PORT = Port(number=8787, kind="tcp", purpose="collector", addresses=(IPv4Address("127.0.0.1"),))
LISTEN = f"127.0.0.1:{PORT.number}"  # its page is for this machine; nodes reach `/report` through nginx


def find(options: Options) -> tuple[str | None, list[Problem]]:
    """Where the collector will listen, None without one; and a warning if nodes will miss it.

    It runs if tokens are given, or if the layout was packed to report to the server that is served. Raises InputError
    if tokens are given and it is not installed.
    """
    layout = Layout.read(served_folder(options.layout))
    servers = {server(url) for url in (layout.urls.boot_url, layout.urls.artifact_url) if url}
    reports = layout.report_url if server(layout.report_url) in servers else ""
    if not options.token_file and not reports:
        return None, []
    if find_spec("starlette"):
        return LISTEN, []
    hint = HOW_TO_INSTALL
    if options.token_file:
        message = "--token-file is for the collector, which is not installed"
        raise InputError(Problem(reference="collector-missing", message=message, hint=hint))
    message = f"nodes report to {reports}, but the collector, which takes reports, is not installed"
    return None, [Problem(reference="collector-missing", message=message, hint=hint, severity="warning")]


def child(options: Options, folders: Folders, *, folder: str) -> Child:
    """The collector for the layout in `folder`. Its database is in the log folder, if none is given."""
    log = folders.logs / "collector.log"
    log.touch()
    before = log.stat().st_size
    database, password = _without_password(options.database or f"sqlite:///{folders.logs / 'nodes.db'}")
    arguments: list[str | Path] = [
        *("-m", MODULE, "--listen", LISTEN, "--database", database, "--layout", folder),
        *("--nginx-log", folders.nginx_access, "--dnsmasq-log", folders.dnsmasq_log),
        *(("--token-file", options.token_file) if options.token_file else ()),
    ]
    return Child(
        name="the collector",
        program=sys.executable,
        arguments=arguments,
        log=log,
        environment={"PGPASSWORD": password} if password else {},
        is_ready=lambda: b"collector: listening" in log.read_bytes()[before:],
    )


def _without_password(database: str) -> tuple[str, str]:
    """The URL of a database, and the password that it had; everybody on this machine can read a command line."""
    found = re.fullmatch(r"(postgresql[\w+]*://[^:/@]*):([^@]*)(@.*)", database)
    return (f"{found[1]}{found[3]}", unquote(found[2])) if found else (database, "")
