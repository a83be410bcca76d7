"""`pxe-pack snippet SERVER DIR`: a server configuration for a layout."""

from __future__ import annotations

import argparse
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.console import Console
from pxe_pack.layout.dnsmasq import ARCHITECTURES
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.published import served_folder
from pxe_pack.layout.servers import SNIPPETS
from pxe_pack.layout.site import Site, Tls, contacted, unannounced
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `snippet`."""
    parser.description = (
        "Print a server configuration for a layout: dnsmasq (DHCP and TFTP), dnsmasq-proxy (proxyDHCP and TFTP, next "
        "to an existing DHCP server), dnsmasq-tftp (TFTP only) or nginx (HTTP). URLs and architecture are taken from "
        "the layout."
    )
    parser.add_argument("server", choices=tuple(SNIPPETS), help="the server to configure")
    parser.add_argument("layout", type=Path, metavar="DIR", help="the layout: pxe-pack's output folder")
    parser.add_argument("--root", metavar="DIR", help="path of the layout on the server (default: its path here)")
    parser.add_argument(
        "--subnet",
        type=ip_network,
        metavar="NETWORK",
        help="subnet of the nodes (default: the /24 of the server's address, or the /64 for IPv6)",
    )
    parser.add_argument(
        "--dns",
        type=ip_address,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a DNS server to announce; may be repeated (dnsmasq only)",
    )
    add_tls(parser)
    parser.add_argument(
        "--router", type=IPv4Address, metavar="ADDRESS", help="the router to announce (dnsmasq only, IPv4)"
    )


def add_tls(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for https URLs."""
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate for https URLs, in PEM (nginx)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, in PEM")


def tls_of(arguments: argparse.Namespace) -> Tls | None:
    """The certificate that is named in `arguments`. Raises InputError if its key is not named, or the reverse."""
    certificate, key = arguments.tls_cert, arguments.tls_key
    if certificate and key:
        return Tls(certificate=certificate.absolute(), key=key.absolute())
    if certificate or key:
        message = f"{'--tls-cert' if certificate else '--tls-key'} is given alone"
        hint = "give both: --tls-cert FILE --tls-key FILE"
        raise InputError(Problem(reference="tls-incomplete", message=message, hint=hint))
    return None


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the configuration. Raises InputError if DIR is not a layout, or if the server cannot serve it."""
    served = served_folder(arguments.layout)
    layout = Layout.read(served)
    if layout.machine not in ARCHITECTURES:
        message = f"{arguments.layout} is for {layout.machine or 'an unknown architecture'}"
        hint = f"snippets are available for {', '.join(ARCHITECTURES)}"
        raise InputError(Problem(reference="layout-architecture", message=message, hint=hint))
    folder = arguments.root.rstrip("/") if arguments.root else str(served)
    site = Site(
        layout=layout,
        folder=folder,
        subnet=arguments.subnet,
        dns=tuple(arguments.dns),
        router=arguments.router,
        tls=tls_of(arguments),
        contacted=contacted(layout) if arguments.server == "dnsmasq" else (),
    )
    if (site.dns or site.router) and arguments.server != "dnsmasq":
        message = f"{arguments.server} announces neither DNS servers nor routers to the nodes"
        hint = "leave --dns and --router out; your DHCP server announces them"
        raise InputError(Problem(reference="snippet-not-announced", message=message, hint=hint))
    text = SNIPPETS[arguments.server](site)
    if arguments.server == "dnsmasq" and (found := [*unannounced(site)]):
        console.problems(found)
    console.result({"snippet": text}, text.rstrip("\n"))
    return 0
