"""The file that comes out: written beside its name, then given it, and gone when anything fails."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import mmap
from pathlib import Path
from typing import Final, Self

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs.file_slice import FileSlice
from pxe_pack.tools import WorkError

_AT_ONCE: Final = 1 << 20
_RANGE_AT_ONCE: Final = 64 << 20  # so that an interrupted copy ends soon
# What copy_file_range() answers where it can't; then bytes go through our own memory.
_NO_RANGE: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}

Listener = Callable[[memoryview], object]  # is given all of the file's bytes in their order: sha256().update


class Output:
    """A new file, to be at `path` once it is kept. Raises WorkError when it can't be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="copy")  # starts nothing until it is used
        self._copying: Future[None] | None = None
        self._stopped = False

    def __enter__(self) -> Self:
        try:
            self._file = self._beside.open("xb+")
        except OSError as error:
            raise self._failed(error) from error
        self.position = 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._stopped = True
        self._copier.shutdown()
        try:
            self._file.close()
            if kind is None:
                self._beside.replace(self.path)
        except OSError as problem:
            raise self._failed(problem) from problem
        finally:
            self._beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> WorkError:
        reason = error.strerror or str(error)
        return WorkError(Problem(reference="output-failed", message=f"{self.path} can't be written: {reason}"))

    def put(self, data: bytes) -> int:
        """Write `data` at the position, and give where that was."""
        self._file.write(data)
        self.position += len(data)
        return self.position - len(data)

    def skip(self, position: int) -> None:
        """Go on at `position`; what is left out is zeros until it is written."""
        self._file.seek(position)
        self.position = position

    def begin(self, source: FileSlice) -> Future[None]:
        """Copy `source` to the file's beginning beside whatever else is done; `fill()` waits for that."""
        self._copying = self._copier.submit(self._copy, source, self._file.fileno())
        return self._copying

    def fill(self, source: FileSlice, *, head: bytes, listener: Listener | None) -> None:
        """Write `head` and what `source` has behind as many bytes, from the beginning; then tell `listener` all."""
        self._file.flush()
        out = self._file.fileno()
        if listener is None:
            (self._copying or self.begin(source)).result()
            os.pwrite(out, head, 0)
            return
        os.pwrite(out, head, 0)
        end = os.fstat(out).st_size
        listener(memoryview(head))
        inside = FileSlice(source.descriptor, offset=source.offset, size=source.size)
        _tell(inside, len(head), source.size, listener, out)
        _tell(FileSlice(out, offset=0, size=end), source.size, end, listener, None)

    def _copy(self, source: FileSlice, out: int) -> None:
        """Within the kernel where it can, which on some file systems takes no time and no room."""
        done = 0
        while done < source.size and not self._stopped:
            some = min(_RANGE_AT_ONCE, source.size - done)
            try:
                moved = os.copy_file_range(source.descriptor, out, some, source.offset + done, done)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                break
            if not moved:
                break
            done += moved
        while done < source.size and not self._stopped:
            done += os.pwrite(out, source.read(done, min(_AT_ONCE, source.size - done)), done)


def _tell(source: FileSlice, start: int, end: int, listener: Listener, out: int | None) -> None:
    """Give `listener` the bytes from `start` to `end`, in a thread of its own, while they are read and copied."""
    # Page-aligned buffers: copies out of the page cache into others are several times slower on some processors.
    buffers = [memoryview(mmap(-1, _AT_ONCE)) for _ in range(3)]
    told: list[Future[object] | None] = [None] * len(buffers)
    with ThreadPoolExecutor(1) as pool:
        position, turn = start, 0
        while position < end:
            if (before := told[turn]) is not None:
                before.result()
            view = buffers[turn][: min(_AT_ONCE, end - position)]
            got = os.preadv(source.descriptor, [view], source.offset + position)
            if not got:
                raise OSError(errno.EIO, "the image was cut short while it was read")
            view = view[:got]
            told[turn] = pool.submit(listener, view)
            written = 0
            while out is not None and written < got:
                written += os.pwrite(out, view[written:], position + written)
            position += got
            turn = (turn + 1) % len(buffers)
        for last in told:
            if last is not None:
                last.result()
