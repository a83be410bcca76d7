"""Find systemd's stub for unified kernel images: the image's own, else this machine's.

Sources: systemd-stub(7); systemd, src/boot (the magic text in `.sdmagic`) and NEWS of 254; UEFI 2.10, 3.5.1.1 (the
names of processors).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.bootloader import SUFFIXES
from pxe_pack.image.limits import Limit
from pxe_pack.image.tree import RootTree, regular_file
from pxe_pack.packages import install_command
from pxe_pack.tools import InputError

EXTENDED = "io.systemd.stub.kernel-cmdline-extra="  # prefix of the SMBIOS OEM string with more kernel arguments
_EXTENDED_FROM = 254  # version of systemd
_VERSION = re.compile(rb"#### LoaderInfo: systemd-stub (\d{3,5})\b")
ROOT = Path("/")  # of this machine
_FOLDER = "usr/lib/systemd/boot/efi"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stub:
    """systemd's stub."""

    origin: str  # where it comes from, for the user
    data: bytes = field(repr=False)


def find_stub(tree: RootTree | None, *, machine: str) -> Stub:
    """The stub for nodes of `machine` (`uname -m`). Raises InputError if there is none."""
    if machine not in SUFFIXES:
        message = f"pxe-pack makes no signed boot for the architecture {machine}"
        hint = f"it knows {', '.join(SUFFIXES)}"
        raise InputError(Problem(reference="uki-no-stub", message=message, hint=hint))
    path = f"{_FOLDER}/linux{SUFFIXES[machine]}.efi.stub"
    if tree and (data := regular_file(tree, path, limit=Limit.LOADER_SIZE)):
        return Stub(origin=f"the image's /{path}", data=data)
    try:
        return Stub(origin=f"this machine's /{path}", data=(ROOT / path).read_bytes())
    except OSError:
        message = f"a signed boot needs systemd's stub, /{path}, which neither the image nor this machine has"
        hint = install_command("systemd-boot-efi" if machine == "x86_64" else "systemd-boot-efi:arm64")
        raise InputError(Problem(reference="uki-no-stub", message=message, hint=hint)) from None


def takes_arguments(program: bytes) -> bool:
    """True if the stub of a unified kernel image takes further kernel arguments from the SMBIOS."""
    found = _VERSION.search(program)
    return bool(found and int(found[1]) >= _EXTENDED_FROM)
