"""A TFTP server that does to its packets what networks and broken servers do; RFC 1350, 2347, 7440."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Self

RRQ, DATA, ACK, ERROR, OACK = 1, 3, 4, 5, 6
_RESEND = 0.15  # seconds
_GIVE_UP = 10  # times a window is sent again


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What goes wrong. Nothing, where nothing is said."""

    packets: Mapping[int, str] = field(default_factory=dict)  # block -> drop, double, late; the first time it is sent
    deaf_to: frozenset[int] = frozenset()  # blocks whose first ACK gets lost
    requests_lost: int = 0
    window: int = 1  # blocks; at most what is asked for
    block: int = 1468  # bytes; at most what is asked for
    options: bool = True  # whether it knows of any
    claims: int | None = None  # bytes that it says the file has
    refuses_options: bool = False  # with error 8
    answer: bytes | None = None  # to every request, and nothing after
    error_at: int | None = None  # block
    silent_after: int | None = None  # block
    stranger: bool = False  # somebody else sends packets too
    times: int = 1_000_000  # transfers that have an error or silence


class LossyTftp:
    """Serves `body` under any name."""

    def __init__(self, body: bytes, trouble: Trouble) -> None:
        self._body = body
        self._trouble = trouble
        self._transfers = 0
        self._ended = Event()
        self._threads: list[Thread] = []
        self._errors: list[int] = []
        self._socket = _bound()
        self.requests: list[bytes] = []
        self.acks: list[int] = []
        self.resent_for_silence = 0
        self.on_silence: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"tftp://127.0.0.1:{self._socket.getsockname()[1]}/m"

    def error_from_client(self) -> int | None:
        """The code of the ERROR that the client has sent, or will soon."""
        for _ in range(200):
            if self._errors:
                return self._errors[0]
            time.sleep(0.01)
        return None

    def __enter__(self) -> Self:
        self._start(self._listen)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self._socket.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                packet, client = self._socket.recvfrom(2048)
                self.requests.append(packet)
                if len(self.requests) > self._trouble.requests_lost:
                    self._start(lambda client=client, packet=packet: self._serve(packet, client))  # type: ignore[misc]

    def _serve(self, request: bytes, client: tuple[str, int]) -> None:
        self._transfers += 1
        with _bound() as line:
            line.connect(client)
            with contextlib.suppress(ConnectionRefusedError):
                self._answer(request, line, troubled=self._transfers <= self._trouble.times)

    def _answer(self, request: bytes, line: socket.socket, *, troubled: bool) -> None:
        trouble = self._trouble
        fields = request[2:].split(b"\0")
        asked = {name.decode(): int(value) for name, value in zip(fields[2:-1:2], fields[3::2], strict=False)}
        if trouble.answer is not None:
            line.send(trouble.answer)
            self._listen_to(line)
        elif trouble.refuses_options and asked:
            line.send(struct.pack("!HH", ERROR, 8) + b"no\0")
        else:
            self._send_file(line, asked if trouble.options else {}, troubled=troubled)

    def _send_file(  # noqa: C901  what may happen to a packet, one after the other
        self, line: socket.socket, asked: Mapping[str, int], *, troubled: bool
    ) -> None:
        block, window = (
            min(self._trouble.block, asked.get("blksize", 512)),
            min(self._trouble.window, asked.get("windowsize", 1)),
        )
        blocks = [self._body[at : at + block] for at in range(0, len(self._body) + 1, block)]
        sent: Counter[int] = Counter()
        deaf = set(self._trouble.deaf_to)
        first = 0 if asked else 1  # 0 stands for the OACK
        silences = 0
        while first <= len(blocks) and silences < _GIVE_UP and not self._ended.is_set():
            last = 0 if first == 0 else min(first + window - 1, len(blocks))
            late = b""
            for number in range(first, last + 1):
                packet = struct.pack("!HH", DATA, number & 0xFFFF) + blocks[number - 1]
                if number == 0:
                    size = len(self._body) if self._trouble.claims is None else self._trouble.claims
                    packet = struct.pack("!H", OACK) + _options(blksize=block, windowsize=window, tsize=size)
                if troubled and number == self._trouble.silent_after:
                    self.on_silence()
                    self._ended.wait(20)
                    return
                if troubled and number == self._trouble.error_at:
                    line.send(struct.pack("!HH", ERROR, 0) + b"the disk is on fire\0")
                    return
                sent[number] += 1
                what = self._trouble.packets.get(number) if sent[number] == 1 else None
                if what == "late":
                    late = packet
                elif what != "drop":
                    line.send(packet)
                    line.send(packet) if what == "double" else None
                if number == 0 and self._trouble.stranger:
                    with _bound() as stranger:
                        stranger.sendto(struct.pack("!HH", DATA, 1) + bytes(block), line.getpeername())
            if late:
                line.send(late)
            acknowledged = self._acknowledged(line, deaf, at_least=first - 1)
            if acknowledged is None:
                silences += 1
                self.resent_for_silence += 1
            else:
                first, silences = acknowledged + 1, 0
                if self._errors:
                    return

    def _acknowledged(self, line: socket.socket, deaf: set[int], *, at_least: int) -> int | None:
        """The next ACK that is heard; None: nothing came. Those of before are the sender's to ignore (RFC 1123)."""
        line.settimeout(_RESEND)
        while True:
            try:
                kind, number = struct.unpack_from("!HH", line.recv(2048))
            except TimeoutError:
                return None
            except ConnectionRefusedError:  # the client is gone; its ERROR may still be in the queue
                continue
            if kind == ERROR:
                self._errors.append(number)
                return -1
            number = at_least + ((number - at_least + 0x8000) & 0xFFFF) - 0x8000  # beyond 16 bits
            self.acks.append(number)
            if number in deaf:
                deaf.discard(number)
            elif number >= at_least:
                return int(number)

    def _listen_to(self, line: socket.socket) -> None:
        """Take in the client's ERROR."""
        while not self._ended.is_set() and not self._errors:
            with contextlib.suppress(TimeoutError):
                kind, number = struct.unpack_from("!HH", line.recv(2048))
                if kind == ERROR:
                    self._errors.append(number)


def _options(**options: int) -> bytes:
    return "".join(f"{name}\0{value}\0" for name, value in options.items()).encode()


def _bound() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    bound.settimeout(0.05)
    return bound
