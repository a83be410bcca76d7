"""POSIX attributes of an ISO 9660 directory record: the Rock Ridge entries in its system use field (IEEE P1282)."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from pxe_pack.image.limits import Limit, Usage

_ROOT, _PARENT, _CURRENT, _CONTINUES = 0x08, 0x04, 0x02, 0x01  # component flags of SL, flags of NM


class SystemUseError(Exception):
    """A damaged system use field; the text says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes:
    """The Rock Ridge attributes of a record; missing ones are empty, zero or None."""

    name: str = ""
    mode: int = 0  # st_mode
    uid: int = 0
    gid: int = 0
    target: str = ""
    child: int | None = None  # CL: the sector of the directory that was relocated from here
    relocated: bool = False  # RE: relocated to here from elsewhere
    compressed: bool = False  # ZF: zisofs
    extended: bool = False  # ER, in a root's record: it names the extension; by it Linux recognises Rock Ridge


def read_attributes(area: bytes, read: Callable[[int, int, int], bytes]) -> Attributes:
    """The attributes in a system use field; `read(sector, offset, size)` reads continuation areas.

    Raises SystemUseError, and LimitError where the areas are too many, as in a loop.
    """
    found = Attributes()
    name, link = b"", _Link()
    areas = Usage(Limit.ISO_AREAS)
    while True:
        areas.add()
        following: tuple[int, int, int] | None = None
        for signature, body in _entries(area):
            found = _noted(found, signature, body)
            if signature == b"NM":
                # "." and ".." are flags without a name
                name += body[1:] if not body[0] & (_CURRENT | _PARENT) else b""
            elif signature == b"SL":
                link.add(body[1:])
            elif signature == b"CE":
                sector, offset, size = struct.unpack_from("<I4xI4xI", body)
                following = (sector, offset, size)
        if following is None:
            target = link.text() if stat.S_ISLNK(found.mode) else ""
            return replace(found, name=os.fsdecode(name), target=target)
        area = read(*following)


def _noted(found: Attributes, signature: bytes, body: bytes) -> Attributes:
    if signature == b"PX":
        mode, uid, gid = struct.unpack_from("<I12xI4xI4x", body)
        return replace(found, mode=mode, uid=uid, gid=gid)
    if signature == b"CL":
        return replace(found, child=int(struct.unpack_from("<I", body)[0]))
    if signature == b"RE":
        return replace(found, relocated=True)
    if signature == b"ER":
        return replace(found, extended=True)
    if signature == b"ZF":
        return replace(found, compressed=True)
    return found


def _entries(area: bytes) -> list[tuple[bytes, bytes]]:
    entries = []
    at = 0
    while at + 4 <= len(area):
        length = area[at + 2]
        # P1281 5.4: ST ends the field; anything too short for an entry is padding
        if area[at] == 0 or length < 4 or area[at : at + 2] == b"ST":  # noqa: PLR2004
            break
        body = area[at + 4 : at + length]
        least = {b"NM": 1, b"PX": 32, b"SL": 1, b"CL": 8, b"CE": 24}.get(area[at : at + 2], 0)
        if len(body) < least:
            raise SystemUseError("the attributes of a file are damaged")
        entries.append((area[at : at + 2], body))
        at += length
    return entries


class _Link:
    """A symlink's target, assembled from its components (P1282 4.1.3)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._open = False  # the last component continues in the next record

    def add(self, components: bytes) -> None:
        at = 0
        while at + 2 <= len(components):
            flags, length = components[at], components[at + 1]
            text = components[at + 2 : at + 2 + length]
            if flags & _ROOT:
                text = b""
            elif flags & _PARENT:
                text = b".."
            elif flags & _CURRENT:
                text = b"."
            if self._open:
                self._parts[-1] += text
            else:
                self._parts.append(text)
            self._open = bool(flags & _CONTINUES)
            at += 2 + length

    def text(self) -> str:
        if self._parts == [b""]:
            return "/"
        return os.fsdecode(b"/".join(self._parts))
