"""A firmware that asks by DHCPv6 which file to boot: `python -m fakes.dhcpv6 INTERFACE ARCHITECTURE [USER_CLASS]`.

It prints the URL that it is told, and the vendor class. Source: RFC 8415 (messages, options 1, 3, 6, 15, 16), RFC 5970
(options 59 and 61).
"""

from __future__ import annotations

import socket
import struct
import sys
import time

_SERVERS, _CLIENT_PORT, _SERVER_PORT = "ff02::1:2", 546, 547
_SOLICIT, _ADVERTISE = 1, 2
_DUID = bytes.fromhex("000300010252540012ab")
_PATIENCE = 10  # seconds


def _option(code: int, data: bytes) -> bytes:
    return struct.pack(">HH", code, len(data)) + data


def _options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, size = struct.unpack_from(">HH", data)
        found[code], data = data[4 : 4 + size], data[4 + size :]
    return found


def asked(interface: str, architecture: int, user_class: str) -> dict[int, bytes]:
    """The options of the server's offer. Raises TimeoutError."""
    message = bytes([_SOLICIT, 0, 0, 1]) + _option(1, _DUID) + _option(3, struct.pack(">III", 1, 0, 0))
    message += _option(6, struct.pack(">HH", 59, 16)) + _option(61, struct.pack(">H", architecture))
    if user_class:
        message += _option(15, struct.pack(">H", len(user_class)) + user_class.encode())
    index = socket.if_nametoindex(interface)
    end = time.monotonic() + _PATIENCE
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        while time.monotonic() < end:
            try:
                # the link-local address has to pass duplicate address detection first
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if client.getsockname()[1] != _CLIENT_PORT:
                    client.bind(("::", _CLIENT_PORT))
                client.sendto(message, (_SERVERS, _SERVER_PORT, 0, index))
                reply = client.recv(2048)
            except OSError:
                time.sleep(0.2)
                continue
            if reply[0] == _ADVERTISE:
                return _options(reply[4:])
    raise TimeoutError


if __name__ == "__main__":
    offered = asked(sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:]))
    print(offered.get(59, b"").decode(), offered.get(16, b"")[6:].decode())
