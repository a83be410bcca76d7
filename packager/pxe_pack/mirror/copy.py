"""Copies files into a registry: each is downloaded, verified, pushed, recorded and removed, a few at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.chunks import SUFFIX, listed
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.quantity import amount, count
from pxe_pack.chunks import chunk_size
from pxe_pack.console import Console
from pxe_pack.hashing import Advance
from pxe_pack.mirror.download import download, known_size
from pxe_pack.mirror.files import MirroredFile
from pxe_pack.mirror.record import Record, Recorded, pin_of
from pxe_pack.registry.client import Repository
from pxe_pack.registry.layers import EMPTY, Blob, blobs_of
from pxe_pack.tools import WorkError

_TOGETHER = 1 << 30  # bytes of files that are downloaded together; a larger one is on its own


@dataclass(kw_only=True, slots=True)
class Copy:
    """The files on their way into the registry, and the bytes that it took."""

    config: FetchConfig
    downloads: Path  # a folder for the files; those of an earlier run are resumed
    work: Path  # a folder for everything else
    repository: Repository
    record: Record
    console: Console
    received: int = 0
    sent: int = 0

    def run(self, files: Sequence[MirroredFile]) -> None:
        """Bring `files` into the registry, as far as the record does not have them.

        Raises WorkError with every file that cannot be downloaded when the others are there; WorkError or
        requests.RequestException as soon as the registry fails.
        """
        self.downloads.mkdir(exist_ok=True)
        if lists := [file for file in files if file.kind == "sums"]:
            with self.console.step("Downloading lists of digests") as step:
                ended = download(self.config, lists, root=self.downloads, work=self.work / "lists", step=step)
                if ended.problems:
                    raise WorkError(*ended.problems)
        titles = {file.path for file in files if file.kind == "file"}
        missing = [file for file in files if file.kind == "file" and not self._is_there(file)]
        self.sent += EMPTY.put(self.repository, lambda _: None)  # what may not be pushed to is found before a download
        batches = list(_batches(missing, parallel=self.config.parallel))
        if batches:
            sizes = [known_size(batch) for batch in batches]
            largest = amount(max(filter(None, sizes), default=0))
            most = largest if None not in sizes else f"{max(map(len, batches))} of them"
            self.console.say(f"{len(missing)} of {count(len(titles), 'file')} to mirror, {most} on this disk at a time")
        problems: list[Problem] = []
        for number, batch in enumerate(batches):
            names = batch[0].path + (f" and {count(len(batch) - 1, 'other')}" if batch[1:] else "")
            with self.console.step(f"Downloading {names}", total=known_size(batch)) as step:
                ended = download(self.config, batch, root=self.downloads, work=self.work / str(number), step=step)
            self.received += ended.received
            problems += ended.problems
            if ended.files:
                total = sum((self.downloads / file.path).stat().st_size for file in ended.files)
                with self.console.step("Pushing", total=total) as step:
                    step.note(f"{count(len(ended.files), 'file')}, {amount(total)}")
                    for file in ended.files:
                        self._push(file, ended.sha256.get(file.path), titles=titles, advance=step.advance)
        if problems:
            raise WorkError(*problems)

    def _is_there(self, file: MirroredFile) -> bool:
        """Whether the record has the file with this very pin, and the registry still has all of its layers."""
        known = self.record.files.get(file.path)
        if not known or known["pin"] != pin_of(file, root=self.downloads):
            return False
        return all(self.repository.has(layer.digest) for layer in self.record.layers(file.path))

    def _push(self, file: MirroredFile, sha256: str | None, *, titles: set[str], advance: Advance) -> None:
        """Push a file whose digest the agent verified, and its list of chunk digests; record and remove it.

        Raises WorkError, requests.RequestException and OSError.
        """
        path, artifact = self.downloads / file.path, file.artifact
        chunk = None
        if file.path + SUFFIX not in titles and not file.path.endswith(SUFFIX):
            chunk = chunk_size(path.stat().st_size, (artifact.chunks,))
        blobs = list(blobs_of(file.path, path, chunk=chunk, advance=lambda _: None))
        _check(file, blobs, sha256=sha256)
        self.sent += sum(blob.put(self.repository, advance if blob.path else lambda _: None) for blob in blobs)
        layers = [blob.descriptor() for blob in blobs]
        self.record.files[file.path] = Recorded(pin=pin_of(file, root=self.downloads), layers=layers)
        self.record.save()
        path.unlink()


def _batches(files: Sequence[MirroredFile], *, parallel: int) -> Iterator[list[MirroredFile]]:
    """The files to download together: one, or several of at most _TOGETHER bytes.

    Of those whose sizes are not known, `parallel`: as many as are downloaded at a time.
    """
    batch: list[MirroredFile] = []
    total = 0
    for file in files:
        size = file.artifact.size
        size = _TOGETHER // parallel if size is None else size
        if batch and total + size > _TOGETHER:
            yield batch
            batch, total = [], 0
        batch.append(file)
        total += size
    if batch:
        yield batch


def _check(file: MirroredFile, blobs: Sequence[Blob], *, sha256: str | None) -> None:
    """Raise WorkError if the file is no longer what the agent has verified: by its digest, or by that of each chunk."""
    chunks = file.artifact.chunks
    expected = {file.path: sha256} if sha256 else {}
    if chunks and not chunks.mirrors:
        expected[file.path + SUFFIX] = hashlib.sha256(listed(chunks.digests).encode()).hexdigest()
    for blob in blobs:
        if expected.get(blob.title, blob.counted.sha256) != blob.counted.sha256:
            message = f"{file.path} changed on this disk after it had been verified"
            raise WorkError(Problem(reference="mirror-changed", message=message, hint="run it again"))
