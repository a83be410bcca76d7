"""What a server can do to a request. `at` is an offset in the whole file, as content.Content.offset takes it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fakes.content import Content
from fakes.exchange import Exchange, Fault

FOREVER = 3600.0  # seconds; longer than any test
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, kw_only=True)
class Serve:
    """A proper answer, with ranges; each knob makes it a little less proper."""

    etag: str | None = "strong"  # "strong", "weak", None, or the field as it is
    ranges: bool = True  # False: every answer is a 200 with everything
    heeds_if_range: bool = True
    shift: int = 0  # a range begins so many bytes later than asked for, and says so
    short: int = 0  # a range ends so many bytes before the end, and says so
    framing: str = "length"  # "length", "chunked" or "close" (the end of the connection is the end of the body)
    until: float | None = None  # stop sending there
    then: str = "close"  # what happens there: "close", "reset", "stall"
    drip: float = 0.0  # seconds between two bytes, from `until` on
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of the script's

    def answer(self, exchange: Exchange) -> None:
        content = exchange.content if self.body is None else Content(self.body)
        etag = {"strong": content.etag, "weak": f"W/{content.etag}", None: None}.get(self.etag, self.etag)
        start, end = self._wanted(exchange, content, etag)
        if start is None:
            exchange.head(416, {"Content-Range": f"bytes */{content.size}", "Content-Length": 0, "ETag": etag})
            return
        if start > 0:
            start, end = start + self.shift, end - self.short
        partial = start > 0 or end < content.size
        fields: dict[str, str | int | None] = {
            "ETag": etag,
            "Accept-Ranges": "bytes" if self.ranges else None,
            "Content-Range": f"bytes {start}-{end - 1}/{content.size}" if partial else None,
            "Content-Length": end - start if self.framing == "length" else None,
            "Transfer-Encoding": "chunked" if self.framing == "chunked" else None,
            "Connection": "close" if self.framing == "close" else None,
        }
        exchange.head(206 if partial else 200, self.header(fields, content, start=start, end=end) | dict(self.fields))
        self._send(exchange, content, start, end)

    def header(
        self, fields: dict[str, str | int | None], _content: Content, *, start: int, end: int
    ) -> dict[str, str | int | None]:
        """The header to send for the bytes `start` up to `end`; subclasses lie here."""
        del start, end
        return fields

    def _wanted(self, exchange: Exchange, content: Content, etag: str | None) -> tuple[int | None, int]:
        """Start and end of what is asked for; a start of None is a range that there is not."""
        match = _RANGE.fullmatch(exchange.asked.range or "")
        changed = exchange.asked.if_range not in {None, etag}
        if not match or not self.ranges or (changed and self.heeds_if_range):
            return 0, content.size
        first, last = match.groups()
        if not first:
            return max(0, content.size - int(last)), content.size
        if int(first) >= content.size:
            return None, 0
        return int(first), min(int(last) + 1 if last else content.size, content.size)

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        stop = end if self.until is None else max(start, min(end, content.offset(self.until)))
        for at in range(start, stop, exchange.piece):
            self._piece(exchange, content.read(at, min(at + exchange.piece, stop)), at=at)
        if self.until is None:
            if self.framing == "chunked":
                exchange.send(b"0\r\n\r\n")
            exchange.keep &= self.framing != "close"
            return
        for at in range(stop, end if self.drip else stop):
            exchange.wait(self.drip)
            self._piece(exchange, content.read(at, at + 1), at=at)
        exchange.keep = False
        match self.then:
            case "reset":
                exchange.reset()
            case "stall":
                exchange.wait(FOREVER)

    def _piece(self, exchange: Exchange, data: bytes, *, at: int) -> None:
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else None
        exchange.send_body(data, at=at, framed=framed)


def cut(at: float, *, framing: str = "length") -> Serve:
    """The connection ends in the middle of the body."""
    return Serve(until=at, framing=framing)


def reset(at: float) -> Serve:
    """The connection is reset in the middle of the body."""
    return Serve(until=at, then="reset")


def stall(at: float) -> Serve:
    """No more bytes, but the connection stays."""
    return Serve(until=at, then="stall")


def drip(at: float, *, every: float) -> Serve:
    """One byte `every` so many seconds from there on."""
    return Serve(until=at, drip=every)


@dataclass(frozen=True)
class Status:
    """An answer without the file."""

    code: int
    fields: Mapping[str, str] = field(default_factory=dict)
    text: bytes = b"not today\n"

    def answer(self, exchange: Exchange) -> None:
        text = b"" if self.code in {204, 304} else self.text
        exchange.head(self.code, {"Content-Length": len(text)} | dict(self.fields))
        if exchange.asked.method != "HEAD":  # RFC 9110, 9.3.2: it would be taken for the next answer
            exchange.send(text)


def unavailable(retry_after: str | None = None) -> Status:
    """503, perhaps saying when to come again."""
    return Status(503, {"Retry-After": retry_after} if retry_after else {})


def redirect(to: str, *, code: int = 302) -> Status:
    """Somewhere else."""
    return Status(code, {"Location": to})


@dataclass(frozen=True, kw_only=True)
class Demand:
    """401 for a request without the header field."""

    name: str
    value: str

    def answer(self, exchange: Exchange) -> None:
        given = exchange.asked.fields.get(self.name.lower())
        (Serve() if given == self.value else Status(401)).answer(exchange)


@dataclass(frozen=True)
class ToItself:
    """A redirect to the very same place."""

    code: int = 301

    def answer(self, exchange: Exchange) -> None:
        redirect(exchange.asked.path, code=self.code).answer(exchange)


@dataclass(frozen=True)
class Raw:
    """Exactly these bytes, then the end of the connection."""

    data: bytes

    def answer(self, exchange: Exchange) -> None:
        exchange.send(self.data)
        exchange.keep = False


@dataclass(frozen=True)
class Hang:
    """No answer at all, or one byte of it `every` so many seconds."""

    every: float = 0.0
    data: bytes = b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000

    def answer(self, exchange: Exchange) -> None:
        exchange.keep = False
        if not self.every:
            exchange.wait(FOREVER)
        for at in range(len(self.data)):
            exchange.wait(self.every)
            exchange.send(self.data[at : at + 1])


@dataclass(frozen=True)
class Later:
    """The same answer, `seconds` later."""

    fault: Fault
    seconds: float

    def answer(self, exchange: Exchange) -> None:
        exchange.wait(self.seconds)
        self.fault.answer(exchange)


@dataclass(frozen=True, kw_only=True)
class WrongRange(Serve):
    """A 206 whose Content-Range is off by so many bytes, or missing; a proper 200 where no range is asked for."""

    first: int = 0
    last: int = 0
    whole: int = 0
    missing: bool = False

    def header(
        self, fields: dict[str, str | int | None], content: Content, *, start: int, end: int
    ) -> dict[str, str | int | None]:
        if fields["Content-Range"] is None:
            return fields
        text = f"bytes {start + self.first}-{end - 1 + self.last}/{content.size + self.whole}"
        return fields | {"Content-Range": None if self.missing else text}


@dataclass(frozen=True, kw_only=True)
class Longer:
    """All of the file and `extra`, whatever is asked for, in a body whose length is not declared."""

    extra: bytes

    def answer(self, exchange: Exchange) -> None:
        content = exchange.content
        Serve(body=content.read(0, content.size) + self.extra, framing="chunked", ranges=False).answer(exchange)


@dataclass(frozen=True, kw_only=True)
class Another:
    """Another file of the same size, served properly."""

    etag: str = "strong"

    def answer(self, exchange: Exchange) -> None:
        Serve(etag=self.etag, body=bytes(exchange.content.size)).answer(exchange)


@dataclass(frozen=True)
class RefusesRanges:
    """The status `code` to each range, a proper answer where everything is asked for."""

    code: int

    def answer(self, exchange: Exchange) -> None:
        (Status(self.code) if exchange.asked.range else Serve()).answer(exchange)


@dataclass(frozen=True)
class BreaksRanges:
    """`fault` happens to each range; a proper answer where everything is asked for."""

    fault: Fault

    def answer(self, exchange: Exchange) -> None:
        (self.fault if exchange.asked.range else Serve()).answer(exchange)


@dataclass(frozen=True, kw_only=True)
class NoSuchRange:
    """416 to each range, a proper answer where everything is asked for; `tells` the size of the file with it."""

    tells: bool = False

    def answer(self, exchange: Exchange) -> None:
        fields = {"Content-Range": f"bytes */{exchange.content.size}"} if self.tells else {}
        (Status(416, fields) if exchange.asked.range else Serve()).answer(exchange)


@dataclass(frozen=True, kw_only=True)
class Flip:
    """One byte wrong, everything else proper."""

    at: float = 0.5
    framing: str = "length"

    def answer(self, exchange: Exchange) -> None:
        content = exchange.content
        body = bytearray(content.read(0, content.size))
        body[content.offset(self.at)] ^= 0xFF
        Serve(body=bytes(body), etag=content.etag, framing=self.framing).answer(exchange)


@dataclass(frozen=True, kw_only=True)
class Gzipped:
    """Compressed, though nobody asked for it."""

    def answer(self, exchange: Exchange) -> None:
        content = exchange.content
        body = gzip.compress(content.read(0, content.size), 1)
        Serve(body=body, etag="weak", ranges=False, fields={"Content-Encoding": "gzip"}).answer(exchange)


@dataclass(frozen=True, kw_only=True)
class Declares(Serve):
    """A Content-Length that is `more` bytes off; `extra` is sent after the body."""

    more: int = 0
    extra: bytes = b""

    def header(
        self, fields: dict[str, str | int | None], _content: Content, *, start: int, end: int
    ) -> dict[str, str | int | None]:
        return fields | {"Content-Length": end - start + self.more}

    def answer(self, exchange: Exchange) -> None:
        exchange.asked.wrong |= self.more < 0  # its end
        super().answer(exchange)
        exchange.send(self.extra)
        exchange.keep = False
