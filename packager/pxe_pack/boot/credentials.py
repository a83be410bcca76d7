"""Credentials that the machine's firmware hands to the node's systemd: SMBIOS OEM strings (systemd.io/CREDENTIALS)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError

PREFIX = "io.systemd.credential.binary:"
MOST = 48 * 1024  # bytes of all together; the firmware's tables hold 64 KiB, and base64 makes a third more of them

_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)  # what systemd takes for one is wider; these need no quoting


def is_name(text: str) -> bool:
    """Whether a credential may be called so."""
    return bool(_NAME.fullmatch(text)) and text not in {".", ".."}


def arguments(credentials: Mapping[str, Path], *, work: Path) -> list[str]:
    """QEMU's arguments for `credentials` (name -> file), through files in the folder `work`.

    Raises InputError when a file cannot be read, or all are more than the firmware has room for.
    """
    words: list[str] = []
    left = MOST
    for number, (name, file) in enumerate(credentials.items()):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise _cannot(f"the credential {name} cannot be read from {file}: {error.strerror}") from None
        left -= len(content)
        if left < 0:
            raise _cannot(f"the credentials are more than the {MOST} bytes that fit into the firmware's tables")
        # Through a file: the command line of a process is there for everybody to read.
        handed = work / f"credential-{number}"
        handed.touch(mode=0o600)
        handed.write_text(f"{PREFIX}{name}={base64.b64encode(content).decode()}", encoding="ascii")
        words += ["-smbios", f"type=11,path={str(handed).replace(',', ',,')}"]
    return words


def _cannot(message: str) -> InputError:
    return InputError(Problem(reference="credential-unusable", message=message, hint="give --credential NAME=FILE"))
