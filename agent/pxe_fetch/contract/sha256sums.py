"""SHA256SUMS files: the digest that one has for a file name."""

from __future__ import annotations

import codecs
import re

from pxe_fetch.contract.problem import printable

LARGEST = 4 * 1024 * 1024  # bytes of a SHA256SUMS file: 40,000 lines, more than one folder of a mirror has

# sha256sum(1): `HEX  name`, `HEX *name`; with a backslash in front, one in the name is doubled, and \n is a newline.
# Other programs put one blank or a tab between them. Each match has 64 digits and at most a path: that bounds the work.
_PLAIN = re.compile(rb"\n(\\?)([0-9a-fA-F]{64})[ \t]++\*?([^\r\n]{1,8192}+)(?=[\r\n])")
# sha256sum --tag, BSD's sha256(1): `SHA256 (name) = HEX`; openssl-dgst(1): `SHA2-256(name)= HEX`.
_TAGGED = re.compile(rb"\n(\\?)SHA(?:2-)?256 ?\(([^\r\n]{1,8192})\) ?= ?([0-9a-fA-F]{64})[ \t\r]*(?=\n)")
_ALONE = re.compile(rb"\s*([0-9a-fA-F]{64})(?:[ \t]+\*?-)?\s*")  # FILE.sha256; `-` is the standard input
# What servers send in its place.
_ODD = re.compile(rb"(\x1f\x8b|\x28\xb5\x2f\xfd|BZh|\xfd7zXZ)|\s*<(?:!doctype|html|head|\?xml)", re.IGNORECASE)


def digest_of(name: bytes, *, sums: bytes) -> str:
    """The SHA-256 that the file `sums` has for the file `name`: 64 hexadecimal digits in lower case.

    A line that names it in a folder counts when no line names it alone; a digest without a name, alone in the file,
    counts for every name. Raises ValueError, which says what follows the name of the list: `has no line for m`.
    """
    if sums.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as Windows PowerShell redirects it
        sums = sums.decode("utf-16", "replace").encode()
    sums = sums.removeprefix(codecs.BOM_UTF8)
    if match := _ALONE.fullmatch(sums):
        return match[1].decode().lower()
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    in_folder, lines = None, b"\n%b\n" % sums
    for pattern in (_PLAIN, _TAGGED):
        for match in pattern.finditer(lines):
            digits, listed = (match[2], match[3]) if pattern is _PLAIN else (match[3], match[2])
            listed = listed.rstrip(b" \t").removeprefix(b"./")
            wanted = escaped if match[1] else name
            if listed == wanted:
                return digits.decode().lower()
            if in_folder is None and listed.endswith(b"/" + wanted):
                in_folder = digits
    if in_folder:
        return in_folder.decode().lower()
    shown, odd = printable(name.decode(errors="replace")), _ODD.match(sums)
    what = f": it is {'compressed' if odd[1] else 'a web page'}" if odd else ""
    raise ValueError(f"has no line for {shown}{what}")
