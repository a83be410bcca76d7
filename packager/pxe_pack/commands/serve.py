"""`pxe-pack serve DIR` on the command line."""

from __future__ import annotations

import argparse
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from pxe_pack.collector_options import add_proxy, add_shared, listen_address, shared
from pxe_pack.commands.snippet import add_tls, tls_of
from pxe_pack.console import Console
from pxe_pack.layout.site import Address
from pxe_pack.parser import size
from pxe_pack.real_path import real_path
from pxe_pack.serve import serve
from pxe_pack.serve.children import ServerEndedError
from pxe_pack.serve.plan import Dhcp, Options

SERVER_ENDED = 4  # exit code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    parser.description = (
        "Serve a layout with dnsmasq (TFTP, and DHCP only with --dhcp) and nginx (HTTP), until Ctrl-C. Print what each "
        "kind of node gets, and what another DHCP server has to send. From a folder with published versions, serve the "
        "current one, and follow when that changes."
    )
    add = parser.add_argument
    add("layout", type=Path, metavar="DIR", help="pxe-pack's output folder, or the folder given to --publish")
    add("--interface", metavar="IF", help="serve on this network interface only")
    add(
        "--dhcp",
        type=Dhcp,
        choices=tuple(Dhcp),
        default=Dhcp.NONE,
        help="full: addresses and boot files; proxy: boot files, beside another DHCP server (default: none)",
    )
    add("--range", type=_pool, metavar="FIRST,LAST", help="addresses for the nodes (default: 100 to 199 in the subnet)")
    add("--subnet", type=ip_network, metavar="NETWORK", help="subnet of the nodes (default: the interface's)")
    add(
        "--dns",
        type=ip_address,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="DNS server to announce; repeatable",
    )
    add("--router", type=IPv4Address, metavar="ADDRESS", help="router to announce (IPv4)")
    add_proxy(parser, of="a cache or proxy that sends the node's address")
    add("--unprivileged", action="store_true", help="without root: HTTP only, at a port above 1023")
    add_tls(parser)
    add("--tls-self-signed", action="store_true", help="make --tls-cert and --tls-key if they do not exist")
    add("--pinned", type=Path, metavar="FILE", help="serve this configuration at the URL that `pin` was given")
    add("--log-dir", type=Path, metavar="DIR", help="keep the servers' logs here")
    add(
        "--log-size",
        type=size,
        default=64 << 20,
        metavar="SIZE",
        help="start a new log beyond this size, and keep the previous one as LOG.1 (default: 64MiB)",
    )
    page = parser.add_argument_group("the page with the nodes (docs/collector.md)")
    page.add_argument(
        "--page-listen",
        type=_page_address,
        metavar="ADDRESS:PORT",
        help="where to serve it; other machines need a password (default: 127.0.0.1:8787)",
    )
    page.add_argument("--page-tls-cert", type=Path, metavar="FILE", help="certificate for it by https, in PEM")
    page.add_argument("--page-tls-key", type=Path, metavar="FILE", help="its private key, in PEM")
    page.add_argument("--database", metavar="URL", help="the collector's database (default: SQLite in --log-dir)")
    add_shared(page)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Serve until SIGINT or SIGTERM, and return 0. Raises InputError, WorkError and OSError."""
    options = Options(
        layout=arguments.layout,
        interface=arguments.interface,
        dhcp=arguments.dhcp,
        pool=arguments.range,
        subnet=arguments.subnet,
        dns=tuple(arguments.dns),
        router=arguments.router,
        proxies=tuple(arguments.proxy),
        unprivileged=arguments.unprivileged,
        tls=tls_of(arguments.tls_cert, arguments.tls_key),
        self_signed=arguments.tls_self_signed,
        log_dir=real_path(arguments.log_dir) if arguments.log_dir else None,
        log_size=arguments.log_size,
        pinned=arguments.pinned,
        collector=shared(arguments),
        database=arguments.database,
        page=arguments.page_listen,
        page_tls=tls_of(arguments.page_tls_cert, arguments.page_tls_key, of="--page-tls"),
    )
    try:
        serve(options, console=console)
    except ServerEndedError as error:
        console.problems(error.problems)
        return SERVER_ENDED
    return 0


def _pool(written: str) -> tuple[Address, Address]:
    try:
        first, last = map(ip_address, written.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{written!r} is not FIRST,LAST, as in 10.0.0.100,10.0.0.199") from None
    return first, last


def _page_address(written: str) -> tuple[Address, int]:
    address, number = listen_address(written)
    if not number:
        raise argparse.ArgumentTypeError(f"{written!r}: the port has to be a certain one, which nginx sends reports to")
    return address, number
