"""A compressed file put in place as what is in it: decompressed beside its destination, then renamed.

That is done once the bytes that came are verified, so no decompressor sees bytes that a server made up, and what has
arrived stays whole for a later run to resume.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pxe_fetch.contract.archive import STAGING_SUFFIX
from pxe_fetch.contract.model import Digest
from pxe_fetch.errors import NoRoomError, PolicyError
from pxe_fetch.humanize import amount
from pxe_fetch.install import file
from pxe_fetch.install.compression import pieces
from pxe_fetch.install.disk_space import available
from pxe_fetch.plan import Transfer, beside

RECORD_SUFFIX = ".pxe-fetch-content"  # beside the file: which artifact it came from, and the digest of what was in it
_LOOK = 64 * 1024 * 1024  # bytes written between two looks at the room that is left


def is_right(transfer: Transfer) -> bool:
    """Whether the destination is what an earlier run made of this artifact; its mode and owner are then set as wanted.

    Told by the record beside it, and by reading the whole file. Raises FetchError as file.is_right does.
    """
    try:
        source, content = beside(transfer.dest, RECORD_SUFFIX).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        source = content = ""
    if source != transfer.identity:
        return file.is_right(replace(transfer, size=-1))  # no file is; but what stands there may be in the way
    return file.is_right(replace(transfer, size=None, pieces=None, digest=Digest(algorithm="sha256", hex=content)))


def place(transfer: Transfer) -> None:
    """Make what is in the verified part file the destination, then drop the part.

    Raises FetchError; the destination is then as it was. The part goes too where another try would end the same.
    """
    staging = beside(transfer.dest, STAGING_SUFFIX)
    try:
        staging.unlink(missing_ok=True)  # by a run that was killed
        content = _decompress(transfer, staging)
        file.place(replace(transfer, part=staging))
        _note(transfer, content=content)
        transfer.part.unlink(missing_ok=True)
    except (PolicyError, NoRoomError):
        transfer.part.unlink(missing_ok=True)
        raise
    except OSError as error:
        cause = file.explain(error, f"{transfer.dest} cannot be put in place")
        if isinstance(cause, NoRoomError):
            transfer.part.unlink(missing_ok=True)
        raise cause from None
    finally:
        staging.unlink(missing_ok=True)


def _decompress(transfer: Transfer, staging: Path) -> str:
    """Write what is in the part to the new file `staging`; its sha256. Raises FetchError and OSError."""
    content = hashlib.sha256()
    written = looked = 0
    room = available(staging.parent)
    # 0600, as the part has, until it gets its owner and mode.
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as out, transfer.part.open("rb", buffering=0) as packed:
        for piece in pieces(packed):
            if written - looked >= _LOOK:
                looked, room = written, written + available(staging.parent)
            if written + len(piece) > room:
                raise NoRoomError(f"decompressed, it takes more than the {amount(int(room))} that are free")
            view = memoryview(piece)
            while view:
                view = view[out.write(view) :]
            content.update(piece)
            written += len(piece)
    return content.hexdigest()


def _note(transfer: Transfer, *, content: str) -> None:
    """Write the record. Where that fails, or the run is killed before, a later run fetches the artifact again."""
    record = beside(transfer.dest, RECORD_SUFFIX)
    with suppress(OSError):
        record.unlink(missing_ok=True)
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{transfer.identity} {content}\n")
