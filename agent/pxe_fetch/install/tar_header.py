"""The headers of tar members, looked at before tarfile believes them."""

from __future__ import annotations

import tarfile
from typing import Self

LONGEST = 1024 * 1024  # bytes of a name, or of the fields of one member; tarfile reads them at once
_EXTENDED = frozenset(
    (
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    )
)


class Member(tarfile.TarInfo):
    """A member as tarfile has it, to be given as its `tarinfo`.

    tarfile takes a header that is none, behind the first, for the end of the archive, and memory for as many bytes as a
    name claims to have. Here both raise tarfile.ReadError.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):
                raise  # the end, by a block of zeros or without one
            raise tarfile.ReadError(f"a member's header is damaged ({error})") from None
        if member.type in _EXTENDED and member.size > LONGEST:
            raise tarfile.ReadError(f"a name or the fields of a member have {member.size} bytes")
        return member
