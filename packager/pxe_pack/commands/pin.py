"""`pxe-pack pin DIR fleet.yaml --url URL` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.console import Console
from pxe_pack.parser import add_signing
from pxe_pack.pin import Request, document, pin, summary, unpin
from pxe_pack.tools import InputError
from pxe_pack.trust.signing import given_signer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pin`."""
    parser.description = (
        "Make the nodes of a layout fetch their configuration by URL: write the URL into grub.cfg and boot.ipxe, with "
        "the configuration's digest unless it is signed, and update the manifest and the checksums. The configuration "
        "is first checked against what is packed. An earlier pin is replaced. The image does not change."
    )
    parser.add_argument("layout", type=Path, metavar="DIR", help="the layout: pxe-pack's output folder")
    parser.add_argument("config", type=Path, nargs="?", metavar="FILE", help="the configuration, as it will be served")
    parser.add_argument("--url", metavar="URL", help="where nodes will find it (default: the URL of the earlier pin)")
    parser.add_argument("--sign", type=Path, metavar="KEY", help="sign it with this minisign secret key")
    parser.add_argument("--remove", action="store_true", help="make the nodes use the packed configuration again")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")
    add_signing(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Pin the configuration. Raises InputError, WorkError and OSError."""
    given = [name for name in ("config", "url", "sign") if getattr(arguments, name)]
    if arguments.remove and given:
        raise _usage("--remove takes a layout, and nothing else", "pxe-pack pin DIR --remove")
    if not arguments.remove and not arguments.config:
        raise _usage("no configuration is given", "pxe-pack pin DIR fleet.yaml --url URL")
    if arguments.remove:
        result = unpin(arguments.layout, dry_run=arguments.dry_run, signer=given_signer(arguments))
    else:
        request = Request(
            layout=arguments.layout,
            config=arguments.config,
            url=arguments.url,
            sign=arguments.sign,
            dry_run=arguments.dry_run,
            signer=given_signer(arguments),
        )
        result = pin(request, console=console)
    console.result(document(result), summary(result))
    return 0


def _usage(message: str, hint: str) -> InputError:
    return InputError(Problem(reference="pin-usage", message=message, hint=hint))
