"""Credentials for the node's systemd, passed by firmware as SMBIOS OEM strings (https://systemd.io/CREDENTIALS)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.input_file import read_input
from pxe_pack.tools import InputError

PREFIX = "io.systemd.credential.binary:"
MAX_TOTAL = 48 * 1024  # bytes in total: SMBIOS tables hold 64 KiB, and base64 adds a third

_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)  # systemd accepts more; these need no quoting


def is_name(text: str) -> bool:
    """Whether `text` is a valid credential name."""
    return bool(_NAME.fullmatch(text)) and text not in {".", ".."}


def arguments(credentials: Mapping[str, Path], *, work: Path) -> list[str]:
    """QEMU's arguments that pass `credentials` (name -> file); the values go through files in the folder `work`.

    Raises InputError if a file cannot be read, or if they exceed what SMBIOS can hold.
    """
    words: list[str] = []
    left = MAX_TOTAL
    for number, (name, file) in enumerate(credentials.items()):
        try:
            content = read_input(file, limit=MAX_TOTAL + 1)
        except OSError as error:
            raise _unusable(f"cannot read the credential {name} from {file}: {error.strerror}") from None
        left -= len(content)
        if left < 0:
            raise _unusable(f"the credentials exceed the {MAX_TOTAL} bytes that fit into the SMBIOS tables")
        # Passed in a file, because every user can read a process's command line.
        private = work / f"credential-{number}"
        private.touch(mode=0o600)
        private.write_text(f"{PREFIX}{name}={base64.b64encode(content).decode()}", encoding="ascii")
        words += ["-smbios", f"type=11,path={str(private).replace(',', ',,')}"]
    return words


def _unusable(message: str) -> InputError:
    return InputError(Problem(reference="credential-unusable", message=message, hint="use --credential NAME=FILE"))
