"""Read a kernel's release, as shown by `uname -r`, from its file.

Sources: Linux, Documentation/arch/x86/boot.rst (kernel_version in the real-mode header); init/version-timestamp.c (the
banner "Linux version …", readable in an uncompressed kernel such as arm64's Image); drivers/firmware/efi/libstub/
zboot-header.S (compressed EFI kernels of arm64).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from pxe_pack.image import decompress
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.pe.program import is_program

_HEADER_AT, _HEADER = 0x202, b"HdrS"
_VERSION_AT = 0x20E  # position of kernel_version, which is an offset from 0x200
_VERSION_LIMIT = 256
_ZBOOT = struct.Struct("<4x4sII8x32s")  # "zimg", offset and size of the compressed data, compression
_BANNER = re.compile(rb"Linux version (\S{3,200}) ")
_LONGEST_BANNER = 256  # bytes
_ARM64_AT, _ARM64 = 0x38, b"ARM\x64"  # Documentation/arch/arm64/booting.rst
_ELF = b"\x7fELF"
_GZIP = b"\x1f\x8b"


def begins_kernel(head: bytes) -> bool:
    """Whether a file that begins with `head` may be a kernel: a bzImage, an EFI program, an ELF, or one compressed."""
    if head[_HEADER_AT : _HEADER_AT + 4] == _HEADER or head[_ARM64_AT : _ARM64_AT + 4] == _ARM64 or is_program(head):
        return True
    return head.startswith((_ELF, _GZIP)) or head[4:8] == b"zimg"


def release(data: bytes) -> str:
    """The release of the kernel in `data`, a whole file; empty if it cannot be determined. Raises LimitError."""
    if data[_HEADER_AT : _HEADER_AT + 4] == _HEADER and len(data) >= _VERSION_AT + 2:
        (at,) = struct.unpack_from("<H", data, _VERSION_AT)
        text = data[0x200 + at :][:_VERSION_LIMIT].split(b"\0", 1)[0] if at else b""
        return text.split(b" ", 1)[0].decode("ascii", "replace")
    if data[4:8] == b"zimg" and len(data) > _ZBOOT.size:
        _, at, length, _ = _ZBOOT.unpack_from(data)
        data = data[at : at + length]
    if data[:2] == _GZIP:
        blocks = (data[at : at + decompress.BLOCK] for at in range(0, len(data), decompress.BLOCK))
        return _banner(decompress.pieces("gzip", blocks, expansion=decompress.Expansion()))
    return _banner([data])


def _banner(pieces: Iterable[bytes]) -> str:
    """The release in the first banner; empty if there is none."""
    size, before = Usage(Limit.KERNEL_UNPACKED), b""
    try:
        for piece in pieces:
            size.add(len(piece))
            if found := _BANNER.search(before + piece):
                return found[1].decode("ascii", "replace")
            before = piece[-_LONGEST_BANNER:]
    except decompress.DAMAGED:
        pass
    return ""
