"""`pxe-pack snippet SERVER DIR`: the configuration of a server that hands out a layout."""

from __future__ import annotations

import argparse
from ipaddress import IPv4Network
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.console import Console
from pxe_pack.layout.read import read
from pxe_pack.layout.servers import ARCHITECTURES, SNIPPETS, Site
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `snippet` takes."""
    parser.description = (
        "Print the configuration of a server that hands out a layout: dnsmasq (DHCP and TFTP), dnsmasq-proxy (the same "
        "beside a DHCP server that there is), nginx (HTTP). URLs and the machines' kind are those of the layout."
    )
    parser.add_argument("server", choices=tuple(SNIPPETS), help="the server")
    parser.add_argument("layout", type=Path, metavar="DIR", help="the layout: pxe-pack's output folder")
    parser.add_argument("--root", metavar="DIR", help="where the layout lies on the server (default: where it is here)")
    parser.add_argument(
        "--subnet", type=IPv4Network, metavar="NETWORK", help="the nodes' (default: the /24 around the server)"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print it. Raises InputError when the layout is none, or no such server can hand it out."""
    layout = read(arguments.layout.resolve())
    if layout.machine not in ARCHITECTURES:
        message = f"{arguments.layout} is for {layout.machine or 'machines that it does not name'}"
        hint = f"of {', '.join(ARCHITECTURES)} it is known what firmware asks for"
        raise InputError(Problem(reference="layout-architecture", message=message, hint=hint))
    folder = arguments.root.rstrip("/") if arguments.root else str(layout.root)
    site = Site(layout=layout, folder=folder, subnet=arguments.subnet)
    text = SNIPPETS[arguments.server](site)
    console.result({"snippet": text}, text.rstrip("\n"))
    return 0
