"""The ways in which a node of a trial comes by its kernel: the firmware's own PXE, or iPXE over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote, urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.boot.served_layout import ServedLayout
from pxe_pack.layout.ipxe import IPXE_SCRIPT, quoted
from pxe_pack.tools import InputError

NOWHERE = "http://10.0.2.10"  # the HTTP server of a layout that names none
_KERNEL = re.compile(r"^(kernel .*?)(?= \|\| goto failed$)", re.MULTILINE)
_TIMEOUT = re.compile(r"(?<= --timeout )\d+")


class BootMethod(StrEnum):
    """By what a node boots."""

    TFTP = "tftp"  # the firmware's PXE, shim, GRUB
    IPXE = "ipxe"  # iPXE in the network card's option ROM, boot.ipxe by HTTP


def base(layout: ServedLayout) -> str:
    """The root of the HTTP server that the layout's URLs name."""
    urls = [layout.iso] if layout.iso else list(layout.http)
    return "{0.scheme}://{0.netloc}".format(urlsplit(urls[0])) if urls else NOWHERE


def boot_files(layout: ServedLayout, folder: Path) -> Mapping[str, Path]:
    """URL -> file, of what iPXE loads: the layout's boot files, as a trial has them in `folder`."""
    return {f"{base(layout)}/{quote(path)}": folder / path for path in layout.tftp}


def words(arguments: Iterable[str]) -> str:
    """Kernel arguments as they stand in an iPXE script. Raises InputError for one that none can carry."""
    told = [quoted(argument) for argument in arguments]
    if unsayable := [argument for argument in told if "${" in argument or not argument.isprintable()]:
        message = f"the kernel argument {unsayable[0]!r} cannot be written into an iPXE script"
        raise InputError(Problem(reference="append-unquotable", message=message, hint="leave out ${ and controls"))
    return " ".join(told)


def script_for_test_boot(text: str, *, added: str) -> str:
    """The script `text` with the words `added` at the end of every kernel's arguments, and a menu that hardly waits."""
    text = _KERNEL.sub(lambda match: f"{match[0]} {added}", text)
    return _TIMEOUT.sub("1", text)


def unsupported_reason(layout: ServedLayout, via: BootMethod) -> Problem | None:
    """Why the layout cannot be booted so."""
    if via is BootMethod.IPXE and IPXE_SCRIPT not in layout.tftp:
        message = f"{layout.root} has no {IPXE_SCRIPT}: an older pxe-pack exported it"
        return Problem(reference="layout-no-ipxe", message=message, hint="pack again, or boot it --via tftp")
    return None
