"""What the dynamic loader will ask of an ELF file: its machine, its libraries, and the symbol versions it needs.

Read through the program headers, as ld.so does, because section headers may be stripped. Layouts: elf(5); version
records: the "Symbol Versioning" chapter of the Linux Standard Base's core specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64"}

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
VER_FLG_WEAK = 2
HEADER_SIZE, CLASS_64 = 64, 2


class ElfError(ValueError):
    """The file begins like an ELF file and can't be read as a 64-bit one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionNeed:
    """One version that must exist in `library` for the file to load (a weak one may be absent)."""

    library: str
    version: str
    weak: bool


class Elf:
    """One ELF file, all of it in memory. Raises ElfError where it isn't a whole 64-bit ELF file."""

    def __init__(self, data: bytes, *, name: str) -> None:
        self.data = data
        self.name = name
        if len(data) < HEADER_SIZE or data[4] != CLASS_64:
            raise ElfError(f"{name} is not a 64-bit ELF file")
        self._order = "<" if data[5] == 1 else ">"
        self.machine = MACHINES.get(self._unpack("H", 18)[0], f"machine {self._unpack('H', 18)[0]}")
        (program_headers,) = self._unpack("Q", 32)
        size, count = self._unpack("HH", 54)
        headers = [self._unpack("IIQQQQQQ", program_headers + i * size) for i in range(count)]
        self._loads = [
            (vaddr, offset, length) for kind, _, offset, vaddr, _, length, _, _ in headers if kind == PT_LOAD
        ]
        dynamic = [
            entry
            for kind, _, offset, _, _, length, _, _ in headers
            if kind == PT_DYNAMIC
            for entry in self._dynamic_entries(offset, length)
        ]
        self._dynamic = dict(dynamic)
        self.needed = tuple(self._string(value) for tag, value in dynamic if tag == DT_NEEDED)
        self.interpreter = next(  # the dynamic loader's path; empty for a library, and for a static program
            (
                data[offset : offset + length].rstrip(b"\0").decode(errors="replace")
                for kind, _, offset, _, _, length, _, _ in headers
                if kind == PT_INTERP
            ),
            "",
        )

    @property
    def library_folders(self) -> tuple[str, ...]:
        """The folders that it names for its libraries (DT_RUNPATH, else DT_RPATH), as written."""
        at = self._dynamic.get(DT_RUNPATH, self._dynamic.get(DT_RPATH))
        return tuple(filter(None, self._string(at).split(":"))) if at is not None else ()

    @property
    def version_needs(self) -> tuple[VersionNeed, ...]:
        """The symbol versions it asks for, of each library."""
        count = self._dynamic.get(DT_VERNEEDNUM, 0)
        return tuple(self._version_needs(self._at(self._dynamic.get(DT_VERNEED, 0)), count)) if count else ()

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        """`struct.unpack_from` in the file's byte order. Raises ElfError past the file's end."""
        try:
            values: tuple[int, ...] = struct.unpack_from(self._order + form, self.data, offset)
        except struct.error as error:
            raise ElfError(f"{self.name} is cut short or damaged") from error
        return values

    def _at(self, address: int) -> int:
        """The offset in the file of a virtual address."""
        for vaddr, offset, length in self._loads:
            if vaddr <= address < vaddr + length:
                return offset + address - vaddr
        raise ElfError(f"{self.name} has an address that lies in no segment")

    def _string(self, offset: int) -> str:
        """The string at `offset` of the dynamic string table."""
        start = self._at(self._dynamic.get(DT_STRTAB, 0)) + offset
        end = self.data.find(b"\0", start)
        if end < 0:
            raise ElfError(f"{self.name} has a string without an end")
        return self.data[start:end].decode(errors="replace")

    def _dynamic_entries(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for place in range(offset, offset + length, 16):
            tag, value = self._unpack("QQ", place)
            if tag == 0:
                return
            yield tag, value

    def _version_needs(self, place: int, count: int) -> Iterator[VersionNeed]:
        for _ in range(count):
            _, auxiliaries, file, first, following = self._unpack("HHIII", place)
            library = self._string(file)
            auxiliary = place + first
            for _ in range(auxiliaries):
                _, flags, _, name, step = self._unpack("IHHII", auxiliary)
                yield VersionNeed(library=library, version=self._string(name), weak=bool(flags & VER_FLG_WEAK))
                auxiliary += step
            place += following


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
