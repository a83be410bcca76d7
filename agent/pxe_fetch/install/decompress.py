"""Install a compressed file as its content: decompress it beside the destination, then rename.

The compressed file is verified first, so the decompressor only sees trusted bytes. It stays until the end, so that a
later run can resume.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from pxe_fetch.contract.model import Digest
from pxe_fetch.contract.paths import STAGING_SUFFIX
from pxe_fetch.errors import NoRoomError
from pxe_fetch.humanize import amount
from pxe_fetch.install import file
from pxe_fetch.install.compression import pieces
from pxe_fetch.install.disk_space import available
from pxe_fetch.plan import Transfer, beside

RECORD_SUFFIX = ".pxe-fetch-content"  # beside the destination: the artifact's identity, and the content's sha256
_CHECK_INTERVAL = 64 * 1024 * 1024  # bytes written between two checks of the free space


def is_current(transfer: Transfer) -> bool:
    """Whether the destination has the content of this artifact; if so, set its mode and owner as configured.

    The record beside it names the content's digest, which is checked by reading the whole file. Raises FetchError as
    file.is_current does.
    """
    try:
        identity, content = beside(transfer.dest, RECORD_SUFFIX).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        identity = content = ""
    if identity != transfer.identity:
        return file.is_current(replace(transfer, size=-1))  # no file has that size, but a directory must still raise
    return file.is_current(replace(transfer, size=None, chunk_map=None, digest=Digest(algorithm="sha256", hex=content)))


def install(transfer: Transfer) -> None:
    """Turn the content of the verified part file into the destination, then remove the part file.

    Raises FetchError; the destination is then unchanged, and the part file stays unless another try would fail too.
    """
    staging = beside(transfer.dest, STAGING_SUFFIX)
    try:
        with file.installing(transfer):
            staging.unlink(missing_ok=True)  # left by a run that was killed
            content = _decompress(transfer, staging)
            file.install(replace(transfer, part=staging))
            file.write_record(beside(transfer.dest, RECORD_SUFFIX), lambda: f"{transfer.identity} {content}\n")
            transfer.part.unlink(missing_ok=True)
    finally:
        staging.unlink(missing_ok=True)


def _decompress(transfer: Transfer, staging: Path) -> str:
    """Write the content of the part file to the new file `staging`; its sha256. Raises FetchError and OSError."""
    content = hashlib.sha256()
    written = checked = 0
    limit = available(staging.parent)
    # 0600, like the part file, until it gets its owner and mode.
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as out, transfer.part.open("rb", buffering=0) as packed:
        for piece in pieces(packed):
            if written - checked >= _CHECK_INTERVAL:
                checked, limit = written, written + available(staging.parent)
            if written + len(piece) > limit:
                raise NoRoomError(f"the decompressed file needs more than the {amount(int(limit))} available")
            view = memoryview(piece)
            while view:
                view = view[out.write(view) :]
            content.update(piece)
            written += len(piece)
    return content.hexdigest()
