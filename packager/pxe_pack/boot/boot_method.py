"""How the node of a test boot loads its kernel: by the firmware's own PXE, or by iPXE over HTTP."""

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

DEFAULT_BASE = "http://10.0.2.10"  # HTTP server of a layout whose URLs name none
_KERNEL = re.compile(r"^(kernel .*?)(?= \|\| goto failed$)", re.MULTILINE)
_TIMEOUT = re.compile(r"(?<= --timeout )\d+")


class BootMethod(StrEnum):
    """How the node boots."""

    TFTP = "tftp"  # the firmware's PXE, shim, GRUB
    IPXE = "ipxe"  # iPXE from a disk, as from a USB stick; boot.ipxe by HTTP


def base(layout: ServedLayout) -> str:
    """The root of the HTTP server that the layout's URLs name."""
    urls = [layout.iso] if layout.iso else list(layout.http)
    return "{0.scheme}://{0.netloc}".format(urlsplit(urls[0])) if urls else DEFAULT_BASE


def boot_files(layout: ServedLayout, folder: Path) -> Mapping[str, Path]:
    """URL -> file for everything iPXE loads: the layout's boot files, as laid out in `folder`."""
    return {f"{base(layout)}/{quote(path)}": folder / path for path in layout.tftp}


def words(arguments: Iterable[str]) -> str:
    """Kernel arguments quoted for an iPXE script. Raises InputError for one that cannot be quoted."""
    escaped = [quoted(argument) for argument in arguments]
    if unquotable := [argument for argument in escaped if "${" in argument or not argument.isprintable()]:
        message = f"the kernel argument {unquotable[0]!r} cannot be written in an iPXE script"
        hint = "remove `${` and control characters"
        raise InputError(Problem(reference="append-unquotable", message=message, hint=hint))
    return " ".join(escaped)


def script_for_test_boot(text: str, *, added: str) -> str:
    """The script `text` with `added` appended to every kernel's arguments and the menu timeout cut to 1 ms."""
    text = _KERNEL.sub(lambda match: f"{match[0]} {added}", text)
    return _TIMEOUT.sub("1", text)


def unsupported_reason(layout: ServedLayout, via: BootMethod) -> Problem | None:
    """The problem that rules out booting `layout` by `via`; None if it is possible."""
    if via is BootMethod.IPXE and IPXE_SCRIPT not in layout.tftp:
        message = f"{layout.root} has no {IPXE_SCRIPT}: it was exported by an older pxe-pack"
        return Problem(reference="layout-no-ipxe", message=message, hint="pack it again, or boot with --via tftp")
    return None
