"""A growing log read line by line: through rotation and truncation, never half a line, and on from where it was."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pxe_pack.input_file import open_regular

LONGEST_LINE = 8192  # bytes; longer ones are dropped
MOST = 1 << 20  # bytes read at once
COPIED = 60.0  # seconds for which a copy of a log that has been truncated is a new one


@dataclass(frozen=True, slots=True)
class Place:
    """How far the file with this inode has been read, to the end of a line."""

    inode: int
    offset: int


class Tail:
    """The new lines of the log at `path`. It need not exist yet.

    Reading goes on at `place`, or at the beginning if the log has been rotated since. Without one, what the log has
    already is left out, for nobody knows when those lines were written.
    """

    def __init__(self, path: Path, place: Place | None) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._rest = b""  # the beginning of a line
        self._dropping = False  # within a line that is too long
        self._open(place, at_end=place is None)

    @property
    def place(self) -> Place | None:
        """Where the next line begins; None if there is no file."""
        if self._file is None:
            return None
        return Place(os.fstat(self._file.fileno()).st_ino, self._file.tell() - len(self._rest))

    def lines(self) -> list[str]:
        """The lines that have been completed since the last call. No OSError: a log that cannot be read has none."""
        try:
            found = self._read()
            if not found and self._has_been_replaced():
                self.close()
                self._open(None, at_end=False)
                found = self._read()
        except OSError:
            return []
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest, self._dropping = None, b"", False

    def _open(self, place: Place | None, *, at_end: bool) -> None:
        with suppress(OSError):
            self._file = open_regular(self.path)
            status = os.fstat(self._file.fileno())
            if place and place.inode == status.st_ino and place.offset <= status.st_size:
                self._file.seek(place.offset)
            elif at_end:
                self._file.seek(0, os.SEEK_END)

    def _has_been_replaced(self) -> bool:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return False  # a moment of its rotation
        return self._file is None or status.st_ino != os.fstat(self._file.fileno()).st_ino

    def _read(self) -> list[str]:
        if self._file is None:
            return []
        at, data = self._file.tell(), b""
        if os.fstat(self._file.fileno()).st_size < at:  # truncated in place (logrotate's copytruncate)
            self._file.seek(0)
            data = self._copied(at)
            if not data:
                self._rest, self._dropping = b"", False
        data += self._file.read(MOST)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._dropping and lines:
            del lines[0]
            self._dropping = False
        if len(self._rest) > LONGEST_LINE:
            self._rest, self._dropping = b"", True
        return [line.decode(errors="replace") for line in lines if len(line) <= LONGEST_LINE]

    def _copied(self, at: int) -> bytes:
        """What followed `at`, by the copy that logrotate(8) or `pxe-pack serve` made before truncating the log."""
        with suppress(OSError), open_regular(self.path.with_name(f"{self.path.name}.1")) as copy:
            if time.time() - os.fstat(copy.fileno()).st_mtime < COPIED:
                copy.seek(at)
                return copy.read(MOST)
        return b""
