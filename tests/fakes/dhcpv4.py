"""A firmware that asks by DHCP which file to boot: `python -m fakes.dhcpv4 INTERFACE ARCHITECTURE [USER_CLASS]`.

It prints a line for each offer that comes within half a second after the first: the address that it is given, the next
server, the boot file, and the vendor class; `-` for what is not said. A PXE server that offers no file is asked for it
at port 4011, as firmware does. Source: RFC 2131, RFC 2132 (options 54, 60, 67),
RFC 3004 (77), RFC 4578 (93, 97), PXE 2.1 (port 4011), https://ipxe.org/howto/dhcpd (175).
"""

from __future__ import annotations

import secrets
import socket
import struct
import sys
import time

_ADDRESS = socket.inet_aton("10.0.0.50")  # of a client that has one, from another server
_MAC = bytes.fromhex("5254001234ab")
_PATIENCE, _MORE = 12, 0.5  # seconds
_PROXY_PORT = 4011
_COOKIE = bytes([99, 130, 83, 99])


def _option(code: int, data: bytes) -> bytes:
    return bytes([code, len(data)]) + data


def _options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data and data[0] != 255:
        if data[0] == 0:
            data = data[1:]
            continue
        size = data[1]
        found[data[0]], data = data[2 : 2 + size], data[2 + size :]
    return found


def question(number: int, architecture: int, user_class: str, *, kind: int = 1) -> bytes:
    """A DISCOVER, of PXE firmware or, by its architecture (16), of UEFI HTTP boot; or of iPXE by its user class."""
    own = _ADDRESS if kind != 1 else bytes(4)
    head = struct.pack(">BBBBIHH4s12s16s192x4s", 1, 1, 6, 0, number, 0, 0x8000, own, b"", _MAC, _COOKIE)
    client = "HTTPClient" if architecture in (16, 19) else "PXEClient"
    options = _option(53, bytes([kind])) + _option(60, f"{client}:Arch:{architecture:05}:UNDI:003000".encode())
    options += _option(93, struct.pack(">H", architecture)) + _option(97, b"\0" + bytes(range(16)))
    options += _option(55, bytes([1, 3, 43, 54, 60, 66, 67]))
    if user_class:
        options += _option(77, user_class.encode()) + _option(175, _option(1, b"\0"))
    return head + options + b"\xff"


def offers(interface: str, architecture: int, user_class: str = "") -> list[str]:
    """A line for each offer."""
    number = secrets.randbits(32)
    found: list[str] = []
    end = time.monotonic() + _PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for option in (socket.SO_REUSEADDR, socket.SO_BROADCAST):
            client.setsockopt(socket.SOL_SOCKET, option, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.bind(("", 68))
        client.settimeout(0.5)
        asked_at = 0.0
        while time.monotonic() < end:
            if not found and time.monotonic() > asked_at + 1:
                client.sendto(question(number, architecture, user_class), ("255.255.255.255", 67))
                asked_at = time.monotonic()
            try:
                reply = client.recv(4096)
            except TimeoutError:
                continue
            if reply[4:8] != struct.pack(">I", number):
                continue
            line = _shown(reply)
            if line.endswith(" - PXEClient"):
                client.sendto(question(number, architecture, user_class, kind=3), (line.split()[1], _PROXY_PORT))
                continue
            end = min(end, time.monotonic() + _MORE)
            found += [] if line in found else [line]
    return found


def _shown(reply: bytes) -> str:
    options = _options(reply[240:])
    file = options.get(67) or reply[108:236]
    own, following = (socket.inet_ntoa(reply[at : at + 4]) for at in (16, 20))
    said = [own, following, file.rstrip(b"\0").decode(), options.get(60, b"").decode()]
    return " ".join(one if one and one != "0.0.0.0" else "-" for one in said)  # noqa: S104  no address


if __name__ == "__main__":
    print("\n".join(offers(sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:]))))
