"""`pxe-pack snippet SERVER DIR`: a server configuration for a layout, or for a cache between it and its nodes."""

from __future__ import annotations

import argparse
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.caches import CACHES
from pxe_pack.caches.cache import LEAST_SIZE, SIZE, Cache, layout_port, layout_slice, origin_of
from pxe_pack.chunks import DEFAULT_SIZE
from pxe_pack.console import Console
from pxe_pack.layout.dnsmasq import ARCHITECTURES
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.published import served_folder
from pxe_pack.layout.servers import SNIPPETS
from pxe_pack.layout.site import Site, Tls, contacted, unannounced
from pxe_pack.parser import port, size
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `snippet`."""
    parser.description = (
        "Print a server configuration for a layout: dnsmasq (DHCP and TFTP), dnsmasq-proxy (proxyDHCP and TFTP, next "
        "to an existing DHCP server), dnsmasq-tftp (TFTP only) or nginx (HTTP). URLs and architecture are taken from "
        "the layout. nginx-cache, varnish and squid are caches of --origin; they take their port from the layout's "
        "URLs, and nginx-cache the size of its slices from the artifacts' chunks, if DIR is given."
    )
    parser.add_argument("server", choices=(*SNIPPETS, *CACHES), help="the server to configure")
    parser.add_argument("layout", type=Path, nargs="?", metavar="DIR", help="the layout: pxe-pack's output folder")
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
    group = parser.add_argument_group("caches")
    group.add_argument("--origin", metavar="URL", help="the server to cache, for example http://10.0.0.1")
    group.add_argument("--port", type=port, metavar="PORT", help="port for the nodes (default: the layout's, or 80)")
    group.add_argument("--cache-dir", default="", metavar="DIR", help="where the cache keeps its files")
    group.add_argument("--cache-size", type=size, default=SIZE, metavar="SIZE", help="its limit (default: 100GiB)")


def add_tls(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for https URLs."""
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate for https URLs, in PEM (nginx)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, in PEM")


def tls_of(certificate: Path | None, key: Path | None, *, of: str = "--tls") -> Tls | None:
    """The certificate and its key, given as `of`-cert and `of`-key. Raises InputError if one of them is given alone."""
    if certificate and key:
        return Tls(certificate=certificate.absolute(), key=key.absolute())
    if certificate or key:
        message = f"{of}-{'cert' if certificate else 'key'} is given alone"
        hint = f"give both: {of}-cert FILE {of}-key FILE"
        raise InputError(Problem(reference="tls-incomplete", message=message, hint=hint))
    return None


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the configuration. Raises InputError if DIR is not a layout, or if the server cannot serve it."""
    if (arguments.dns or arguments.router) and arguments.server != "dnsmasq":
        message = f"{arguments.server} announces neither DNS servers nor routers to the nodes"
        hint = "leave --dns and --router out; your DHCP server announces them"
        raise InputError(Problem(reference="snippet-not-announced", message=message, hint=hint))
    if arguments.server in CACHES:
        text = CACHES[arguments.server](_cache(arguments))
        console.result({"snippet": text}, text.rstrip("\n"))
        return 0
    if arguments.origin or not arguments.layout:
        message = f"{arguments.server} serves a layout" + (", and has no origin" if arguments.origin else "")
        hint = f"give the layout alone: pxe-pack snippet {arguments.server} DIR"
        raise InputError(Problem(reference="snippet-no-layout", message=message, hint=hint))
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
        tls=tls_of(arguments.tls_cert, arguments.tls_key),
        contacted=contacted(layout) if arguments.server == "dnsmasq" else (),
    )
    text = SNIPPETS[arguments.server](site)
    if arguments.server == "dnsmasq" and (found := [*unannounced(site)]):
        console.problems(found)
    console.result({"snippet": text}, text.rstrip("\n"))
    return 0


def _cache(arguments: argparse.Namespace) -> Cache:
    """The cache that `arguments` describe. Raises InputError."""
    if not arguments.origin:
        message = f"{arguments.server} caches the files of another server, and none is given"
        hint = "name it with --origin, for example --origin http://10.0.0.1"
        raise InputError(Problem(reference="cache-origin", message=message, hint=hint))
    if arguments.cache_size < LEAST_SIZE:
        message = f"a cache of {arguments.cache_size:,} bytes has no room for an ISO"
        raise InputError(Problem(reference="cache-size", message=message, hint="give --cache-size at least 1GiB"))
    tls = tls_of(arguments.tls_cert, arguments.tls_key)
    layout = Layout.read(served_folder(arguments.layout)) if arguments.layout else None
    usual = layout_port(layout, tls=tls) if layout else 443 if tls else 80
    return Cache(
        origin=origin_of(arguments.origin),
        port=arguments.port or usual,
        folder=arguments.cache_dir,
        size=arguments.cache_size,
        slice=layout_slice(layout) if layout else DEFAULT_SIZE,
        tls=tls,
    )
