"""file: URLs: something that is on the node already, a mounted share or a disk."""

from __future__ import annotations

import errno
import os
import stat

from pxe_fetch.errors import FetchError, NetworkError, NotFoundError, PolicyError, RefusedError
from pxe_fetch.transport import Body, Request, parse_url


class FileTransport:
    """Reads files. RFC 8089: the host part is empty or "localhost"."""

    def open(self, request: Request) -> Body:
        name = _name(request.url)
        path = name.decode(errors="replace")  # as it is shown
        try:
            # O_NONBLOCK: a FIFO without a writer would hold us for ever; on a regular file it means nothing.
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _translate_error(error, path=path) from error
        try:
            total = _size(fd, path=path)
            start = request.offset if request.offset <= total else 0
            os.lseek(fd, start, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return _FileBody(fd, path=path, start=start, total=total, request=request)

    def close(self) -> None:
        """Nothing is kept."""


class _FileBody:
    validator = None
    remark = ""
    ranged = True

    def __init__(self, fd: int, *, path: str, start: int, total: int, request: Request) -> None:
        self._fd = fd
        self._path = path
        self._deadline = request.deadline
        self.start = start
        self.total = total

    def readinto(self, view: memoryview) -> int:
        self._deadline.check()
        try:
            return os.readv(self._fd, [view])
        except OSError as error:
            raise _translate_error(error, path=self._path) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _size(fd: int, *, path: str) -> int:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{path} is not a regular file")
    return status.st_size


def _name(url: str) -> bytes:
    """The absolute path that `url` names: the bytes that it encodes, in whatever encoding. Raises PolicyError."""
    parts = parse_url(url)
    if parts.host not in {"", "localhost"}:
        raise PolicyError(f"a file URL names no other host than localhost, found {parts.host}")
    name = parts.path_bytes
    if not name.startswith(b"/") or b"\0" in name:
        raise PolicyError("a file URL needs an absolute path")
    return name


def _translate_error(error: OSError, *, path: str) -> FetchError:
    # A mount that is not there yet may come; so may a network file system that reports EIO.
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NotFoundError(f"{path} does not exist")
    if error.errno == errno.ENXIO:  # a socket
        return RefusedError(f"{path} is not a regular file")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return RefusedError(f"{path} may not be read")
    # What systemd has an automount answer when its mount fails (automount.c).
    if error.errno in {errno.ENODEV, errno.EHOSTDOWN}:
        return NetworkError(f"{path} cannot be read: its file system could not be mounted ({error.strerror})")
    return NetworkError(f"{path} cannot be read: {error.strerror}")
