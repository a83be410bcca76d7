"""The six compressors of squashfs, each as a pair of functions on one block.

gzip, xz and lzma come with Python; zstd with Python 3.14, and with a backport before that; lz4 and lzo with small
wheels. If a module is missing, the error names the package to install.

Levels: the blocks we add are a small part of an image, so levels favour packing time (for 14 MB of a frozen program the
result is 2 to 15 % larger than at the usual levels, in a tenth of the time). Every reader can read every level. Window
and dictionary never exceed what the kernel allocates for the image (fs/squashfs/{zlib,xz,zstd}_wrapper.c).
"""

from __future__ import annotations

import importlib
import lzma
import struct
import sys
import zlib
from enum import IntEnum
from typing import Final, Protocol, cast

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs.errors import SquashfsError
from pxe_pack.squashfs.superblock import METADATA_SIZE, Compressor

# Compressor -> modules that implement it, best first, and the package that provides one of them.
PACKAGES: Final = {
    Compressor.ZSTD: (("compression.zstd", "backports.zstd"), "backports.zstd"),
    Compressor.LZ4: (("lz4.block",), "lz4"),
    Compressor.LZO: (("lzallright",), "lzallright"),
}

GZIP_LEVEL: Final = 4
XZ_PRESET: Final = 0
ZSTD_LEVEL: Final = 3

# More than any block needs; a damaged header may request gigabytes.
_MEMORY_LIMIT: Final = 64 << 20


class DamagedBlockError(ValueError):
    """A block that cannot be decompressed."""


class Codec(Protocol):
    """How one image's blocks are compressed."""

    def compress(self, data: bytes) -> bytes:
        """`data` compressed; the result may be longer than `data`."""

    def decompress(self, data: bytes, limit: int) -> bytes:
        """`data` decompressed. Raises DamagedBlockError, also if the result would exceed `limit` bytes."""


def codec(compressor: Compressor, *, block_size: int, options: bytes = b"") -> Codec:
    """The codec of an image. `options` are its compressor options (doc/format.adoc, "Compression Options").

    Raises SquashfsError if this Python has no module for the compressor.
    """
    match compressor:
        case Compressor.GZIP:
            return _Gzip()
        case Compressor.XZ:
            dictionary = struct.unpack_from("<I", options)[0] if len(options) >= 4 else block_size  # noqa: PLR2004
            return _Xz(dictionary)
        case Compressor.LZMA:
            return _Lzma(block_size)
        case Compressor.ZSTD:
            return _Zstd()
        case Compressor.LZ4:
            return _Lz4()
        case Compressor.LZO:
            return _Lzo()


def _import_module(compressor: Compressor) -> object:
    modules, package = PACKAGES[compressor]
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
    raise SquashfsError(
        Problem(
            reference="squashfs-compressor-missing",
            message=f"the image is compressed with {compressor.name.lower()}, "
            f"for which this Python {sys.version_info.major}.{sys.version_info.minor} has no module",
            hint=f"pip install {package}",
        )
    )


class _Gzip:
    def compress(self, data: bytes) -> bytes:
        return zlib.compress(data, GZIP_LEVEL)

    def decompress(self, data: bytes, limit: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            found = stream.decompress(data, limit + 1)
        except zlib.error as error:
            raise DamagedBlockError(str(error)) from error
        return _whole(found, limit, ended=stream.eof)


class _Xz:
    def __init__(self, dictionary: int) -> None:
        # The kernel's decoder allocates what the options or the block size say, and at least 8 KiB.
        self.dictionary = max(METADATA_SIZE, min(dictionary, _MEMORY_LIMIT // 16))

    def compress(self, data: bytes) -> bytes:
        # CRC32 is the only check the kernel's decoder supports.
        filters = [{"id": lzma.FILTER_LZMA2, "preset": XZ_PRESET, "dict_size": self.dictionary}]
        return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)

    def decompress(self, data: bytes, limit: int) -> bytes:
        return _unlzma(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_LIMIT), data, limit)


class _Lzma:
    """The .lzma format: properties, dictionary size, and the size of the data, which squashfs-tools fills in."""

    def __init__(self, block_size: int) -> None:
        self.dictionary = block_size

    def compress(self, data: bytes) -> bytes:
        filters = [{"id": lzma.FILTER_LZMA1, "preset": XZ_PRESET, "dict_size": self.dictionary}]
        made = lzma.compress(data, format=lzma.FORMAT_ALONE, filters=filters)
        return made[:5] + struct.pack("<Q", len(data)) + made[13:]

    def decompress(self, data: bytes, limit: int) -> bytes:
        return _unlzma(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY_LIMIT), data, limit)


def _unlzma(stream: lzma.LZMADecompressor, data: bytes, limit: int) -> bytes:
    try:
        found = stream.decompress(data, limit + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise DamagedBlockError(str(error)) from error
    return _whole(found, limit, ended=stream.eof)


def _whole(found: bytes, limit: int, *, ended: bool = True) -> bytes:
    if len(found) > limit:
        raise DamagedBlockError(f"it holds more than {limit} bytes")
    if not ended:
        raise DamagedBlockError("it is truncated")
    return found


class _ZstdStream(Protocol):
    eof: bool

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _ZstdModule(Protocol):
    ZstdError: type[Exception]
    DecompressionParameter: type[IntEnum]

    def compress(self, data: bytes, level: int) -> bytes: ...
    def ZstdDecompressor(self, *, options: dict[IntEnum, int]) -> _ZstdStream: ...  # noqa: N802


class _Zstd:
    def __init__(self) -> None:
        self.module = cast("_ZstdModule", _import_module(Compressor.ZSTD))
        # A block of 1 MiB or less never needs a larger window, and the kernel does not allocate more either.
        self.options = {self.module.DecompressionParameter["window_log_max"]: 21}

    def compress(self, data: bytes) -> bytes:
        return self.module.compress(data, ZSTD_LEVEL)

    def decompress(self, data: bytes, limit: int) -> bytes:
        stream = self.module.ZstdDecompressor(options=self.options)
        try:
            found = stream.decompress(data, limit + 1)
        except (self.module.ZstdError, EOFError) as error:
            raise DamagedBlockError(str(error)) from error
        return _whole(found, limit, ended=stream.eof)


class _Lz4Module(Protocol):
    LZ4BlockError: type[Exception]

    def compress(self, data: bytes, *, mode: str, store_size: bool) -> bytes: ...
    def decompress(self, data: bytes, *, uncompressed_size: int) -> bytes: ...


class _Lz4:
    def __init__(self) -> None:
        self.module = cast("_Lz4Module", _import_module(Compressor.LZ4))

    def compress(self, data: bytes) -> bytes:
        return self.module.compress(data, mode="default", store_size=False)

    def decompress(self, data: bytes, limit: int) -> bytes:
        try:
            return self.module.decompress(data, uncompressed_size=limit)
        except self.module.LZ4BlockError as error:
            raise DamagedBlockError(str(error)) from error


class _LzoCompressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def decompress(self, data: bytes, output_size_hint: int) -> bytes: ...


class _LzoModule(Protocol):
    LZOError: type[Exception]

    def LZOCompressor(self) -> _LzoCompressor: ...  # noqa: N802


class _Lzo:
    def __init__(self) -> None:
        self.module = cast("_LzoModule", _import_module(Compressor.LZO))

    def compress(self, data: bytes) -> bytes:
        return self.module.LZOCompressor().compress(data)

    def decompress(self, data: bytes, limit: int) -> bytes:
        try:
            return _whole(self.module.LZOCompressor().decompress(data, limit), limit)
        except self.module.LZOError as error:
            raise DamagedBlockError(str(error.args[0] if error.args else error)) from error
