"""Read a FAT filesystem, such as GRUB's memdisk or the EFI boot image of an ISO.

Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03 (boot sector, directory entries, long names, and how
the number of clusters determines the kind of FAT).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from pxe_pack.image.limits import Limit, Usage

_FAT12_CLUSTERS, _FAT16_CLUSTERS = 4085, 65525  # below the first: FAT12; below the second: FAT16; else FAT32
_FIRST_CLUSTER = 2  # the two FAT entries before it are reserved
_ENTRY_SIZE = 32
_END, _DELETED = 0x00, 0xE5
_DIRECTORY, _VOLUME_ID, _LONG_NAME = 0x10, 0x08, 0x0F
_LAST_LONG = 0x40
_LONGEST_NAME = 20  # entries with 13 characters each
_LONG_PARTS = (slice(1, 11), slice(14, 26), slice(28, 32))  # UTF-16 of a long name's entry


class FatError(ValueError):
    """It is not a FAT filesystem, or it is damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    name: str
    is_directory: bool
    cluster: int
    size: int


class Fat:
    """A FAT filesystem, read through `source(offset, size)`. Raises FatError if there is none.

    All methods raise FatError if it is damaged, and LimitError if reading it costs too much.
    """

    def __init__(self, source: Callable[[int, int], bytes]) -> None:
        self._source = source
        boot = source(0, 512)
        if len(boot) < 512 or boot[510:512] != b"\x55\xaa":  # noqa: PLR2004  a sector
            raise FatError("it has no boot sector")
        (self._sector, per_cluster, reserved, fats, roots, small, _, fat_size) = struct.unpack_from(
            "<HBHBHHBH", boot, 11
        )
        large, fat32_size, root_cluster = struct.unpack_from("<I", boot, 32)[0], *struct.unpack_from("<I4xI", boot, 36)
        fat_size = fat_size or fat32_size
        if self._sector not in (512, 1024, 2048, 4096) or not per_cluster or not fats or not fat_size:
            raise FatError("its boot sector is invalid")
        self._cluster = self._sector * per_cluster
        self._fat_at = reserved * self._sector
        self._root_at = self._fat_at + fats * fat_size * self._sector
        self._root_size = roots * _ENTRY_SIZE
        self._data_at = self._root_at + -(-self._root_size // self._sector) * self._sector
        self._clusters = ((small or large) * self._sector - self._data_at) // self._cluster
        self._root_cluster = root_cluster if self._clusters >= _FAT16_CLUSTERS else 0
        self._read, self._files = Usage(Limit.FAT_SIZE), Usage(Limit.FAT_FILES)

    def files(self) -> Iterator[tuple[str, int]]:
        """Path and size of every file, such as `EFI/BOOT/BOOTX64.EFI`."""
        yield from self._below("", self._root(), seen=set(), depth=0)

    def read(self, path: str) -> bytes | None:
        """The content of the file at `path`, ignoring case; None if there is none."""
        entries = self._root()
        *folders, name = path.strip("/").split("/")
        for folder in folders:
            inner = _named(entries, folder, is_directory=True)
            if inner is None:
                return None
            entries = self._entries(self._directory(inner.cluster))
        found = _named(entries, name, is_directory=False)
        if found is None:
            return None
        return self._content(found.cluster, found.size) if found.size else b""

    def _below(
        self, prefix: str, entries: Iterator[_Entry], *, seen: set[int], depth: int
    ) -> Iterator[tuple[str, int]]:
        Limit.FAT_DEPTH.check(depth)
        for entry in entries:
            self._files.add()
            Limit.PATH.check(len(prefix) + len(entry.name))
            if not entry.is_directory:
                yield prefix + entry.name, entry.size
            elif entry.name not in (".", ".."):
                if entry.cluster in seen:
                    raise FatError("its directories form a loop")
                seen.add(entry.cluster)
                inner = self._entries(self._directory(entry.cluster))
                yield from self._below(f"{prefix}{entry.name}/", inner, seen=seen, depth=depth + 1)

    def _root(self) -> Iterator[_Entry]:
        if self._root_cluster:
            return self._entries(self._directory(self._root_cluster))
        self._read.add(self._root_size)
        return self._entries(self._source(self._root_at, self._root_size))

    def _entries(self, directory: bytes) -> Iterator[_Entry]:
        long: list[bytes] = []
        for at in range(0, len(directory) - _ENTRY_SIZE + 1, _ENTRY_SIZE):
            raw = directory[at : at + _ENTRY_SIZE]
            kind = raw[11]
            if raw[0] == _END:
                return
            if raw[0] == _DELETED:
                long = []
            elif kind == _LONG_NAME:  # the last part of the name comes first
                long = [] if raw[0] & _LAST_LONG else long
                if len(long) == _LONGEST_NAME:
                    raise FatError("a file name in it is too long")
                long.insert(0, b"".join(raw[part] for part in _LONG_PARTS))
            elif not kind & _VOLUME_ID:
                high, low, size = struct.unpack_from("<H4xHI", raw, 20)
                yield _Entry(
                    name=_long_name(long) or _short_name(raw),
                    is_directory=bool(kind & _DIRECTORY),
                    cluster=high << 16 | low,
                    size=size,
                )
                long = []

    def _directory(self, cluster: int) -> bytes:
        """The content of a directory, which has no size of its own."""
        content = b"".join(self._chain(cluster, Limit.FAT_DIRECTORY))
        if not content:
            raise FatError("the cluster chain of a directory is too short")
        return content

    def _content(self, cluster: int, size: int) -> bytes:
        """The content of a file of `size` bytes."""
        Limit.FAT_SIZE.check(size)
        data = b"".join(islice(self._chain(cluster, Limit.FAT_SIZE), -(-size // self._cluster)))
        if len(data) < size:
            raise FatError("the cluster chain of a file is too short")
        return data[:size]

    def _chain(self, cluster: int, limit: Limit) -> Iterator[bytes]:
        """The clusters of a chain, which may be a loop: no more bytes than `limit`."""
        usage = Usage(limit)
        while _FIRST_CLUSTER <= cluster < self._clusters + _FIRST_CLUSTER:
            usage.add(self._cluster)
            self._read.add(self._cluster)
            yield self._source(self._data_at + (cluster - _FIRST_CLUSTER) * self._cluster, self._cluster)
            cluster = self._next(cluster)

    def _next(self, cluster: int) -> int:
        if self._clusters < _FAT12_CLUSTERS:
            value = self._number(cluster + cluster // 2, 2)
            return value >> 4 if cluster & 1 else value & 0xFFF
        if self._clusters < _FAT16_CLUSTERS:
            return self._number(cluster * 2, 2)
        return self._number(cluster * 4, 4) & 0x0FFFFFFF

    def _number(self, at: int, size: int) -> int:
        data = self._source(self._fat_at + at, size)
        if len(data) < size:
            raise FatError("its file allocation table is truncated")
        return int.from_bytes(data, "little")


def _named(entries: Iterator[_Entry], name: str, *, is_directory: bool) -> _Entry | None:
    wanted = name.lower()
    found = next((entry for entry in entries if entry.name.lower() == wanted), None)
    return found if found and found.is_directory == is_directory else None


def _long_name(parts: list[bytes]) -> str:
    return b"".join(parts).decode("utf-16-le", errors="replace").split("\0")[0].rstrip("\uffff")


def _short_name(raw: bytes) -> str:
    base, extension = raw[:8].decode("ascii", "replace").rstrip(), raw[8:11].decode("ascii", "replace").rstrip()
    return (f"{base}.{extension}" if extension else base).lower()
