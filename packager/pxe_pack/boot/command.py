"""`pxe-pack boot DIR` on the command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from pxe_pack.boot import Options, boot
from pxe_pack.boot.boot_method import BootMethod
from pxe_pack.boot.credentials import is_name
from pxe_pack.boot.outcome import as_document, as_text
from pxe_pack.console import Console
from pxe_pack.parser import duration

TIMEOUT = 900.0  # seconds; under emulation, a LiveOS of a few hundred MB takes two or three minutes
MIN_MEMORY = 512  # MiB; the firmware does not start with less


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `boot`."""
    parser.description = (
        "Boot an exported layout over UEFI PXE in a virtual machine, wait for the node's result, and show it. "
        "Exit codes: 0 if the node's run ended with 0; 1 if it failed or gave no result; 2 if the layout cannot be "
        "booted here."
    )
    parser.add_argument("layout", type=Path, metavar="DIR", help="the layout: pxe-pack's output folder")
    parser.add_argument(
        "--via",
        choices=tuple(via.value for via in BootMethod),
        default=BootMethod.TFTP.value,
        help="tftp: the firmware's PXE, shim and GRUB; ipxe: iPXE with boot.ipxe, by HTTP (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=duration,
        default=TIMEOUT,
        metavar="TIME",
        help="how long to wait for a result, as in 15m or 900 seconds (default: %(default).0f)",
    )
    parser.add_argument(
        "--memory",
        type=_mebibytes,
        metavar="MIB",
        help="memory of the machine (default: derived from the layout's size)",
    )
    parser.add_argument("--append", default="", metavar="ARGUMENTS", help="extra kernel arguments, as one string")
    parser.add_argument(
        "--credential",
        type=_credential,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="pass a systemd credential such as pxe-fetch.config to the node through SMBIOS; repeatable",
    )
    parser.add_argument(
        "--serve",
        type=_served_file,
        action="append",
        default=[],
        metavar="FILE[=URL]",
        help="serve this configuration too, with FILE.minisig if it is there (default URL: the pinned one); repeatable",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the node running after its result, until it powers off or Ctrl-C; its last result counts",
    )
    parser.add_argument(
        "--secure-boot",
        type=Path,
        metavar="VARIABLES",
        help="boot with Secure Boot and the keys in this store of firmware variables (a copy is used), "
        "such as OVMF_VARS_4M.ms.fd",
    )
    parser.add_argument("--serial-log", type=Path, metavar="FILE", help="default: DIR.serial.log, next to the layout")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Boot the layout named in `arguments` and return the exit code. Raises InputError and WorkError."""
    layout: Path = arguments.layout
    options = Options(
        layout=layout,
        serial_log=arguments.serial_log or Path(f"{layout.absolute()}.serial.log"),
        via=BootMethod(arguments.via),
        timeout=arguments.timeout,
        memory=arguments.memory,
        append=arguments.append,
        keep=arguments.keep,
        credentials=dict(arguments.credential),
        secure_boot=arguments.secure_boot,
        serve=tuple(arguments.serve),
    )
    outcome = boot(options, console=console)
    console.result(as_document(outcome), as_text(outcome))
    if outcome.failure:
        console.problems([outcome.failure])
    return 0 if outcome.ok else 1


def _credential(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not equals or not is_name(name) or not file:
        raise argparse.ArgumentTypeError("must be NAME=FILE, with a name of letters, digits, `.`, `_` and `-`")
    return name, Path(file)


def _served_file(text: str) -> tuple[Path, str]:
    """A file, and its URL; empty if none is given."""
    found = re.fullmatch(r"(.+?)(?:=([a-z]+://.*))?", text)
    if not found:
        raise argparse.ArgumentTypeError("must be FILE or FILE=URL")
    return Path(found[1]), found[2] or ""


def _mebibytes(text: str) -> int:
    value = int(text)
    if value < MIN_MEMORY:
        raise argparse.ArgumentTypeError(f"must be {MIN_MEMORY} or more")
    return value
