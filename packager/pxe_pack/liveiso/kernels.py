"""Find the kernels of a root filesystem, each with its initrd.

Names: kernel-install(8) and Debian (/boot/vmlinuz-VERSION, initramfs-VERSION.img, initrd.img-VERSION, …), and
/usr/lib/modules/VERSION/vmlinuz, where image-based distributions keep it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.grub import bls
from pxe_pack.tools import InputError

_KERNEL = re.compile(
    r"boot/(?P<name>vmlinuz|vmlinux|Image|kernel)(?:-(?P<version>.+))?|usr/lib/modules/(?P<module>[^/]+)/vmlinuz"
)
_INITRDS = ("initramfs{v}.img", "initrd.img{v}", "initrd{v}", "initrd{v}.img", "initramfs{v}")
_RESCUE = "0-rescue-"


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelPair:
    """A kernel and its initrd. Paths in the root filesystem, without a leading slash."""

    version: str  # as in the kernel's file name; empty if that has none
    kernel: str
    initrd: str

    @property
    def kernel_name(self) -> str:
        """Its name in the ISO's boot folder."""
        return f"vmlinuz-{self.version}" if self.version else "vmlinuz"

    @property
    def initrd_name(self) -> str:
        """Its name in the ISO's boot folder."""
        return f"initrd-{self.version}.img" if self.version else "initrd.img"


def kernel_pairs(names: Collection[str], *, given: Path) -> list[KernelPair]:
    """The kernels among `names` that have an initrd, newest first. Raises InputError if there are none."""
    found: dict[str, str] = {}
    for name in sorted(names):
        match = _KERNEL.fullmatch(name)
        version = (match["version"] or match["module"] or "") if match else ""
        if match and not version.startswith(_RESCUE):
            found.setdefault(version, name)
    if len(found) > 1:
        found.pop("", None)  # if there are others, boot/vmlinuz is a link to one of them
    made = [
        KernelPair(version=version, kernel=found[version], initrd=initrd)
        for version in bls.newest_first(found)
        if (initrd := _initrd(version, names))
    ]
    if made:
        return made
    if not found:
        raise InputError(
            Problem(
                reference="root-no-kernel",
                message=f"the root filesystem {given} has no kernel, neither in boot/ nor in usr/lib/modules/",
                hint="install one, with an initrd built by dracut: nodes load both over the network",
            )
        )
    version = next(iter(bls.newest_first(found)))
    command = f"--kver {version} /boot/initramfs-{version}.img" if version else "/boot/initrd.img"
    raise InputError(
        Problem(
            reference="root-no-initrd",
            message=f"the root filesystem {given} has a kernel ({found[version]}) but no initrd for it in boot/",
            hint=f"run inside it: dracut --no-hostonly --add 'livenet dmsquash-live' {command}",
        )
    )


def _initrd(version: str, names: Collection[str]) -> str:
    dashed = f"-{version}" if version else ""
    places = [f"boot/{form.format(v=dashed)}" for form in _INITRDS]
    if version:
        places += [f"usr/lib/modules/{version}/{name}" for name in ("initramfs.img", "initrd", "initrd.img")]
    return next((place for place in places if place in names), "")
