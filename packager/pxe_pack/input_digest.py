"""The SHA-256 of the ISO that is packed, for the manifest. Computing it takes as long as the pack does without it."""

from __future__ import annotations

import re
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import WorkError

SUFFIX = ".sha256"

_LARGEST = 64 << 10  # bytes
# sha256sum(1): `HEX  name`, `HEX *name`, with --tag `SHA256 (name) = HEX`; and a digest alone
_PLAIN = re.compile(r"([0-9a-fA-F]{64})(?:[ \t]+\*?(\S.*))?")
_TAGGED = re.compile(r"SHA256 \((.+)\) = ([0-9a-fA-F]{64})")


def published_digest(path: Path) -> str | None:
    """The digest that the file `<path>.sha256` has for `path`, in lower case; None if there is none."""
    try:
        with Path(f"{path}{SUFFIX}").open("rb") as file:
            lines = file.read(_LARGEST).decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in map(str.strip, lines):
        digest, name = "", ""
        if match := _PLAIN.fullmatch(line):
            digest, name = match[1], match[2] or path.name
        elif match := _TAGGED.fullmatch(line):
            name, digest = match[1], match[2]
        if digest and name.rpartition("/")[2] == path.name:
            return digest.lower()
    return None


def check_published(path: Path, *, sha256: str) -> None:
    """Raise WorkError if `path`, which has the digest `sha256`, was published with another one."""
    published = published_digest(path)
    if published and published != sha256:
        raise WorkError(
            Problem(
                reference="image-differs",
                message=f"the SHA-256 of {path} is {sha256}, but {path.name}{SUFFIX} says {published}",
                hint="download the image again",
            )
        )
