"""tftp: URLs: RFC 1350 with block size, size, timeout and window options, each used where the server has it.

No Python library for it has windows (RFC 7440), lets go of a transfer while it waits, or hands bytes over as they come,
and what there is to say is short. TFTP cannot resume: a body always begins at 0, and the engine starts over.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from pxe_fetch.errors import FetchError, NetworkError, NotFoundError, PolicyError, RefusedError
from pxe_fetch.transport import Body, FtpUrl, Request, Transport, parse_ftp_url, tftp_packets
from pxe_fetch.transport.sockets import quoted, readable, resolve, translate_os_error, trust

_BLOCK = 1468  # bytes at most: an Ethernet frame's 1500 without the headers of IPv4 (20), UDP (8) and TFTP (4)
_WINDOW = 16  # blocks: 23 KiB under way, 100 MB/s where an answer takes 0.2 ms
_RESEND = 1.0  # seconds until a packet is sent again; doubled each time, as often as the timeouts allow
_RESENDS = 5  # how often at least that would be if it weren't doubled, however short the timeouts are
_SETTLED = 0.2  # seconds: a block that comes again sooner was doubled on its way, not sent again
_HALF = 0x8000  # a number so far ahead is one of the past: numbers begin again after 16 bits
_IP_MTU, _IP_RECVERR = 14, 11  # linux/in.h
_IPV6_MTU, _IPV6_RECVERR = 24, 25  # linux/in6.h

_Address = tuple[str | int, ...] | tuple[int, bytes]  # as socket.getaddrinfo gives it


class TftpTransport(Transport):
    """A socket a transfer; nothing is kept."""

    def open(self, request: Request) -> Body:
        request.deadline.check()
        name = parse_ftp_url(request.url, suffix=";mode=octet")
        connect = request.timeouts.connect  # all addresses share it
        now = request.deadline.clock.now
        end = now() + connect
        failure = OSError()
        try:
            kind = socket.SOCK_DGRAM
            addresses = resolve(name.host, name.port, seconds=connect, deadline=request.deadline, kind=kind)
            for left, (family, _, _, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
                until = now() + (end - now()) / left  # a dead one leaves the others their share
                try:
                    return _ask(name, request, family=family, address=address, until=until)
                except OSError as error:  # another of its addresses may answer
                    failure = error
            raise failure
        except TimeoutError as error:
            raise NetworkError(f"no answer from {name.server} within {connect:g} s") from error
        except OSError as error:
            raise translate_os_error(error, host=name.server, timeouts=request.timeouts) from error


def _ask(name: FtpUrl, request: Request, *, family: int, address: _Address, until: float) -> Body:
    """Ask for the file with options and, where the server cannot stand them, without. Raises FetchError, OSError."""
    options = {"blksize": _block_size(family, address), "tsize": 0, "timeout": 1, "windowsize": _WINDOW}
    for asked in (options, {}):
        packet = tftp_packets.read_request(name.path, asked)
        if len(packet) > tftp_packets.LONGEST_REQUEST:
            raise PolicyError(f"the path of the tftp URL is longer than a request may be: {len(name.path)} bytes")
        transfer = _Transfer(name, request, family=family, until=until)
        try:
            if transfer.begins(packet, address, asked=asked):
                trust(name.host, name.port, address)
                return transfer
        except BaseException:
            transfer.close()
            raise
        transfer.close()
    raise AssertionError("unreachable: without options there is nothing to refuse")


class _Transfer(Body):
    """The blocks of one file in their order (RFC 1350, RFC 7440).

    What was sent last is sent again until something new comes.
    """

    ranged = False
    is_exact = False  # `tsize` (RFC 2349) may be that of yesterday's file; the last block shows the size

    def __init__(self, name: FtpUrl, request: Request, *, family: int, until: float) -> None:
        """The server has until `until` on the clock to answer."""
        self._server = name.server
        self._timeouts, self._deadline, self._clock = request.timeouts, request.deadline, request.deadline.clock
        self._to: _Address = ()
        self._peer: _Address | None = None  # of the transfer, once it has answered
        self._last = b""
        self._sent_at, self._until = self._clock.now(), until
        self._resend = self._soonest = min(_RESEND, self._timeouts.read / _RESENDS, self._timeouts.connect / _RESENDS)
        self._block, self._window = tftp_packets.PLAIN_BLOCK, 1
        self._due = 1  # number of the block that comes next, counted on beyond 16 bits
        self._open = 0  # blocks that came since the last ACK
        self._gap = False  # whether the server knows that one is missing
        self._left = b""  # of a block, what did not fit
        self._length = 0  # bytes of the blocks that came
        self._is_over = False
        self._head = memoryview(bytearray(tftp_packets.HEADER))
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # Else a socket that isn't connected yet is not told that nobody listens there.
        is_ipv6 = family == socket.AF_INET6
        option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if is_ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(*option, 1)

    def begins(self, packet: bytes, address: _Address, *, asked: Mapping[str, int]) -> bool:
        """Whether the server answers the request `packet` with the file; False if it refuses the options `asked`.

        Whatever port the answer comes from is the transfer's (RFC 1350 4). Raises FetchError, and OSError: TimeoutError
        when there is none in time.
        """
        self._to = address
        self._send(packet)
        while not self._peer:
            self._wait()
            with contextlib.suppress(BlockingIOError):
                answer, peer = self._socket.recvfrom(tftp_packets.HEADER + _BLOCK + 1)
                if peer[0] == address[0]:
                    # From now on the kernel refuses what others send, so that a server which got the request twice
                    # learns that nobody wants its second copy.
                    self._socket.connect(peer)
                    self._to = self._peer = peer
        self._heard()
        kind, number = tftp_packets.opcode_and_number(answer)
        if (kind, number) == (tftp_packets.ERROR, tftp_packets.OPTIONS_REFUSED) and asked:
            self._is_over = True
            return False
        if kind == tftp_packets.ERROR:
            raise self._refusal(number, answer[tftp_packets.HEADER :])
        block = len(answer) - tftp_packets.HEADER
        if kind == tftp_packets.OACK:
            options = tftp_packets.agreed(answer, asked=asked)
            if options is None:
                self._is_over = True
                self._send(tftp_packets.error(tftp_packets.OPTIONS_REFUSED, "not what was asked for"))
                raise NetworkError(f"{self._server} answered with options that were not asked for")
            self.total = options.get("tsize")
            self._block, self._window = options.get("blksize", self._block), options.get("windowsize", self._window)
            self._send(tftp_packets.ack(0))
        elif (kind, number) == (tftp_packets.DATA, 1) and block <= self._block:
            self._left = answer[tftp_packets.HEADER :]
            self._accept(block)
        else:
            raise NetworkError(f"{self._server} sent what is not TFTP")
        self._tail = memoryview(bytearray(self._block + 1))  # one more: a block that is too long shows
        return True

    def readinto(self, view: memoryview) -> int:
        filled = min(len(view), len(self._left))
        view[:filled], self._left = self._left[:filled], self._left[filled:]
        try:
            while filled < len(view) and not self._is_over:
                count = self._receive(view[filled:])
                filled += count
                if count == 0 and not self._is_over:
                    if filled:
                        break
                    self._wait()
        except ConnectionRefusedError as error:
            raise NetworkError(f"{self._server} gave up the transfer") from error
        except OSError as error:
            raise translate_os_error(error, host=self._server, timeouts=self._timeouts) from error
        return filled

    def close(self) -> None:
        if not self._is_over:
            with contextlib.suppress(OSError):  # there may be nobody to tell
                self._socket.send(tftp_packets.error(tftp_packets.UNDEFINED, "given up"))
        self._is_over = True
        self._socket.close()

    def _receive(self, view: memoryview) -> int:
        """The bytes that the packets which are there bring into `view`; 0 when there is no block but an empty one."""
        view = view[: self._block]
        tail = self._tail[: self._block - len(view) + 1]
        while (packet := self._packet([self._head, view, tail])) >= 0:
            length = packet - tftp_packets.HEADER
            kind, number = tftp_packets.opcode_and_number(self._head) if length >= 0 else (0, 0)
            if kind == tftp_packets.ERROR:
                raise self._refusal(number, (bytes(view) + bytes(tail))[:length])
            if kind == tftp_packets.DATA and length > self._block:
                raise NetworkError(f"{self._server} sent a block longer than agreed")
            if kind == tftp_packets.DATA and self._is_due(number):
                self._left = bytes(tail[: max(0, length - len(view))])
                self._accept(length)
                return min(length, len(view))
            if kind == tftp_packets.OACK and self._due == 1 and self._is_settled():
                self._acknowledge()  # it did not see that we have it
            self._seconds_left()
        return 0

    def _is_due(self, number: int) -> bool:
        """Whether the block `number` is the next. What else it tells the server is sent.

        A block of the past is acknowledged again only when it cannot be a mere copy: else each copy would bring another
        one, to the end of the file (the "sorcerer's apprentice", RFC 1123 4.2.3.1).
        """
        ahead = (number - self._due) & 0xFFFF
        if ahead == 0:
            return True
        if ahead < _HALF:
            if not self._gap:
                self._acknowledge()  # RFC 7440 4: the server goes on after this one
            self._gap = True
        elif self._is_settled():
            self._acknowledge()
        return False

    def _accept(self, length: int) -> None:
        """The block that was due has come."""
        self._due += 1
        self._open += 1
        self._gap = False
        self._heard()
        self._length += length
        if length < self._block:
            self._is_over = self.is_exact = True
            self.total = max(self.total or 0, self._length)
        if self._is_over or self._open >= self._window:
            self._acknowledge()

    def _acknowledge(self) -> None:
        self._open = 0
        self._send(tftp_packets.ack(self._due - 1))

    def _refusal(self, code: int, message: bytes) -> FetchError:
        self._is_over = True
        said = f"{self._server} answered error {code}{quoted(tftp_packets.text(message))}"
        if code == tftp_packets.NOT_FOUND:
            return NotFoundError(said)
        return RefusedError(said) if code == tftp_packets.ACCESS else NetworkError(said)

    def _packet(self, buffers: list[memoryview]) -> int:
        """The length of the next packet that is there, put into `buffers`; -1 when there is none. Raises OSError."""
        while True:
            try:
                length, _, _, sender = self._socket.recvmsg_into(buffers)
            except BlockingIOError:
                return -1
            if sender == self._peer:  # what others sent before it was connected is still in the queue
                return length

    def _send(self, packet: bytes) -> None:
        """Send `packet`, and again whenever nothing new comes for a while. Raises OSError."""
        self._last = packet
        self._sent_at = self._clock.now()
        with contextlib.suppress(BlockingIOError):  # as good as lost
            self._socket.sendto(packet, self._to)

    def _heard(self) -> None:
        """Something new has come."""
        self._until = self._clock.now() + self._timeouts.read
        self._resend = self._soonest

    def _is_settled(self) -> bool:
        """Whether the last packet was sent long enough ago for what comes now to be an answer to its loss."""
        return self._clock.now() - self._sent_at >= _SETTLED

    def _seconds_left(self) -> float:
        """Seconds in which something new has to come. Raises TimeoutError, DeadlineError, StoppedError."""
        self._deadline.check()
        if (left := self._until - self._clock.now()) <= 0:
            raise TimeoutError
        return left

    def _wait(self) -> None:
        """Wait until a packet is there, or the last one has been sent again. Raises as `_seconds_left`, `_send` do."""
        until_resend = max(0.0, self._sent_at + self._resend - self._clock.now())
        if readable(self._socket, deadline=self._deadline, seconds=min(self._seconds_left(), until_resend)):
            return
        if self._clock.now() - self._sent_at >= self._resend:
            self._resend *= 2
            self._send(self._last)


def _block_size(family: int, address: _Address) -> int:
    """Bytes of a block that fit into one packet on the way to `address`, as far as the kernel knows it."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing
        is_ipv6 = family == socket.AF_INET6
        option = (socket.IPPROTO_IPV6, _IPV6_MTU) if is_ipv6 else (socket.IPPROTO_IP, _IP_MTU)
        headers, most = (52, _BLOCK - 20) if is_ipv6 else (32, _BLOCK)
        with contextlib.suppress(OSError):
            return max(tftp_packets.PLAIN_BLOCK, min(probe.getsockopt(*option) - headers, most))
    return tftp_packets.PLAIN_BLOCK
