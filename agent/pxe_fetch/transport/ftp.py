"""ftp: URLs, by the standard library's ftplib: RFC 959, passive; RFC 3659 for SIZE and REST, so that it resumes.

Anonymous, since a password would go in the clear; always binary. Data comes from the address that the control
connection has, whatever another the server names (ftplib's default): it may not make the node talk to others.
"""

from __future__ import annotations

import ftplib
import io
import re
import socket
from collections import defaultdict
from threading import Lock

from pxe_fetch.contract.record import mutable_record
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import FetchError, NetworkError, NotFoundError, RefusedError
from pxe_fetch.transport import Body, FtpUrl, Request, parse_ftp_url
from pxe_fetch.transport.sockets import connect, distrust, quoted, readable, translate_os_error

_LATIN_1 = "latin-1"  # bytes as they are: names on servers are in any encoding
_LAST_REPLY = 1.0  # seconds for a server's last word, once all bytes are here
_NO_FILE = 550  # RFC 959: not found, no access; servers don't tell these apart
_CLOSING = 421
_BUSY = re.compile(r"530 .*(maximum|too many|already connected)", re.IGNORECASE | re.DOTALL)  # ProFTPD's MaxClients
_LONGEST = 64 * 1024  # bytes of one reply
_DIGITS = 18  # of a size; one with more fits nowhere


class FtpTransport:
    """Keeps the control connections for the whole run, shared by its threads."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[_Control]] = defaultdict(list)
        self._lock = Lock()

    def open(self, request: Request) -> Body:
        request.deadline.check()
        name = parse_ftp_url(request.url, suffix=";type=i")
        with self._lock:
            kept = self._idle[name.server].pop() if self._idle[name.server] else None
        try:
            if kept:
                try:
                    return self._body(kept, name, request)
                except (EOFError, OSError):  # it has died meanwhile, which is nobody's failure
                    if kept.reader.is_answered:
                        raise
                except ftplib.error_temp as error:
                    if _code(error) != _CLOSING:
                        raise
                self._drop_idle(name)  # they have most likely died as well
            return self._body(_Control(name, request), name, request)
        except FetchError:
            raise
        except Exception as error:
            raise _translate_error(error, name, request) from error

    def close(self) -> None:
        with self._lock:
            for control in (one for kept in self._idle.values() for one in kept):
                control.close()
            self._idle.clear()

    def _body(self, control: _Control, name: FtpUrl, request: Request) -> Body:
        try:
            data, start, total = control.retrieve(name, request)
        except ftplib.error_perm:
            self.keep(control, name)  # a file it does not have
            raise
        except BaseException:
            control.close()
            raise
        return _FtpBody(
            transport=self, control=control, data=data, name=name, request=request, start=start, total=total
        )

    def _drop_idle(self, name: FtpUrl) -> None:
        with self._lock:
            for control in self._idle.pop(name.server, ()):
                control.close()

    def keep(self, control: _Control, name: FtpUrl) -> None:
        """Have `control` serve another request."""
        with self._lock:
            self._idle[name.server].append(control)


class _Control(ftplib.FTP):
    """A control connection, logged in; ftplib's, but its reader looks at the clock."""

    def __init__(self, name: FtpUrl, request: Request) -> None:
        super().__init__(encoding=_LATIN_1)
        self.host, self.port = name.host, name.port
        self.sock = _connect(name.host, name.port, request)
        try:
            self.af = self.sock.family
            self.reader = _Reader(self.sock, deadline=request.deadline, silence=request.timeouts.read)
            self.file = io.TextIOWrapper(io.BufferedReader(self.reader), encoding=_LATIN_1)
            self.welcome = self.getresp()
            while self.welcome.startswith("1"):  # 120: it is ready in a while (RFC 959, 5.4)
                self.welcome = self.getresp()
            self.login()
            self.voidcmd("TYPE I")
        except BaseException:
            if self.welcome is None:
                distrust(name.host, name.port)
            self.close()
            raise

    def retrieve(self, name: FtpUrl, request: Request) -> tuple[socket.socket, int, int | None]:
        """The data connection of a file, where its bytes begin, and the size of the whole where it is told."""
        self.reader.deadline, self.reader.silence = request.deadline, request.timeouts.read
        self.reader.is_answered = False
        path = name.path.decode(_LATIN_1)
        total = self._size(path)
        is_beyond = request.end is None and total is not None and request.offset > total
        start = 0 if is_beyond else request.offset
        data = _connect(*self.makepasv(), request)
        try:
            if start and not self._restart(start):
                start = 0
            answer = self.sendcmd(f"RETR {path}")
        except BaseException:
            data.close()
            raise
        if not answer.startswith("1"):
            data.close()
            raise ftplib.error_reply(answer)  # noqa: S321  the digest protects what FTP does not
        return data, start, total

    def getmultiline(self) -> str:
        """A reply, up to the line that has its code and a blank (RFC 959, 4.2); to ftplib `220x` is such a line."""
        self.reader.reply_begins()
        line = reply = self.getline()
        while reply[:3].isdecimal() and reply[3:4] == "-" and line[:4] not in {reply[:3], f"{reply[:3]} "}:
            line = self.getline()
            reply += f"\n{line}"
        return reply

    def _size(self, path: str) -> int | None:
        """RFC 3659 4. A server that doesn't have the command, or doesn't have the file, says so; RETR decides."""
        try:
            code, _, size = self.sendcmd(f"SIZE {path}").partition(" ")
        except ftplib.error_perm:
            return None
        return int(size) if code == "213" and size.isdecimal() and len(size) <= _DIGITS else None

    def _restart(self, offset: int) -> bool:
        """Whether what follows begins at `offset` (RFC 3659 5)."""
        try:
            return self.sendcmd(f"REST {offset}").startswith("350")
        except ftplib.error_perm:
            return False


@mutable_record
class _FtpBody(Body):  # without a validator: the time of change has whole seconds, if that
    transport: FtpTransport
    control: _Control
    data: socket.socket
    name: FtpUrl
    request: Request
    start: int
    total: int | None
    _received: int = 0
    _is_over: bool = False
    _is_reusable: bool = False

    def __post_init__(self) -> None:
        self.ranged = self.start == self.request.offset
        self.offers_ranges = self.start > 0
        self.is_exact = False  # some servers count what SIZE tells as if they sent text (RFC 3659, 4.2)

    def readinto(self, view: memoryview) -> int:
        if self._is_over:
            return 0
        try:
            if not readable(self.data, deadline=self.request.deadline, seconds=self.request.timeouts.read):
                raise TimeoutError  # noqa: TRY301
            count = self.data.recv_into(view)
            self._received += count
            if view and not count:
                self._end()
        except FetchError:
            raise
        except Exception as error:
            raise _translate_error(error, self.name, self.request) from error
        return count

    def close(self) -> None:
        self.data.close()
        if self._is_reusable:
            self.transport.keep(self.control, self.name)
        else:
            self.control.close()
        self._is_reusable = False

    def _end(self) -> None:
        """The data connection is closed; the control connection tells whether that was the file's end."""
        self._is_over = True
        self.data.close()  # some servers say nothing before that
        is_whole = self.start + self._received == self.total
        if is_whole:
            self.control.reader.silence = _LAST_REPLY
        try:
            self.control.voidresp()
            self._is_reusable = self.is_exact = True
            self.total = max(self.total or 0, self.start + self._received)  # some say 226 after half a file
        except ftplib.error_perm as error:  # it had begun to send it, so it may be there again
            if not is_whole:
                raise NetworkError(_said(error, self.name), status=_code(error)) from error
        except ftplib.all_errors:
            if not is_whole:
                raise


class _Reader(io.RawIOBase):
    """Bytes of the control connection: a whole reply within `silence` seconds, and not without end."""

    def __init__(self, sock: socket.socket, *, deadline: Deadline, silence: float) -> None:
        super().__init__()
        self._socket = sock
        self._until = 0.0
        self._room = 0
        self.deadline, self.silence = deadline, silence
        self.is_answered = False  # a byte has come since this was set

    def reply_begins(self) -> None:
        self._until, self._room = self.deadline.clock.now() + self.silence, _LONGEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        if self._room <= 0:
            raise ftplib.error_proto
        if not readable(self._socket, deadline=self.deadline, seconds=self._until - self.deadline.clock.now()):
            raise TimeoutError
        count = self._socket.recv_into(buffer)
        self._room -= count
        self.is_answered |= count > 0
        return count


def _connect(host: str, port: int, request: Request) -> socket.socket:
    return connect(host, port, seconds=request.timeouts.connect, deadline=request.deadline)


def _code(error: Exception) -> int:
    """The reply's number, 0 if it has none."""
    digits = str(error)[:3]
    return int(digits) if digits.isdecimal() else 0


def _said(error: Exception, name: FtpUrl) -> str:
    return f"{name.server} answered {_code(error)}{quoted(str(error)[4:])}"


def _translate_error(error: Exception, name: FtpUrl, request: Request) -> FetchError:
    match error:
        case ftplib.error_perm() if _code(error) == _NO_FILE:
            return NotFoundError(_said(error, name), status=_code(error))
        case ftplib.error_perm() if not _BUSY.match(str(error)):
            return RefusedError(_said(error, name), status=_code(error))
        case ftplib.error_temp() | ftplib.error_perm():
            return NetworkError(_said(error, name), status=_code(error))
        case ftplib.Error() | ValueError() | OverflowError():  # the last two: a port that is none
            return NetworkError(f"{name.server} sent what is not FTP")
        case EOFError():
            return NetworkError(f"{name.server} closed the connection")
        case OSError():
            return translate_os_error(error, host=name.server, timeouts=request.timeouts)
    raise error
