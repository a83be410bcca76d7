"""What the dynamic loader will ask of an ELF file: its machine, its libraries and the symbol versions it needs.

Read through the program headers, as ld.so does, because section headers may be stripped. Layouts: elf(5); version
records: the "Symbol Versioning" chapter of the Linux Standard Base's core specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64"}

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 6, 10, 14, 15, 29
DT_VERSYM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF
SHT_DYNSYM = 11
VER_FLG_WEAK = 2
SHN_UNDEF = 0
HEADER_SIZE, CLASS_64 = 64, 2


class ElfError(ValueError):
    """The file begins like an ELF file and can't be read as a 64-bit one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionNeed:
    """One version that must exist in `library` for the file to load (a weak one may be absent)."""

    library: str
    version: str
    weak: bool
    index: int  # by which .gnu.version names it
    offset: int  # of its Elf64_Vernaux in the file


@dataclass(frozen=True, kw_only=True, slots=True)
class Dynamic:
    """One entry of the dynamic section."""

    tag: int
    value: int
    offset: int  # of the entry in the file


@dataclass(frozen=True, kw_only=True, slots=True)
class UndefinedSymbol:
    """A symbol that another library must give; `version` is 0 or 1 where it names none."""

    name: str
    version: int


class Elf:
    """One ELF file, all of it in memory. Raises ElfError where it isn't a whole 64-bit ELF file."""

    def __init__(self, data: bytes, *, name: str) -> None:
        self.data = data
        self.name = name
        if len(data) < HEADER_SIZE or data[4] != CLASS_64:
            raise ElfError(f"{name} is not a 64-bit ELF file")
        self.order = "<" if data[5] == 1 else ">"
        self.machine = MACHINES.get(self.unpack("H", 18)[0], f"machine {self.unpack('H', 18)[0]}")
        (program_headers, self._sections) = self.unpack("QQ", 32)
        size, count, self._section_size, self._section_count = self.unpack("HHHH", 54)
        headers = [self.unpack("IIQQQQQQ", program_headers + i * size) for i in range(count)]
        self._loads = [
            (vaddr, offset, length) for kind, _, offset, vaddr, _, length, _, _ in headers if kind == PT_LOAD
        ]
        self.dynamic = tuple(
            entry
            for kind, _, offset, _, _, length, _, _ in headers
            if kind == PT_DYNAMIC
            for entry in self._dynamic_entries(offset, length)
        )

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        """`struct.unpack_from` in the file's byte order. Raises ElfError past the file's end."""
        try:
            values: tuple[int, ...] = struct.unpack_from(self.order + form, self.data, offset)
        except struct.error as error:
            raise ElfError(f"{self.name} is cut short or damaged") from error
        return values

    def at(self, address: int) -> int:
        """The offset in the file of a virtual address."""
        for vaddr, offset, length in self._loads:
            if vaddr <= address < vaddr + length:
                return offset + address - vaddr
        raise ElfError(f"{self.name} has an address that lies in no segment")

    def string(self, offset: int) -> str:
        """The string at `offset` of the dynamic string table."""
        start = self.string_table + offset
        end = self.data.find(b"\0", start)
        if end < 0:
            raise ElfError(f"{self.name} has a string without an end")
        return self.data[start:end].decode(errors="replace")

    @property
    def string_table(self) -> int:
        """The offset in the file of the dynamic string table."""
        return self.at(self._value(DT_STRTAB))

    @property
    def needed(self) -> tuple[str, ...]:
        """The sonames it asks for."""
        return tuple(self.string(entry.value) for entry in self.dynamic if entry.tag == DT_NEEDED)

    @property
    def search_path(self) -> str:
        """Its own library search path (DT_RPATH or DT_RUNPATH), empty when it has none."""
        paths = [self.string(entry.value) for entry in self.dynamic if entry.tag in (DT_RPATH, DT_RUNPATH)]
        return ":".join(paths)

    @property
    def version_needs(self) -> tuple[VersionNeed, ...]:
        """The symbol versions it asks for, of each library."""
        if not self._value(DT_VERNEEDNUM):
            return ()
        return tuple(self._version_needs(self.at(self._value(DT_VERNEED)), self._value(DT_VERNEEDNUM)))

    def undefined_symbols(self) -> tuple[UndefinedSymbol, ...]:
        """The symbols it takes from others. Needs the section headers, which `strip` leaves in place."""
        for i in range(self._section_count):
            _, kind, _, _, offset, size, _, _, _, entry_size = self.unpack(
                "IIQQQQIIQQ", self._sections + i * self._section_size
            )
            if kind == SHT_DYNSYM:
                return tuple(self._undefined_symbols(offset, size // (entry_size or 24)))
        return ()

    def _value(self, tag: int) -> int:
        return next((entry.value for entry in self.dynamic if entry.tag == tag), 0)

    def _dynamic_entries(self, offset: int, length: int) -> Iterator[Dynamic]:
        for place in range(offset, offset + length, 16):
            tag, value = self.unpack("QQ", place)
            if tag == 0:
                return
            yield Dynamic(tag=tag, value=value, offset=place)

    def _version_needs(self, place: int, count: int) -> Iterator[VersionNeed]:
        for _ in range(count):
            _, auxiliaries, file, first, following = self.unpack("HHIII", place)
            library = self.string(file)
            auxiliary = place + first
            for _ in range(auxiliaries):
                _, flags, other, name, step = self.unpack("IHHII", auxiliary)
                yield VersionNeed(
                    library=library,
                    version=self.string(name),
                    weak=bool(flags & VER_FLG_WEAK),
                    index=other & 0x7FFF,
                    offset=auxiliary,
                )
                auxiliary += step
            place += following

    def _undefined_symbols(self, table: int, count: int) -> Iterator[UndefinedSymbol]:
        versions = self.at(self._value(DT_VERSYM)) if self._value(DT_VERSYM) else None
        for i in range(count):
            name, _, _, section = self.unpack("IBBH", table + i * 24)
            if section == SHN_UNDEF and name:
                version = self.unpack("H", versions + 2 * i)[0] & 0x7FFF if versions is not None else 0
                yield UndefinedSymbol(name=self.string(name), version=version)


def read_elf(path: Path) -> Elf | None:
    """The ELF file at `path`, None when it is something else. Raises ElfError, OSError."""
    with path.open("rb") as file:
        magic = file.read(4)
        return Elf(magic + file.read(), name=str(path)) if magic == b"\x7fELF" else None


def elf_files(tree: Path) -> Iterator[Elf]:
    """Every ELF file below `tree`, in the order of their names; symlinks are not followed. Raises ElfError, OSError."""
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and (elf := read_elf(path)):
            yield elf
