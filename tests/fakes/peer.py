"""The other end of a TCP connection on this machine: what its program has read, as the kernel knows (sock_diag(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG, linux/netlink.h
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY, linux/sock_diag.h
_REQUEST = 1  # NLM_F_REQUEST
_INFO = 2  # INET_DIAG_INFO, linux/inet_diag.h: a struct tcp_info comes too
_EVERY_STATE = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_OPEN = frozenset({1, 8})  # TCP_ESTABLISHED, TCP_CLOSE_WAIT: a program has it
_HEADER, _MESSAGE = 16, 72  # bytes of struct nlmsghdr and of struct inet_diag_msg
_QUEUE = 56  # of its receive queue's length in that message
_RECEIVED, _UNSENT, _SENT = 128, 144, 200  # in struct tcp_info (linux/tcp.h): bytes_received, notsent_bytes, bytes_sent
_LARGEST = 4096  # bytes of an answer of the kernel


class Peer:
    """The client of `connection`, over IPv4."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        (here, port), (there, its) = connection.getsockname(), connection.getpeername()
        name = struct.pack("!HH16s16sI", its, port, socket.inet_aton(there), socket.inet_aton(here), 0) + _NO_COOKIE
        asked = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _EVERY_STATE) + name
        self._question = struct.pack("=IHHII", _HEADER + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)

    def unread(self) -> int | None:
        """Bytes sent to it that its program has not read; None once it has closed its end."""
        own = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (unsent,), (sent, again) = struct.unpack_from("=I", own, _UNSENT), struct.unpack_from("=QQ", own, _SENT)
        self._kernel.send(self._question)
        answer = self._kernel.recv(_LARGEST)
        kind = struct.unpack_from("=H", answer, 4)[0]
        if kind != _BY_FAMILY or answer[_HEADER + 1] not in _OPEN:
            return None
        queued = struct.unpack_from("=I", answer, _HEADER + _QUEUE)[0]
        received = struct.unpack_from("=Q", dict(_attributes(answer[_HEADER + _MESSAGE :]))[_INFO], _RECEIVED)[0]
        return int(unsent + (sent - again) - received + queued)

    def close(self) -> None:
        """Let go of the kernel; the connection is the caller's."""
        self._kernel.close()


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink attributes in `data`: kind and value (netlink(7))."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]
