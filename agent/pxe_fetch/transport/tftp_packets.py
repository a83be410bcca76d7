"""TFTP's packets: RFC 1350, with the options of RFC 2347 (blksize 2348, tsize and timeout 2349, windowsize 7440)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

RRQ, DATA, ACK, ERROR, OACK = 1, 3, 4, 5, 6
HEADER = 4  # bytes before a block
PLAIN_BLOCK = 512  # bytes of a block when nothing else was agreed upon
LONGEST_REQUEST = 512  # bytes of a request, options included (RFC 2347)
UNDEFINED, NOT_FOUND, ACCESS, OPTIONS_REFUSED = 0, 1, 2, 8  # error codes
_SMALLEST_BLOCK = 8  # RFC 2348
_DIGITS = 19  # of a number that fits into 64 bits


def read_request(path: bytes, options: Mapping[str, int]) -> bytes:
    """RRQ, in binary mode."""
    pairs = [f"{name}\0{value}\0".encode("ascii") for name, value in options.items()]
    return struct.pack("!H", RRQ) + path + b"\0octet\0" + b"".join(pairs)


def ack(block: int) -> bytes:
    """ACK of `block`, whose number may be beyond 16 bits: it goes on from 0 then, as servers have it."""
    return struct.pack("!HH", ACK, block & 0xFFFF)


def error(code: int, message: str) -> bytes:
    """ERROR."""
    return struct.pack("!HH", ERROR, code) + message.encode("ascii") + b"\0"


def opcode_and_number(packet: bytes | memoryview) -> tuple[int, int]:
    """The opcode of a packet, and of DATA, ACK, ERROR the number after it. (0, 0): too short for any."""
    kind, number = struct.unpack_from("!HH", packet) if len(packet) >= HEADER else (0, 0)
    return kind, number


def text(message: bytes | memoryview) -> str:
    """What the message of an ERROR says."""
    return bytes(message).partition(b"\0")[0].decode("utf-8", "replace")


def agreed(packet: bytes, *, asked: Mapping[str, int]) -> dict[str, int] | None:
    """The options of an OACK, by name; None where it isn't well-formed, or has what a server may not answer.

    Block and window are at most as `asked`, the timeout is just so.
    """
    fields = packet[2:].split(b"\0")
    if fields.pop() or len(fields) % 2:
        return None
    found: dict[str, int] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        key = name.decode("ascii", "replace").lower()
        if key not in asked or key in found or not value.isdigit() or len(value) > _DIGITS:
            return None
        number = found[key] = int(value)
        least = {"blksize": _SMALLEST_BLOCK, "timeout": asked[key]}.get(key, 1)
        if key != "tsize" and not least <= number <= asked[key]:
            return None
    return found
