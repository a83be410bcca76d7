"""Read a kernel's release, as shown by `uname -r`, from its file.

Sources: Linux, Documentation/arch/x86/boot.rst (kernel_version in the real-mode header); init/version-timestamp.c (the
banner "Linux version …", readable in an uncompressed kernel such as arm64's Image); drivers/firmware/efi/libstub/
zboot-header.S (compressed EFI kernels of arm64).
"""

from __future__ import annotations

import re
import struct
import zlib

_HEADER_AT, _HEADER = 0x202, b"HdrS"
_VERSION_AT = 0x20E  # position of kernel_version, which is an offset from 0x200
_VERSION_LIMIT = 256
_ZBOOT = struct.Struct("<4x4sII8x32s")  # "zimg", offset and size of the compressed data, compression
_LIMIT = 128 << 20  # bytes of a decompressed kernel
_BANNER = re.compile(rb"Linux version (\S{3,200}) ")
_GZIP = b"\x1f\x8b"


def release(data: bytes) -> str:
    """The release of the kernel in `data`, a whole file; empty if it cannot be determined."""
    if data[_HEADER_AT : _HEADER_AT + 4] == _HEADER and len(data) >= _VERSION_AT + 2:
        (at,) = struct.unpack_from("<H", data, _VERSION_AT)
        text = data[0x200 + at :][:_VERSION_LIMIT].split(b"\0", 1)[0] if at else b""
        return text.split(b" ", 1)[0].decode("ascii", "replace")
    if data[4:8] == b"zimg" and len(data) > _ZBOOT.size:
        _, at, length, _ = _ZBOOT.unpack_from(data)
        data = data[at : at + length]
    if data[:2] == _GZIP:
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, _LIMIT)
        except zlib.error:
            return ""
    found = _BANNER.search(data)
    return found[1].decode("ascii", "replace") if found else ""
