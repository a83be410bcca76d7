"""What comes through TLS is taken as it comes, and what comes before the end of a connection is never lost with it."""

from __future__ import annotations

import random
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.transfers import PATIENT, Bench
from pxe_fetch.contract.model import Tls
from pxe_fetch.errors import RefusedError

BODY = random.Random(8).randbytes(700_000)
CUT = 300_000

End = Callable[[ssl.SSLSocket], None]


def close_without_a_word(connection: ssl.SSLSocket) -> None:
    """TCP ends without TLS's close_notify."""
    connection.shutdown(socket.SHUT_WR)


def spoil(connection: ssl.SSLSocket) -> None:
    """What is no record of TLS."""
    raw = socket.socket(fileno=socket.dup(connection.fileno()))
    with raw:
        raw.sendall(b"\x17\x03\x03\x40\x00" + bytes(0x4000))


@contextmanager
def server(context: ssl.SSLContext, *, end: End) -> Iterator[str]:
    """Breaks off the first answer after CUT bytes; the second is whole. Gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for broken in (True, False):
                connection = context.wrap_socket(listener.accept()[0], server_side=True)
                request = connection.recv(65536).decode()
                found = re.search(r"Range: bytes=(\d+)-", request)
                start = int(found[1]) if found else 0
                status = f"206 P\r\nContent-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}" if start else "200 OK"
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(BODY) - start}\r\n\r\n".encode())
                connection.sendall(BODY[start:CUT] if broken else BODY[start:])
                if broken:
                    end(connection)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/m.bin"
        thread.join()


@pytest.mark.parametrize("end", [close_without_a_word, spoil])
def test_bytes_that_came_before_a_broken_end_are_kept(end: End, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("localhost", alternative="IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    with server(context, end=end) as url:
        bench = Bench(
            body=BODY, folder=tmp_path / "to", urls=[url], tls=Tls(ca_file=str(authority.certificate)), timeouts=PATIENT
        )
        received = bench.download()
    assert (received.attempts, received.bytes_received) == (2, len(BODY))
    (resumed,) = bench.events.of("resumed")
    assert resumed["offset"] == CUT


@contextmanager
def strict(authority: Authority, *, version: ssl.TLSVersion) -> Iterator[str]:
    """A server that wants a client certificate of `authority`. Gives its URL."""
    issued = authority.issue("localhost", alternative="IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/m.bin"
        thread.join()


@pytest.mark.parametrize("shown", ["none", "a stranger's", "ours"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_that_is_wanted_is_asked_for_by_its_keys(
    version: ssl.TLSVersion, shown: str, tmp_path: Path
) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger")
    issuer = {"a stranger's": stranger, "ours": authority}.get(shown)
    issued = issuer.issue("node") if issuer else None
    tls = Tls(
        ca_file=str(authority.certificate),
        client_cert=str(issued.certificate) if issued else None,
        client_key=str(issued.key) if issued else None,
    )
    with strict(authority, version=version) as url:
        bench = Bench(body=BODY, folder=tmp_path / "to", urls=[url], tls=tls, timeouts=PATIENT)
        if shown == "ours":
            assert bench.download().attempts == 1
        else:
            with pytest.raises(RefusedError, match=r"wants a client certificate.*\(tls.client_cert, tls.client_key\)"):
                bench.download()
