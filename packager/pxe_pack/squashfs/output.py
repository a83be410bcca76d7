"""The output file: written under a temporary name, renamed when complete, and deleted if anything fails."""

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
_RANGE_AT_ONCE: Final = 64 << 20  # small enough that an interrupted copy ends soon
# errno values of copy_file_range(2) where it is not supported; then we copy through our own memory.
_NO_RANGE: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}

Listener = Callable[[memoryview], object]  # called with all of the file's bytes in order, such as sha256().update


class Output:
    """A new file that appears at `path` when the context ends without error. Raises WorkError if writing fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="copy")  # starts its thread on first use
        self._copying: Future[None] | None = None
        self._stopped = False

    def __enter__(self) -> Self:
        try:
            self._file = self._temporary.open("xb+")
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
                self._temporary.replace(self.path)
        except OSError as problem:
            raise self._failed(problem) from problem
        finally:
            self._temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> WorkError:
        reason = error.strerror or str(error)
        return WorkError(Problem(reference="output-failed", message=f"cannot write {self.path}: {reason}"))

    def put(self, data: bytes) -> int:
        """Write `data` at the current position and return that position."""
        self._file.write(data)
        self.position += len(data)
        return self.position - len(data)

    def skip(self, position: int) -> None:
        """Continue at `position`; the gap reads as zeros until it is written."""
        self._file.seek(position)
        self.position = position

    def begin(self, source: FileSlice) -> Future[None]:
        """Start copying `source` to the beginning of the file in the background; `fill()` waits for it."""
        self._copying = self._copier.submit(self._copy, source, self._file.fileno())
        return self._copying

    def fill(self, source: FileSlice, *, head: bytes, listener: Listener | None) -> None:
        """Write `head`, then the rest of `source` after it, at the beginning; pass all of the file to `listener`."""
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
        _pass_to_listener(inside, len(head), source.size, listener, out)
        _pass_to_listener(FileSlice(out, offset=0, size=end), source.size, end, listener, None)

    def _copy(self, source: FileSlice, out: int) -> None:
        """Copy inside the kernel if possible; some filesystems share the blocks, which costs neither time nor space."""
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


def _pass_to_listener(source: FileSlice, start: int, end: int, listener: Listener, out: int | None) -> None:
    """Call `listener` with the bytes from `start` to `end`, in a thread of its own, while they are read and copied."""
    # Page-aligned buffers: copying from the page cache into unaligned ones is several times slower on some processors.
    buffers = [memoryview(mmap(-1, _AT_ONCE)) for _ in range(3)]
    calls: list[Future[object] | None] = [None] * len(buffers)
    with ThreadPoolExecutor(1) as pool:
        position, turn = start, 0
        while position < end:
            if (before := calls[turn]) is not None:
                before.result()
            view = buffers[turn][: min(_AT_ONCE, end - position)]
            got = os.preadv(source.descriptor, [view], source.offset + position)
            if not got:
                raise OSError(errno.EIO, "the image was truncated while it was read")
            view = view[:got]
            calls[turn] = pool.submit(listener, view)
            written = 0
            while out is not None and written < got:
                written += os.pwrite(out, view[written:], position + written)
            position += got
            turn = (turn + 1) % len(buffers)
        for last in calls:
            if last is not None:
                last.result()
