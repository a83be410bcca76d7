"""What a server has to give: bytes, or a file that is read as it is sent."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

CHUNK = 256 * 1024  # bytes read and sent at a time


@dataclass(frozen=True)
class Content:
    """`body` and its name for If-Range."""

    body: bytes | Path

    @property
    def size(self) -> int:
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    @property
    def etag(self) -> str:
        """A strong ETag: of the bytes (a cheap checksum will do), or of a file's size and time as nginx makes it."""
        if isinstance(self.body, Path):
            status = self.body.stat()
            return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        return f'"{zlib.crc32(self.body):08x}-{len(self.body):x}"'

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`."""
        if not isinstance(self.body, Path):
            return self.body[start:end]
        fd = os.open(self.body, os.O_RDONLY)
        try:
            return os.pread(fd, end - start, start)
        finally:
            os.close(fd)

    def offset(self, at: float) -> int:
        """`at` in bytes: an int is one, from the end if it is negative; a float is a part of the whole."""
        if isinstance(at, int):
            return at if at >= 0 else self.size + at
        return int(at * self.size)
