"""Files as a registry has them: a blob for each, a list of chunk digests beside a large one, and their manifest.

Source: OCI Image Specification 1.1, "Guidelines for Artifact Usage": `artifactType`, and the empty descriptor in place
of a configuration.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pxe_fetch.contract.chunks import SUFFIX, listed
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.registry import CHUNK_SIZE, IMAGE_MANIFEST, LARGEST_MANIFEST, TITLE
from pxe_pack.chunks import ChunkDigests
from pxe_pack.hashing import BLOCK, Advance, SizeAndDigest
from pxe_pack.registry.client import Repository
from pxe_pack.tools import InputError

LAYOUT_TYPE, FILES_TYPE = "application/vnd.pxe-pack.layout.v1", "application/vnd.pxe-pack.files.v1"
MIRROR_TYPE = "application/vnd.pxe-pack.mirror.v1"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_FILE_TYPE, _LIST_TYPE = "application/octet-stream", "text/plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """One layer to push: a file, or the bytes of a list of chunk digests that was made for one."""

    title: str
    counted: SizeAndDigest
    path: Path | None
    text: bytes = b""
    chunk_size: int | None = None  # bytes; it is the list of chunk digests of the file that its title names

    @property
    def digest(self) -> str:
        """As registries write it."""
        return f"sha256:{self.counted.sha256}"

    def descriptor(self) -> dict[str, object]:
        """It as the manifest describes it."""
        notes = {TITLE: self.title, **({CHUNK_SIZE: str(self.chunk_size)} if self.chunk_size else {})}
        kind = _LIST_TYPE if self.chunk_size else _FILE_TYPE
        return {"mediaType": kind, "digest": self.digest, "size": self.counted.size, "annotations": notes}

    def opened(self) -> IO[bytes]:
        """Its bytes, from the first. Raises OSError."""
        return self.path.open("rb") if self.path else io.BytesIO(self.text)

    def put(self, repository: Repository, advance: Advance) -> int:
        """Upload it unless the repository has it; the bytes that were sent. Raises what `repository.put` raises."""
        size = self.counted.size
        is_sent = repository.put(self.digest, size, self.opened)
        advance(size)
        return size if is_sent else 0


def blobs_of(title: str, path: Path, *, chunk: int | None, advance: Advance) -> Iterator[Blob]:
    """The blob of the file `path`; with `chunk`, bytes, also that of the list of its chunk digests. Raises OSError."""
    digests = ChunkDigests(chunk) if chunk else None
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(BLOCK):
            digest.update(data)
            if digests:
                digests.update(data)
            size += len(data)
            advance(len(data))
    yield Blob(title=title, counted=SizeAndDigest(size=size, sha256=digest.hexdigest()), path=path)
    if digests:
        yield _of_text(listed(digests.finish()).encode(), title=title + SUFFIX, chunk_size=chunk)


def _of_text(text: bytes, *, title: str, chunk_size: int | None = None) -> Blob:
    counted = SizeAndDigest(size=len(text), sha256=hashlib.sha256(text).hexdigest())
    return Blob(title=title, counted=counted, path=None, text=text, chunk_size=chunk_size)


EMPTY = _of_text(b"{}", title="")  # in place of a manifest's configuration


def manifest(descriptors: Iterable[dict[str, object]], *, kind: str) -> bytes:
    """The manifest of an artifact of this type: the same bytes for the same layers.

    Raises InputError if no registry would take it.
    """
    document = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": _EMPTY_TYPE, "digest": EMPTY.digest, "size": EMPTY.counted.size},
        "layers": [*descriptors],
        **_created(),
    }
    body = json.dumps(document, ensure_ascii=False, indent=2).encode()
    if len(body) > LARGEST_MANIFEST:
        message = f"the manifest would have {len(body):,} bytes, more than the {LARGEST_MANIFEST:,} that clients read"
        raise InputError(
            Problem(
                reference="push-too-many", message=message, hint="put the files into an archive, or into several parts"
            )
        )
    return body


def _created() -> dict[str, object]:
    """The time, if SOURCE_DATE_EPOCH has it: without it, the same files have the same digest."""
    from datetime import UTC, datetime

    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdecimal():
        return {}
    moment = datetime.fromtimestamp(int(epoch), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"annotations": {"org.opencontainers.image.created": moment}}
