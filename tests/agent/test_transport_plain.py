"""Answers as plain as can be are read at a glance, all others by http.client: nobody can tell which it was."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxe_fetch.transport import plain

PLAIN = b'HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 5\r\nETag: "a"\r\n\r\n'


def test_plain_header_is_read_with_what_follows_left_alone() -> None:
    answer = plain.header(PLAIN + b"hello")
    assert answer == (len(PLAIN), 200, 5, {"server": "nginx", "content-length": "5", "etag": '"a"'})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"200", b"301"),
        PLAIN.replace(b"200", b"100"),
        PLAIN.replace(b"Content-Length: 5\r\n", b""),
        PLAIN.replace(b": 5", b": 5, 5"),
        PLAIN.replace(b": 5", b": -5"),
        PLAIN.replace(b": 5", b": +5"),
        PLAIN.replace(b": 5", b": 5\x00"),
        PLAIN.replace(b": 5", b": 1234567890123456789"),
        PLAIN.replace(b"Server", b"Content-Length"),
        PLAIN.replace(b"Server", b"content-length"),
        PLAIN.replace(b"Server: nginx", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"Server: nginx", b"Connection: close"),
        PLAIN.replace(b"Server: nginx", b"Connection: keep-alive, close"),
        PLAIN.replace(b"Server: nginx", b"Server: nginx\r\n folded"),
        PLAIN.replace(b"Server: nginx", b"Server : nginx"),
        PLAIN.replace(b"Server: nginx", b"Server: ng\ninx"),
        PLAIN.replace(b"Server: nginx", b"Server: ng\rinx"),
        PLAIN.replace(b"Server: nginx", b"no field"),
        PLAIN.replace(b"Server: nginx", b"Server: \xff"),
        PLAIN.replace(b"Server: nginx", b"".join(b"X%d: \r\n" % number for number in range(70)) + b"X: "),
        PLAIN.replace(b"\r\n", b"\n"),
    ],
)
def test_anything_else_is_left_to_http_client(data: bytes) -> None:
    assert plain.header(data) is None


FIELDS = st.sampled_from(
    [b"Content-Length", b"content-length", b"ETag", b"Connection", b"Transfer-Encoding", b"X-a", b"Date", b"", b" a"]
)
VALUES = st.one_of(
    st.sampled_from([b"5", b"0", b"7 ", b"close", b"keep-alive", b"chunked", b"05"]), st.binary(max_size=9)
)
LINES = st.lists(st.tuples(FIELDS, st.sampled_from([b":", b": ", b":\t", b" :"]), VALUES), max_size=5)
STATUS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 206 ", b"HTTP/1.1 200", b"HTTP/1.1  200 OK", b"HTTP/1.1 404 No"]
)


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))


@given(status=STATUS, lines=LINES)
def test_what_is_read_at_a_glance_is_what_http_client_reads(status: bytes, lines: list[tuple[bytes, ...]]) -> None:
    data = b"\r\n".join([status, *(b"".join(line) for line in lines), b"", b""])
    answer = plain.header(data)
    if answer is None:
        return
    response = http.client.HTTPResponse(_Socket(data), method="GET")  # type: ignore[arg-type]
    response.begin()
    assert (answer.status, answer.length) == (response.status, response.length)
    assert answer.fields == {name.lower(): value for name, value in response.headers.items()}
    assert not response.chunked
    assert not response.will_close
    assert answer.size == len(data)
