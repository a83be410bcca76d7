"""Read what is built into a GRUB EFI program: its prefix, its embedded script, its modules.

Source: GRUB, include/grub/kernel.h (the module area after grub_module_info: objects with a type and a size);
util/mkimage.c, which puts that area into a PE section named `mods`; kern/main.c and normal/main.c (the embedded script
runs first, then `normal`, which reads $prefix/grub.cfg).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pxe_pack.image.fat import Fat, FatError
from pxe_pack.image.grub.menu import Rule
from pxe_pack.image.pe.program import PeError, read_program

_SECTION = "mods"
_MAGIC = b"mimg"  # GRUB_MODULE_MAGIC, 0x676d696d
_ELF, _MEMDISK, _CONFIG, _PREFIX = range(4)  # OBJ_TYPE_*
_HEADER = struct.Struct("<II")  # type, size with this header
_NAME_SECTION = b".modname"
_SECTION_SIZE_32, _SECTION_SIZE_64 = 40, 64  # e_shentsize
# a whole text: what is between two NULs; the second one may begin the next text
_COMMAND_NAME = re.compile(rb"\0([a-z_][a-z0-9_.-]{0,31}|\.|\[)(?=\0)")
# Debian's `linux` has the names of commands of another module, which it calls with Secure Boot.
_HANDS_OVER, _HANDED_OVER = b"Handing off to linuxefi", frozenset({"linuxefi", "initrdefi"})
# of the kernel itself (kern/corecmd.c) and of the script language
_KERNEL_COMMANDS = frozenset({"set", "unset", "ls", "insmod"})
_MEMDISK_CONFIG = "grub.cfg"


@dataclass(frozen=True, kw_only=True, slots=True)
class GrubImage:
    """A GRUB EFI program."""

    machine: str  # as in `uname -m`
    prefix: str | None  # folder of grub.cfg and modules; None: the folder it was loaded from
    config: str  # the embedded script, which runs first; empty if there is none
    memdisk_config: str  # grub.cfg in its memdisk, which `config` usually sources; empty if there is none
    modules: tuple[str, ...]  # built-in modules, in order
    memdisk: bytes = field(default=b"", repr=False)  # an embedded filesystem, raw
    commands: frozenset[str] = frozenset()  # names that may be commands: it has no others

    @property
    def menu_rule(self) -> Rule:
        """How it takes `default`: the GRUB of Fedora, RHEL and Azure Linux 4 has blscfg and looks for an id first."""
        return "id first" if "blscfg" in self.modules else "number first"


def read_grub(data: bytes) -> GrubImage | None:
    """The GRUB in `data`, a whole file; None if it is not a GRUB for UEFI, or is damaged."""
    try:
        program = read_program(data)
        objects = list(_objects(program.section(data, _SECTION)))
    except (PeError, struct.error):
        return None
    if not objects:
        return None
    memdisk = next((content for kind, content in objects if kind == _MEMDISK), b"")
    return GrubImage(
        machine=program.machine,
        prefix=next((_text(content) for kind, content in objects if kind == _PREFIX), None),
        config=next((_text(content) for kind, content in objects if kind == _CONFIG), ""),
        memdisk_config=_memdisk_config(memdisk),
        modules=tuple(name for kind, content in objects if kind == _ELF and (name := _module_name(content))),
        memdisk=memdisk,
        commands=_KERNEL_COMMANDS.union(*(_names(content) for kind, content in objects if kind == _ELF)),
    )


def _objects(area: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each object. Raises struct.error if the area is damaged."""
    if not area.startswith(_MAGIC):
        return
    # grub_module_info64 has padding after the magic; the 32-bit struct has none
    wide = area[4:8] == bytes(4)
    at, end = struct.unpack_from("<QQ", area, 8) if wide else struct.unpack_from("<II", area, 4)
    while at < end:
        kind, size = _HEADER.unpack_from(area, at)
        if size < _HEADER.size or at + size > len(area):
            raise struct.error("an object exceeds the module area")
        yield kind, area[at + _HEADER.size : at + size]
        at += size


def _names(module: bytes) -> set[str]:
    """The texts in a module that may be names of commands, which it registers under texts of its own."""
    names = {found[1].decode() for found in _COMMAND_NAME.finditer(module)}
    return names - _HANDED_OVER if _HANDS_OVER in module else names


def _text(content: bytes) -> str:
    return content.split(b"\0", 1)[0].decode(errors="replace")


def _module_name(elf: bytes) -> str:
    """The name of a module, a relocatable ELF object (elf(5)); empty if it has none."""
    wide = elf[4:5] == b"\x02"
    try:
        (table,) = struct.unpack_from("<Q", elf, 40) if wide else struct.unpack_from("<I", elf, 32)
        size, count, names = struct.unpack_from("<HHH", elf, 58 if wide else 46)
        if size != (_SECTION_SIZE_64 if wide else _SECTION_SIZE_32) or table + size * count > len(elf):
            return ""
        sections = [_section(elf, table + index * size, wide=wide) for index in range(count)]
        _, names_at, names_size = sections[names]
    except (struct.error, IndexError):
        return ""
    strings = elf[names_at : names_at + names_size]
    for name, offset, length in sections:
        if strings[name : name + len(_NAME_SECTION) + 1] == _NAME_SECTION + b"\0":
            return _text(elf[offset : offset + length])
    return ""


def _section(elf: bytes, at: int, *, wide: bool) -> tuple[int, int, int]:
    """From a section header: the offset of its name in the name table, and offset and size of its content."""
    (name,) = struct.unpack_from("<I", elf, at)
    offset, size = struct.unpack_from("<QQ", elf, at + 24) if wide else struct.unpack_from("<II", elf, at + 16)
    return name, offset, size


def _memdisk_config(memdisk: bytes) -> str:
    """grub.cfg at the root of a memdisk; empty if the memdisk is not FAT (it may be a tar or a squashfs)."""
    try:
        found = Fat(lambda offset, size: memdisk[offset : offset + size]).read(_MEMDISK_CONFIG)
    except FatError:
        return ""
    return found.decode(errors="replace") if found else ""
