"""Asks whether a DHCP server answers on an interface: a second one gives nodes the wrong boot file, now and then.

A DISCOVER commits a server to nothing (RFC 2131, 3.1); the answer comes as a broadcast because its flag asks for that
(4.1). Some servers first look for seconds whether an address is in use: dnsmasq for three (PING_WAIT in its config.h).
"""

from __future__ import annotations

import secrets
import socket
import struct
import time

from pxe_pack.serve.interfaces import Interface

PATIENCE = 4.5  # seconds
_AGAIN = 1.5  # seconds between two questions
_REQUEST, _REPLY, _ETHERNET, _BROADCAST = 1, 2, 1, 0x8000
_COOKIE = bytes([99, 130, 83, 99])
_MESSAGE_TYPE, _SERVER, _END, _PAD = 53, 54, 255, 0
_DISCOVER, _OFFER = 1, 2
_HEADER = struct.Struct(">BBBBIHH4s4s4s4s16s192x4s")  # RFC 2131, figure 1, and the magic cookie


def find_server(interface: Interface) -> str | None:
    """The address of a DHCP server that answers on the interface; None if none does within PATIENCE.

    Raises OSError, PermissionError for a user who may not use DHCP's port.
    """
    number = secrets.randbits(32)
    question = _discover(number, bytes.fromhex(interface.mac.replace(":", "")))
    until, ask_at = time.monotonic() + PATIENCE, 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode())
        client.bind(("", 68))
        while (now := time.monotonic()) < until:
            if now >= ask_at:
                client.sendto(question, ("255.255.255.255", 67))
                ask_at = now + _AGAIN
            client.settimeout(max(0.01, min(ask_at, until) - now))
            try:
                data, sender = client.recvfrom(4096)
            except TimeoutError:
                continue
            if (server := _offered(data, number)) is not None:
                return server or str(sender[0])
    return None


def _discover(number: int, mac: bytes) -> bytes:
    zero = bytes(4)
    head = _HEADER.pack(
        _REQUEST, _ETHERNET, len(mac), 0, number, 0, _BROADCAST, zero, zero, zero, zero, mac.ljust(16, b"\0"), _COOKIE
    )
    return (head + bytes([_MESSAGE_TYPE, 1, _DISCOVER, _END])).ljust(300, b"\0")  # BOOTP's least size, RFC 1542 2.1


def _offered(data: bytes, number: int) -> str | None:
    """The server of an OFFER that answers question `number`, "" if it does not say; None if `data` is none."""
    if len(data) < _HEADER.size or data[0] != _REPLY or data[4:8] != struct.pack(">I", number):
        return None
    options = _options(data[_HEADER.size :])
    if options.get(_MESSAGE_TYPE) != bytes([_OFFER]) or data[16:20] == bytes(4):  # a proxy offers no address
        return None
    server = options.get(_SERVER, b"")
    return socket.inet_ntoa(server) if len(server) == 4 else ""  # noqa: PLR2004  an IPv4 address


def _options(data: bytes) -> dict[int, bytes]:
    """DHCP options (RFC 2132, 2); what is cut off is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(data):
            break
        size = data[at + 1]
        found[data[at]] = data[at + 2 : at + 2 + size]
        at += 2 + size
    return found
