"""file: URLs: something that is on the node already, a mounted share or a disk."""

from __future__ import annotations

import errno
import os

from pxe_fetch import regular_file
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import FetchError, NetworkError, NotFoundError, PolicyError, RefusedError
from pxe_fetch.transport import Body, Request, Transport, parse_url

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})  # a mount that is not there yet may come
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_NOT_MOUNTED = frozenset({errno.ENODEV, errno.EHOSTDOWN})  # what systemd has an automount answer (automount.c)


class FileTransport(Transport):
    """Reads files. RFC 8089: the host part is empty or "localhost"."""

    def open(self, request: Request) -> Body:
        url = parse_url(request.url)
        if url.host not in {"", "localhost"}:
            raise PolicyError(f"a file URL may name only the host localhost, found {url.host}")
        name = url.path_bytes  # in whatever encoding
        if not name.startswith(b"/") or b"\0" in name:
            raise PolicyError("a file URL needs an absolute path")
        path = name.decode(errors="replace")  # as it is shown
        try:
            fd = regular_file.opened(name)
        except OSError as error:
            raise _translate_error(error, path=path) from error
        size = os.fstat(fd).st_size
        return _FileBody(fd, path=path, offset=request.offset, total=size, deadline=request.deadline)


class _FileBody(Body):
    def __init__(self, fd: int, *, path: str, offset: int, total: int, deadline: Deadline) -> None:
        self._fd, self._path, self._deadline = fd, path, deadline
        self.total = total
        self.start = self._at = offset if offset <= total else 0

    def readinto(self, view: memoryview) -> int:
        self._deadline.check()
        try:
            count = os.preadv(self._fd, [view], self._at)
        except OSError as error:
            raise _translate_error(error, path=self._path) from error
        self._at += count
        return count

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _translate_error(error: OSError, *, path: str) -> FetchError:
    if error.errno in _ABSENT:
        return NotFoundError(f"{path} does not exist")
    if error.errno == errno.EINVAL:
        return RefusedError(f"{path} is not a regular file")
    if error.errno in _FORBIDDEN:
        return RefusedError(f"{path} may not be read")
    why = "its file system could not be mounted: " if error.errno in _NOT_MOUNTED else ""
    return NetworkError(f"{path} cannot be read: {why}{error.strerror}")  # a network file system may report EIO
