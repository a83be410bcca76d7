"""The collector (docs/collector.md) as one more child: it takes the nodes' reports, and reads the servers' logs."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from urllib.parse import unquote

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.collector_options import HOW_TO_INSTALL
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.published import served_folder
from pxe_pack.layout.site import Address
from pxe_pack.layout.urls import server
from pxe_pack.serve.children import Child
from pxe_pack.serve.configuration import Folders
from pxe_pack.serve.plan import Options
from pxe_pack.serve.ports import Port
from pxe_pack.tools import InputError

MODULE = "pxe_pack.collector"
_LISTEN: tuple[Address, int] = (IPv4Address("127.0.0.1"), 8787)  # for this machine; nodes reach `/report` through nginx


def find(options: Options) -> tuple[str | None, list[Problem]]:
    """The URL by which this machine reaches the collector that will run, or None; a warning if nodes will miss it.

    It runs unless it is not installed, or the layout was packed to report to another server; with any of its options,
    it runs then too. Raises InputError if those are given in vain.
    """
    layout = Layout.read(served_folder(options.layout))
    given = [one.partition("=")[0] for one in options.collector]
    own = {"--database": options.database, "--page-listen": options.page, "--page-tls-cert": options.page_tls}
    given += [flag for flag, value in own.items() if value]
    if reports_elsewhere(layout) and not given:
        return None, []
    if find_spec("starlette") and tools.find(sys.executable):
        return _reached_at(options), []
    if given:
        message = f"{given[0]} is for the collector, which is not installed"
        raise InputError(Problem(reference="collector-missing", message=message, hint=HOW_TO_INSTALL))
    if not layout.report_url:
        return None, []
    message = f"nodes report to {layout.report_url}, but the collector, which takes reports, is not installed"
    problem = Problem(reference="collector-missing", message=message, hint=HOW_TO_INSTALL, severity="warning")
    return None, [problem]


def reports_elsewhere(layout: Layout) -> bool:
    """True if the layout was packed to report to a server that is not its own."""
    own = {server(url) for url in (layout.urls.boot_url, layout.urls.artifact_url) if url}
    return bool(layout.report_url) and server(layout.report_url) not in own


def port(options: Options) -> Port:
    """Where it listens."""
    address, number = options.page or _LISTEN
    return Port(number=number, kind="tcp", purpose="collector", addresses=(address,))


def child(options: Options, folders: Folders, *, folder: str) -> Child:
    """The collector for the layout in `folder`. Its database is in the log folder, if none is given."""
    log = folders.logs / "collector.log"
    log.touch()
    before = log.stat().st_size
    database, password = _without_password(options.database or f"sqlite:///{folders.logs / 'nodes.db'}")
    address, number = options.page or _LISTEN
    arguments: list[str | Path] = [
        *("-m", MODULE, "--listen", f"{_host(address)}:{number}", "--database", database, "--layout", folder),
        *("--nginx-log", folders.nginx_access, "--dnsmasq-log", folders.dnsmasq_log),
        *options.collector,
    ]
    if not (address.is_loopback or address.is_unspecified):
        arguments += ["--proxy", str(address)]  # nginx, by which the reports come
    if options.page_tls:
        arguments += ["--tls-cert", options.page_tls.certificate, "--tls-key", options.page_tls.key]
    return Child(
        name="the collector",
        program=sys.executable,
        arguments=arguments,
        log=log,
        environment={"PGPASSWORD": password} if password else {},
        is_ready=lambda: b"collector: listening" in log.read_bytes()[before:],
    )


def _reached_at(options: Options) -> str:
    """Its root URL for this machine. Raises InputError if others are meant to reach it too, and would be refused."""
    address, number = options.page or _LISTEN
    if not address.is_loopback and not any(one.startswith("--password-file=") for one in options.collector):
        message = (
            f"--page-listen {_host(address)}:{number} can be reached from other machines, and they need a password"
        )
        hint = "add --password-file FILE; or leave --page-listen out, and use: ssh -L 8787:localhost:8787 THIS-MACHINE"
        raise InputError(Problem(reference="serve-page", message=message, hint=hint))
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")  # noqa: PLR2004
    return f"{'https' if options.page_tls else 'http'}://{_host(address)}:{number}"


def _host(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004


def _without_password(database: str) -> tuple[str, str]:
    """The URL of a database, and the password that it had; everybody on this machine can read a command line."""
    found = re.fullmatch(r"(postgresql[\w+]*://[^:/@]*):([^@]*)(@.*)", database)
    return (f"{found[1]}{found[3]}", unquote(found[2])) if found else (database, "")
