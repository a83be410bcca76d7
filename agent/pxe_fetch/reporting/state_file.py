"""The file that has the state of a run: state.json.

The webhook and `pxe-fetch status --json` give the same document. It stays after the run, for `pxe-fetch status` and for
the next run, which counts the failed runs before it.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any

from pxe_fetch import regular_file
from pxe_fetch.contract import paths

VERSION = 1  # of the document
PHASES = ("locating", "fetching", "done", "failed")  # of a run
ENDED = frozenset(("done", "failed"))  # those of a run that is over
# Of a state file. A configuration of 1 MiB has at most 9,500 artifacts, each about 450 bytes here: 4.3 MB in all.
MAX_SIZE = 8 << 20  # bytes
MAX_BRACKETS = 100_000  # lists, objects, and brackets in texts: an empty list takes 20 times its size

_KINDS: dict[str, type | UnionType] = {  # of the values of a document that are used
    **dict.fromkeys(("phase", "message", "agent", "started"), str),
    **dict.fromkeys(("config", "node"), dict),
    "seconds": int | float,
    "failures": int,
    "artifacts": list,
    "exit_code": int | None,
}

Document = dict[str, Any]  # a state document


class StateError(Exception):
    """The state file is there, and cannot be used."""


def path() -> Path | None:
    """The state file to write: in the unit's runtime directory, in /run for root, or in the user's own.

    None for an ordinary user without XDG_RUNTIME_DIR: such a run has no state file. RUNTIME_DIRECTORY is systemd's
    (systemd.exec(5)), a colon-separated list.
    """
    if directory := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(directory, "state.json")
    return Path(paths.STATE) if os.geteuid() == 0 else _of_user()


def write(document: Document, *, file: Path) -> None:
    """Replace `file` atomically: readers see the old document or the new one. Raises OSError."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)  # left by a run that was killed, or put there by somebody else
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, 0o644)  # whatever the umask: every user may run `status`
            stream.write(json.dumps(document) + "\n")
        new.replace(file)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def read(file: Path) -> Document | None:
    """The document in `file`; None if there is no file. Raises StateError.

    Its artifacts and units are not checked: who uses them takes a TypeError and the like for damage.
    """
    try:
        body = _content(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{file} cannot be read: {error.strerror}") from None
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise StateError(f"{file} is damaged: it has too many lists and objects")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, too deep
        raise StateError(f"{file} is damaged: it is not a JSON document") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise StateError(f"{file} is damaged: it is not a state of version {VERSION}")
    if wrong := [key for key, kind in _KINDS.items() if not isinstance(document.get(key), kind)]:
        raise StateError(f"{file} is damaged: `{wrong[0]}` is missing or of another type")
    if document["phase"] not in PHASES:
        raise StateError(f"{file} is damaged: `{document['phase']}` is not a phase of a run")
    return {"units": [], **document}  # an older agent's has no units


def latest() -> Document | None:
    """The newest state that this user may see, the service's or the user's own; None if there is none.

    Raises StateError.
    """
    if os.environ.get("RUNTIME_DIRECTORY"):
        candidates = [path()]
    else:
        candidates = [Path(paths.STATE), _of_user() if os.geteuid() else None]
    newest: tuple[int, Path] | None = None
    for file in filter(None, candidates):
        with suppress(OSError):
            newest = max(newest or (0, file), (file.lstat().st_mtime_ns, file))
    return read(newest[1]) if newest else None


def _of_user() -> Path | None:
    directory = os.environ.get("XDG_RUNTIME_DIR")
    return Path(directory, paths.USER_STATE_DIR, "state.json") if directory else None


def _content(file: Path) -> bytes:
    """The bytes of `file`. Raises OSError, StateError if it is none that a run of root or of this user has written."""
    status = file.lstat()  # nobody but that user can change what is in its folder
    if stat.S_ISLNK(status.st_mode):
        raise StateError(f"{file} is a symbolic link, which no run has written")
    if status.st_uid not in {0, os.geteuid()}:
        raise StateError(f"{file} belongs to another user (uid {status.st_uid})")
    return regular_file.read(file, limit=MAX_SIZE)
