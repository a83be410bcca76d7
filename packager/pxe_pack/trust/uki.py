"""Make a unified kernel image: systemd's stub, with os-release, command line, initrds and kernel as its sections.

Sources: the UAPI group's "Unified Kernel Image" specification; systemd-stub(7); PE/COFF specification. As in systemd's
own ukify, pefile edits the stub's headers. The sections' content is streamed, for an initrd may have gigabytes.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pxe_fetch.contract.problem import Problem
from pxe_pack.hashing import BLOCK
from pxe_pack.tools import WorkError

if TYPE_CHECKING:
    import pefile

OS_RELEASE, COMMAND_LINE, RELEASE, INITRD, KERNEL = ".osrel", ".cmdline", ".uname", ".initrd", ".linux"
SECTIONS = (OS_RELEASE, COMMAND_LINE, RELEASE, INITRD, KERNEL)  # the kernel last: it may need memory after it
_READABLE, _CODE, _DATA = 0x40000000, 0x20, 0x40  # IMAGE_SCN_MEM_READ, _CNT_CODE, _CNT_INITIALIZED_DATA
_CERTIFICATES = 4  # index of the data directory
_PAGE = 4096  # bytes; firmware protects memory by pages
_MOST_ALIGNED = 1 << 21  # bytes; stubs have at most a page of 64 KiB
_LARGEST = (1 << 32) - 1  # bytes; a PE program has 32-bit offsets

Part = bytes | Path  # the content of a section, or a part of it


def compose(stub: bytes, sections: Mapping[str, tuple[Part, ...]]) -> Iterator[bytes]:
    """The unified kernel image of `stub` and `sections`, block by block; the parts of a section are concatenated.

    A unified kernel image is a stub too: its own sections and its signature are removed. Raises WorkError if `stub`
    cannot take sections, and OSError.
    """
    import pefile  # not on --help's way

    try:
        program = pefile.PE(data=stub, fast_load=True)
    except (pefile.PEFormatError, ValueError) as error:  # ValueError: it is empty
        raise _unfit(str(error)) from error
    with contextlib.closing(program):
        if not program.is_exe() or len(program.OPTIONAL_HEADER.DATA_DIRECTORY) <= _CERTIFICATES:
            raise _unfit("it is not a program that can be signed")
        _take_out(program)
        if not program.sections:
            raise _unfit("it has no sections of its own")
        end = max((one.PointerToRawData + one.SizeOfRawData for one in program.sections), default=0)
        if any(one.Name.startswith(b"/") for one in program.sections):
            raise _unfit("names of its sections are among its symbols, which are removed here")
        header = program.OPTIONAL_HEADER
        alignment = header.FileAlignment
        alignments = (0 < alignment <= _MOST_ALIGNED, 0 < header.SectionAlignment <= _MOST_ALIGNED)
        if not all(alignments) or not header.SizeOfHeaders <= end <= len(program.__data__):
            raise _unfit("its headers are damaged")
        own = bytes(program.__data__[:end])
        at = _aligned(end, alignment)
        names = [name for name in SECTIONS if name in sections]
        sizes = {name: sum(map(_size, sections[name])) for name in names}
        for name in names:
            _add(program, name=name, size=sizes[name], at=at)
            at += _aligned(sizes[name], alignment)
        if at > _LARGEST:
            message = (
                f"the unified kernel image would have {at:,} bytes, but a program for UEFI has at most {_LARGEST:,}"
            )
            raise WorkError(Problem(reference="uki-too-large", message=message, hint="make the initrd smaller"))
        yield _with_headers(program, own + bytes(_aligned(end, alignment) - end))
    for name in names:
        for part in sections[name]:
            yield from blocks(part)
        yield bytes(_aligned(sizes[name], alignment) - sizes[name])


def _take_out(program: pefile.PE) -> None:
    """Remove the sections of a unified kernel image, which are its last, from the headers."""
    names = [one.Name.rstrip(b"\0").decode(errors="replace") for one in program.sections]
    first = next((number for number, name in enumerate(names) if name in SECTIONS), len(names))
    if unknown := set(names[first:]) - set(SECTIONS):
        raise _unfit(f"it has the section {min(unknown)} after those of a unified kernel image")
    header = program.OPTIONAL_HEADER
    for one in program.sections[first:]:
        header.SizeOfInitializedData -= one.Misc_VirtualSize
        program.__structures__.remove(one)
    program.FILE_HEADER.NumberOfSections = first
    program.sections = program.sections[:first]
    # what is cut off with them: the symbols, and the signature
    program.FILE_HEADER.PointerToSymbolTable = program.FILE_HEADER.NumberOfSymbols = 0
    directory = header.DATA_DIRECTORY[_CERTIFICATES]
    directory.VirtualAddress = directory.Size = 0
    header.CheckSum = 0


def _add(program: pefile.PE, *, name: str, size: int, at: int) -> None:
    """Add a section of `size` bytes at the offset `at` to the headers."""
    header, last = program.OPTIONAL_HEADER, program.sections[-1]
    section = type(last)(program.__IMAGE_SECTION_HEADER_format__, pe=program)
    section.__unpack__(bytes(section.sizeof()))
    section.set_file_offset(last.get_file_offset() + last.sizeof())
    if section.get_file_offset() + section.sizeof() > header.SizeOfHeaders:
        raise _unfit("its headers have no room for more sections")
    alignment = max(header.SectionAlignment, _PAGE)
    section.Name = name.encode()
    section.Misc_VirtualSize = size
    section.VirtualAddress = _aligned(last.VirtualAddress + last.Misc_VirtualSize, alignment)
    section.SizeOfRawData = _aligned(size, header.FileAlignment)
    section.PointerToRawData = at
    section.Characteristics = _READABLE | (_CODE if name == KERNEL else _DATA)  # some kernels are run where they lie
    program.FILE_HEADER.NumberOfSections += 1
    header.SizeOfInitializedData += size
    header.SizeOfImage = _aligned(section.VirtualAddress + size, alignment)
    program.sections.append(section)
    program.__structures__.append(section)


def _with_headers(program: pefile.PE, own: bytes) -> bytes:
    """`own`, the stub's content up to the first added section, with the headers of `program`."""
    last, size = program.sections[-1], program.OPTIONAL_HEADER.SizeOfHeaders
    table = last.get_file_offset() + last.sizeof()
    # zeros in place of the headers of sections that were removed
    data = bytearray(own[:table] + bytes(size - table) + own[size:])
    for structure in program.__structures__:
        at = structure.get_file_offset()
        try:
            data[at : at + structure.sizeof()] = structure.__pack__()
        except struct.error as error:  # a number became negative, or too large
            raise _unfit("its headers are damaged") from error
    return bytes(data)


def _size(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part.stat().st_size


def blocks(part: Part) -> Iterator[bytes]:
    """The content of `part`, block by block. Raises OSError."""
    if isinstance(part, bytes):
        yield part
        return
    with contextlib.closing(part.open("rb", buffering=0)) as file:
        while block := file.read(BLOCK):
            yield block


def _aligned(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment


def _unfit(why: str) -> WorkError:
    message = f"systemd's stub cannot be made into a unified kernel image: {why}"
    return WorkError(Problem(reference="uki-stub-unfit", message=message, hint="use the stub of a current systemd"))
