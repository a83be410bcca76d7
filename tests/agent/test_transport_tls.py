"""What comes through TLS is taken as it comes, and what comes before the end of a connection is never lost with it."""

from __future__ import annotations

import itertools
import random
import re
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.transfers import PATIENT, Bench
from pxe_fetch.contract.model import Tls
from pxe_fetch.errors import RefusedError, TrustError

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
def served(listener: socket.socket, serve: Callable[[], None]) -> Iterator[str]:
    """Run `serve`, which ends with the listener, in a thread. Gives the URL of the file."""
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/m.bin"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


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
            while True:
                try:
                    accepted = listener.accept()[0]
                except OSError:
                    return
                with suppress(OSError), context.wrap_socket(accepted, server_side=True) as connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)

        with served(listener, serve) as url:
            yield url


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


@pytest.mark.parametrize("kind", ["encrypted", "another's", "no key"])
def test_a_client_key_that_cannot_be_used_is_named_with_the_reason(kind: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued, other = authority.issue("node"), authority.issue("other")
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "pkey", "-in", issued.key, "-aes256", "-passout", "pass:secret", "-out", encrypted], check=True
    )
    key, said = {
        "encrypted": (encrypted, r"tls\.client_cert is encrypted.*: decrypt it"),
        "another's": (other.key, rf"with the key {other.key} cannot be used: .*key values mismatch"),
        "no key": (issued.certificate, rf"with the key {issued.certificate} cannot be used: there is no PEM in it"),
    }[kind]
    tls = Tls(ca_file=str(authority.certificate), client_cert=str(issued.certificate), client_key=str(key))
    with strict(authority, version=ssl.TLSVersion.TLSv1_3) as url, pytest.raises(TrustError, match=said):
        Bench(body=BODY, folder=tmp_path / "to", urls=[url], tls=tls, timeouts=PATIENT).download()


# Fatal alerts of TLS (RFC 8446, 6): each in a record of its own, not encrypted, so that anybody can send one.
ALERTS = {
    "unexpected_message": 10,
    "handshake_failure": 40,
    "bad_certificate": 42,
    "unknown_ca": 48,
    "access_denied": 49,
    "protocol_version": 70,
    "internal_error": 80,
    "certificate_required": 116,
}


@contextmanager
def meddling(context: ssl.SSLContext, *, alert: int | None, at: Collection[int]) -> Iterator[str]:
    """Somebody on the way to a server answers connections `at` (from 0) with `alert`, or None: a reset. Gives its URL.

    Each of the other connections brings 100,000 bytes more.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for number in itertools.count():
                try:
                    accepted = listener.accept()[0]
                except OSError:
                    return
                if number in at:
                    accepted.recv(65536)
                    if alert is None:
                        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    else:
                        accepted.sendall(bytes((21, 3, 3, 0, 2, 2, alert)))
                    accepted.close()
                    continue
                with suppress(OSError), context.wrap_socket(accepted, server_side=True) as connection:
                    found = re.search(r"Range: bytes=(\d+)-", connection.recv(65536).decode())
                    start = int(found[1]) if found else 0
                    status = f"206 P\r\nContent-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}" if start else "200 OK"
                    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(BODY) - start}\r\n\r\n"
                    connection.sendall(head.encode() + BODY[start : start + 100_000])

        with served(listener, serve) as url:
            yield url


@pytest.mark.parametrize("alert", [*ALERTS.values(), None], ids=[*ALERTS, "reset"])
def test_an_alert_or_a_reset_now_and_then_does_not_drop_the_only_mirror(
    alert: int | None, authority: Authority, localhost: ssl.SSLContext, tmp_path: Path
) -> None:
    tls = Tls(ca_file=str(authority.certificate))
    with meddling(localhost, alert=alert, at=(0, 2, 3, 5, 7)) as url:
        urls = [url.replace("127.0.0.1", "localhost")]
        bench = Bench(body=BODY, folder=tmp_path / "to", urls=urls, tls=tls, timeouts=PATIENT)
        received = bench.download()
    assert (received.attempts, received.bytes_received) == (5 + 7, len(BODY))
    assert not bench.events.of("mirror_dropped")


@pytest.mark.parametrize("alert", [ALERTS["handshake_failure"], ALERTS["protocol_version"]])
def test_a_server_that_answers_with_alerts_alone_is_given_up_soon(
    alert: int, authority: Authority, localhost: ssl.SSLContext, tmp_path: Path
) -> None:
    tls = Tls(ca_file=str(authority.certificate))
    with meddling(localhost, alert=alert, at=range(99)) as url:
        bench = Bench(body=BODY, folder=tmp_path / "to", urls=[url], tls=tls, timeouts=PATIENT)
        with pytest.raises((RefusedError, TrustError)) as caught:
            bench.download()
    assert caught.value.attempts == 3
