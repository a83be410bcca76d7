"""What the URLs of ftp and tftp name: a server, and a file of it as the bytes that it is asked for."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from pxe_fetch.errors import PolicyError
from pxe_fetch.transport import parse_url

_UNSENDABLE = frozenset(b"\0\r\n")  # they would end the name, and begin a command of their own


class FtpUrl(NamedTuple):
    """A file on a server."""

    host: str
    port: int
    server: str  # how messages call it
    path: bytes  # percent-decoded; relative to where the server begins, unless the URL has `//` or `/%2F` there


def parse_ftp_url(url: str, *, suffix: str) -> FtpUrl:
    """What `url` names. An explicit binary mode, `suffix`, is taken off.

    RFC 1738 3.2 (ftp: `;type=i`), RFC 3617 (tftp: `;mode=octet`). Raises PolicyError for what cannot be asked for.
    """
    parts = parse_url(url)
    scheme, text = parts.scheme, parts.path.removesuffix(suffix)
    path = unquote_to_bytes(text.removeprefix("/"))
    if parts.userinfo is not None:
        raise PolicyError(f"{scheme} is anonymous here: a user name and password would be sent in the clear")
    if parts.query:
        raise PolicyError(f"{scheme} URLs have no query; write %3F for a ? in a name")
    if f"{suffix.partition('=')[0]}=" in text:
        raise PolicyError(f"{scheme} URLs support only {suffix}, because the digest is that of the file's bytes")
    if not path or path.endswith(b"/"):
        raise PolicyError(f"the {scheme} URL names no file")
    if not _UNSENDABLE.isdisjoint(path):
        raise PolicyError(f"the {scheme} URL has a line break or NUL in its path")
    return FtpUrl(parts.host, parts.port, f"{parts.host}:{parts.port}", path)
