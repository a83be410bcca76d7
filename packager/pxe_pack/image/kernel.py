"""Which kernel a file is: its release, as `uname -r` says it, out of the file itself.

Sources: Linux, Documentation/arch/x86/boot.rst (kernel_version of the real-mode header); init/version-timestamp.c (the
banner "Linux version …", which an uncompressed kernel, arm64's Image, has in the clear); drivers/firmware/efi/libstub/
zboot-header.S (the compressed EFI kernels of arm64).
"""

from __future__ import annotations

import re
import struct
import zlib

_HEADER_AT, _HEADER = 0x202, b"HdrS"
_VERSION_AT = 0x20E  # where kernel_version stands: an offset from 0x200
_VERSION_LIMIT = 256
_ZBOOT = struct.Struct("<4x4sII8x32s")  # "zimg", offset and size of what is compressed, how
_LIMIT = 128 << 20  # bytes of a kernel in the clear
_BANNER = re.compile(rb"Linux version (\S{3,200}) ")
_GZIP = b"\x1f\x8b"


def release(data: bytes) -> str:
    """The release of the kernel that `data`, a whole file, is; empty when it is none that is known."""
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
