"""SHA256SUMS files: the digest that one has for a file name."""

from __future__ import annotations

import re

from pxe_fetch.contract.model import Digest
from pxe_fetch.contract.url import UrlError, parse
from pxe_fetch.errors import IntegrityError, PolicyError

LARGEST = 16 * 1024 * 1024  # bytes of a SHA256SUMS file

# sha256sum(1): "HEX  name", "HEX *name"; --tag: "SHA256 (name) = HEX". A name with a backslash or newline is escaped.
_PLAIN = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_TAGGED = re.compile(r"\\?SHA256 \((.+)\) = ([0-9a-fA-F]{64})")


def digest_of(url: str, *, sums: str, where: str) -> Digest:
    """The digest that the text `sums` has for the last part of `url`; `where` names the text in the error.

    A line that names the file in a folder counts when no line names it alone. Raises IntegrityError, since another run
    may succeed: a mirror may be in the middle of an update; PolicyError when `url` is no URL.
    """
    try:
        name = parse(url).path_bytes.decode(errors="replace").rpartition("/")[2]
    except UrlError as error:
        raise PolicyError(f"the URL {error}") from None
    in_folder: str | None = None
    for line in sums.splitlines():
        if match := _PLAIN.fullmatch(line.rstrip()):
            hex_digits, listed = match[1], match[2]
        elif match := _TAGGED.fullmatch(line.rstrip()):
            hex_digits, listed = match[2], match[1]
        else:
            continue
        if listed.removeprefix("./") == name:
            return Digest(algorithm="sha256", hex=hex_digits.lower())
        if listed.rpartition("/")[2] == name and in_folder is None:
            in_folder = hex_digits.lower()
    if in_folder:
        return Digest(algorithm="sha256", hex=in_folder)
    raise IntegrityError(f"{where} has no line for {name}", expected=f"a digest of {name}", found="none")
