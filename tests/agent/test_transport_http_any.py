"""Answers that no server should give: each is a body that begins where it says, or an error with a cause."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fakes.faults import Raw
from fakes.server import Script, Server
from pxe_fetch.contract.model import Timeouts
from pxe_fetch.deadline import Clock, Deadline
from pxe_fetch.errors import FetchError
from pxe_fetch.transport import Request, Transports

TIMEOUTS = Timeouts(connect=5.0, read=5.0)
ANY = st.binary(max_size=60)
numbers = (
    st.sampled_from([b"0", b"5", b"-1", b"+5", b" 5", b"5 ", b"0x5", b"5, 5", b"5,6", b"9" * 25, b"", b"\xb2"]) | ANY
)
values = st.one_of(
    numbers,
    st.sampled_from([b"bytes 5-9/10", b"bytes 5-9/*", b"bytes */5", b"bytes 9-5/10", b"chunked", b"gzip, chunked"]),
    st.sampled_from(
        [b'"a"', b'W/"a"', b"close", b"http://[::1", b"//", b"/x", b"?", b"https://127.0.0.1:9/\xe9", b"120"]
    ),
)
names = st.sampled_from(
    [
        *(b"Content-Length", b"Content-Range", b"Transfer-Encoding", b"Location", b"ETag", b"Retry-After", b"Date"),
        *(b"Connection", b"Content-Encoding", b"X", b"", b" Content-Length", b"Content-Length ", b"content-length"),
    ]
)
fields = st.one_of(st.tuples(names, st.sampled_from([b": ", b":", b" : ", b""]), values).map(b"".join), ANY)
ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\0\r\n", b"\r\n "])
codes = st.sampled_from(
    [b"200", b"206", b"416", b"302", b"503", b"404", b"100", b"101", b"204", b"000", b"20", b"2000"]
)
firsts = st.one_of(
    codes.map(b"HTTP/1.1 ".__add__),
    codes.map(lambda code: b"HTTP/1.0 " + code + b" OK"),
    st.sampled_from(
        [b"HTTP/2 200", b"HTTP/1.1", b"ICY 200 OK", b"HTTP/1.1 -200 OK", b"http/1.1 200 OK", b"HTTP/1.1\t200"]
    ),
    ANY,
)
bodies = st.one_of(
    ANY,
    st.sampled_from(
        [b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n", b"-5\r\nhello", b"0x5\r\nhello\r\n"]
    ),
    st.sampled_from(
        [b"5\r\nhelloXX0\r\n\r\n", b"fffffffffffffffffff\r\nx", b"5_0\r\nhello", b"\r\n", b"5\nhello\n0\n\n"]
    ),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A header, line by line more or less as it should be, and what follows it."""
    lines = [draw(firsts), *draw(st.lists(fields, max_size=5))]
    head = b"".join(line + draw(ends) for line in lines)
    return head + draw(ends) + draw(bodies)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers() | st.binary(max_size=300), st.sampled_from([(0, None), (5, None), (5, 10), (0, 10)]))
@example(b"HTTP/1.1 100 Continue\r\n\r\n" * 200 + b"HTTP/1.1 200 OK\r\n\r\n", (0, None))
@example(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", (0, None))
@example(b"HTTP/1.1 206 X\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nhelloXXXX", (5, 10))
def test_no_answer_brings_anything_but_a_body_or_a_cause(
    server: Server, answer: bytes, wanted: tuple[int, int | None]
) -> None:
    offset, end = wanted
    server.scripts["/m"] = Script(then=Raw(answer))
    server.scripts["/x"] = Script(body=b"elsewhere!")
    transports = Transports()
    deadline = Deadline(clock=Clock(), stop=Event(), at=float("inf"))
    url = server.url("/m")
    cause = None
    try:
        body = transports.of(url).open(
            Request(url=url, offset=offset, end=end, timeouts=TIMEOUTS, deadline=deadline, validator=None)
        )
        assert body.start in {0, offset}
        assert body.total is None or body.total >= 0
        view = memoryview(bytearray(64))
        came = 0
        while count := body.readinto(view):
            came += count
        assert came <= len(answer)
        body.close()
    except FetchError as error:
        cause = error
    finally:
        transports.close()
    assert type(cause) is not FetchError
    assert str(cause).isprintable()
