"""Read a PE program for UEFI (shim, GRUB, a kernel with an EFI stub): machine, sections, position of its signatures.

Source: PE/COFF specification ("PE Format" in Microsoft's documentation): DOS header, COFF header, optional header, data
directories, section table. All numbers are little-endian; all offsets are file offsets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pxe_pack.hashing import Span

# Machine of the COFF header -> `uname -m`
_MACHINES = {0x14C: "i686", 0x8664: "x86_64", 0xAA64: "aarch64", 0x5064: "riscv64", 0x6264: "loongarch64"}
_PE_HEADER_AT = 0x3C  # in the DOS header: the offset of the PE header
_PE32, _PE32_PLUS = 0x10B, 0x20B  # Magic of the optional header
_CERTIFICATE_TABLE = 4  # index of the data directory; unlike the others, its address is a file offset
_CHECKSUM_AT = 64  # in the optional header
_SECTION = struct.Struct("<8sIIII")
_SECTION_SIZE = 40
_SYMBOL_SIZE = 18
_LONGEST_NAME = 256


class PeError(ValueError):
    """It is not a PE program, or is damaged; the text says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeProgram:
    """A PE program."""

    machine: str  # as in `uname -m`; "machine 0x…" if unknown
    sections: dict[str, Span]  # name -> position of its content in the file, without padding
    raw_sections: tuple[Span, ...]  # with padding, in the order of the section table
    headers_size: int  # bytes
    checksum_at: int  # offset of the checksum, 4 bytes
    security_at: int  # offset of the certificate table's data directory, 8 bytes
    certificates: Span  # the certificate table; of size 0 if the program is not signed

    def section(self, data: bytes, name: str) -> bytes:
        """The content of a section in `data`, the program's bytes; empty if there is no such section."""
        span = self.sections.get(name)
        return data[span.offset : span.offset + span.size] if span else b""


def is_program(head: bytes) -> bool:
    """Whether a file that begins with `head` is a PE program: it has a DOS header, and where that says, a PE header."""
    if head[:2] != b"MZ" or len(head) < _PE_HEADER_AT + 4:
        return False
    (coff,) = struct.unpack_from("<I", head, _PE_HEADER_AT)
    return head[coff : coff + 4] == b"PE\0\0"


def read_program(data: bytes) -> PeProgram:
    """Parse `data`, a whole file. Raises PeError."""
    try:
        return _read(data)
    except struct.error as error:
        raise PeError("its headers are truncated") from error


def _read(data: bytes) -> PeProgram:
    if data[:2] != b"MZ":
        raise PeError("it does not start with a DOS header")
    if not is_program(data):
        raise PeError("it has no PE header")
    (coff,) = struct.unpack_from("<I", data, _PE_HEADER_AT)
    machine, sections, symbols_at, symbols, optional_size = struct.unpack_from("<HH4xIIH", data, coff + 4)
    optional = coff + 24
    (magic,) = struct.unpack_from("<H", data, optional)
    if magic not in (_PE32, _PE32_PLUS):
        raise PeError(f"its optional header has the unknown magic {magic:#x}")
    (headers_size,) = struct.unpack_from("<I", data, optional + 60)
    directories = optional + (112 if magic == _PE32_PLUS else 96)
    (count,) = struct.unpack_from("<I", data, directories - 4)
    if count <= _CERTIFICATE_TABLE:
        raise PeError("it has no data directory for certificates")
    security_at = directories + 8 * _CERTIFICATE_TABLE
    table_at, table_size = struct.unpack_from("<II", data, security_at)
    table = Span(offset=table_at, size=table_size)
    if table.size and table.offset + table.size > len(data):
        raise PeError("its certificate table extends beyond the end")
    found: dict[str, Span] = {}
    raw: list[Span] = []
    for index in range(sections):
        at = optional + optional_size + index * _SECTION_SIZE
        name, virtual, _, size, offset = _SECTION.unpack_from(data, at)
        if offset + size > len(data):
            raise PeError("a section extends beyond the end")
        raw.append(Span(offset=offset, size=size))
        # the size in memory may be smaller than in the file, which is padded
        named = _name(data, name, strings_at=symbols_at + symbols * _SYMBOL_SIZE if symbols_at else 0)
        found.setdefault(named, Span(offset=offset, size=min(size, virtual) or size))
    return PeProgram(
        machine=_MACHINES.get(machine, f"machine {machine:#x}"),
        sections=found,
        raw_sections=tuple(raw),
        headers_size=headers_size,
        checksum_at=optional + _CHECKSUM_AT,
        security_at=security_at,
        certificates=table,
    )


def _name(data: bytes, field: bytes, *, strings_at: int) -> str:
    """A section's name. A name longer than 8 bytes is stored as `/offset` into the string table after the symbols."""
    name = field.rstrip(b"\0")
    if strings_at and name[:1] == b"/" and name[1:].isdigit():
        at = strings_at + int(name[1:])
        name = data[at : at + _LONGEST_NAME].split(b"\0", 1)[0]
    return name.decode(errors="replace")
