"""Identify the operating system in a root filesystem, in place, without unpacking it."""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pxe_pack.freeze import GlibcVersion, parse_glibc
from pxe_pack.image import identity, mounts, networking, resolver
from pxe_pack.image.program import MULTIARCH
from pxe_pack.image.tree import Inode, RootTree, text_file

NESTED = ("LiveOS/rootfs.img", "LiveOS/ext3fs.img")  # dracut's dmsquash-live-root: a file system inside the squashfs

_SYSTEMD = re.compile(r"(?:usr/)?lib/(?:[\w-]+/)?systemd/libsystemd-shared-(\d+)[^/]*\.so")
_LIBC = re.compile(r"(?:usr/)?lib(?:64)?/(?:[\w-]+/)?libc(?:\.so\.6|-(\d+\.\d+)\.so)")
_LIBRARY_FOLDERS = ("lib", "usr/lib", "lib64", "usr/lib64")
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")  # os-release(5)
_LONGEST_VALUE = 4096  # characters of a value; longer ones are cut
_SELINUX = "etc/selinux/config"
_READ = (*OS_RELEASE, _SELINUX, mounts.FSTAB, *identity.FILES, *resolver.READ)
_KERNEL_MODULES = "lib/modules"
# e_machine (elf.h) -> `uname -m`
_MACHINES = {
    0x03: "i686", 0x15: "ppc64le", 0x16: "s390x", 0x28: "armv7l", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv64"
}  # fmt: skip
_VERSION_DEFINED = re.compile(rb"GLIBC_(2\.\d{1,4})\0")


@dataclass(frozen=True, kw_only=True, slots=True)
class RootFacts:
    """The known properties of a root filesystem; unknown ones are empty or None."""

    name: str = ""  # PRETTY_NAME from os-release
    machine: str = ""  # as in `uname -m`
    systemd: int | None = None
    glibc: GlibcVersion | None = None
    selinux: str = ""  # enforcing, permissive or disabled, from its configuration
    nested: str = ""  # the file with the real root filesystem, if the squashfs only wraps one


def is_system_file(path: str) -> bool:
    """Whether `read_root` or a check reads the file `path`."""
    return path in _READ or bool(_LIBC.fullmatch(path)) or networking.is_network_config(path)


def read_root(tree: RootTree) -> RootFacts:
    """The facts of the root filesystem in `tree`. Raises InputError or WorkError if it is damaged."""
    present = tree.stat([*NESTED, *OS_RELEASE, _SELINUX])
    if nested := next((path for path in NESTED if path in present), ""):
        return RootFacts(nested=nested)
    systemd: int | None = None
    libc = ""
    for inode in _libraries(tree):
        if found := _SYSTEMD.fullmatch(inode.path):
            systemd = int(found[1])
        elif _LIBC.fullmatch(inode.path) and stat.S_ISREG(inode.mode):
            libc = inode.path
    machine, glibc = _c_library(tree, libc) if libc else ("", None)
    release = next((path for path in OS_RELEASE if path in present), "")
    return RootFacts(
        name=_pretty_name(tree, release) if release else "",
        machine=machine,
        systemd=systemd,
        glibc=glibc,
        selinux=_selinux(tree) if _SELINUX in present else "",
    )


def kernels(tree: RootTree) -> frozenset[str]:
    """The kernel releases, as in `uname -r`, that the root filesystem has modules for."""
    inside = tree.inside(tree.resolve(_KERNEL_MODULES))
    return frozenset(inode.path.rsplit("/", 1)[-1] for inode in inside if stat.S_ISDIR(inode.mode))


def _libraries(tree: RootTree) -> Iterator[Inode]:
    """The files in the folders of the C library and of systemd's libraries, without walking the whole tree."""
    for folder in _LIBRARY_FOLDERS:
        for inode in tree.inside(folder):
            yield inode
            if stat.S_ISDIR(inode.mode) and (inode.path.endswith("/systemd") or MULTIARCH.fullmatch(inode.path)):
                yield from tree.inside(inode.path)
                if not inode.path.endswith("/systemd"):
                    yield from tree.inside(f"{inode.path}/systemd")


def _c_library(tree: RootTree, path: str) -> tuple[str, GlibcVersion | None]:
    """Machine and version of the C library, from its ELF header and the newest symbol version it defines."""
    data = tree.cat(path)
    machine = _MACHINES.get(int.from_bytes(data[18:20], "little"), "") if data[:4] == b"\x7fELF" else ""
    named = parse_glibc(PurePosixPath(path).name.removeprefix("libc-"))
    defined = [parse_glibc(version.decode()) for version in _VERSION_DEFINED.findall(data)]
    return machine, named or max((version for version in defined if version), default=None)


def _pretty_name(tree: RootTree, path: str) -> str:
    text = text_file(tree, path)
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    value = (values.get("PRETTY_NAME") or values.get("NAME") or "")[:_LONGEST_VALUE]
    try:
        return " ".join(shlex.split(value))
    except ValueError:  # an unbalanced quote
        return value


def _selinux(tree: RootTree) -> str:
    found = re.search(r"^[ \t]*SELINUX[ \t]*=[ \t]*(\w+)", text_file(tree, _SELINUX), re.MULTILINE)
    return found[1].lower() if found else ""
