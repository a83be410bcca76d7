"""Puts a layout, or any folder, into a registry: a manifest with a layer for each file, titled with its path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract.chunks import DIGEST, LARGEST, SMALLEST, STEP, SUFFIX, count, unlisted
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.chunks import chunk_size
from pxe_pack.console import Console
from pxe_pack.hashing import Advance
from pxe_pack.layout.files import found_below, what_is
from pxe_pack.layout.layout import CURRENT, Layout, find_layout
from pxe_pack.layout.manifest import MANIFEST, SUMS, path_problem
from pxe_pack.layout.published import find_published
from pxe_pack.node_reports import SUFFIX as SECRETS
from pxe_pack.registry.client import Repository
from pxe_pack.registry.layers import EMPTY, FILES_TYPE, LAYOUT_TYPE, Blob, blobs_of, manifest
from pxe_pack.tools import InputError, WorkError, command_line
from pxe_pack.trust.keys import is_minisign_secret

_START = 4096  # bytes of a file, in which a key would be
_PEM_KEY = re.compile(rb"^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----", re.MULTILINE)  # RFC 7468, 10 and 11


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What the registry has now."""

    digest: str  # of the manifest
    blobs: tuple[Blob, ...]
    sent: int  # bytes; the registry had the rest


def push(source: Path, repository: Repository, *, console: Console) -> Pushed:
    """Push the layout or folder `source`, or a single file. Raises InputError, WorkError and OSError."""
    layout = find_layout(source) if source.is_dir() else None
    files = _files_of_layout(layout) if layout else dict(_files_below(source))
    if layout and layout.report_url:
        message = (
            f"nodes report to {redact(layout.report_url)} with a token in the image: everybody who may pull gets it"
        )
        hint = "use a repository that only people who may report as any of these nodes can read"
        console.problems([Problem(reference="push-token", message=message, hint=hint, severity="warning")])
    with console.step("Hashing", total=sum(path.stat().st_size for path in files.values())) as step:
        blobs = tuple(_blobs(files, makes_lists=layout is None, advance=step.advance))
    if layout:
        _check_layout(layout, blobs)
    body = manifest((blob.descriptor() for blob in blobs), kind=LAYOUT_TYPE if layout else FILES_TYPE)
    with console.step("Pushing", total=sum(blob.counted.size for blob in blobs)) as step:
        different = {one.digest: one for one in (EMPTY, *blobs)}.values()
        sent = sum(blob.put(repository, step.advance) for blob in different)
        digest = repository.put_manifest(body)
    return Pushed(digest=digest, blobs=blobs, sent=sent)


def _files_of_layout(layout: Layout) -> dict[str, Path]:
    if missing := layout.missing():
        raise InputError(Problem(reference="layout-differs", message=f"{layout.root} has no {missing[0]}"))
    return {path: layout.root / path for path in sorted([*layout.files, MANIFEST, SUMS])}


def _files_below(source: Path) -> Iterator[tuple[str, Path]]:
    """The regular files of a folder, by their paths in it. Raises InputError if it has anything else."""
    if find_published(source):
        message = f"{source} has versions of a layout, and a registry's tag has one"
        hint = command_line("pxe-pack", "push", source / CURRENT)
        raise InputError(Problem(reference="push-file", message=message, hint=hint))
    if not source.exists():
        raise InputError(Problem(reference="push-file", message=f"{source} does not exist"))
    paths = sorted(found_below(source)) if source.is_dir() else [source.name]
    folder = source if source.is_dir() else source.parent
    for path in paths:
        file = folder / path
        why = path_problem(path) or ("" if not file.is_symlink() and file.is_file() else "is not a regular file")
        if path.endswith("/"):
            why = f"is {what_is(path)}, which a registry cannot hold"
        if why:
            raise InputError(Problem(reference="push-file", message=f"{file} cannot be pushed: its path {why}"))
        if found := _secret(file):
            message = f"{file} is {found}, and everybody who may pull would get it"
            raise InputError(Problem(reference="push-secret", message=message, hint="move it out of the folder"))
        yield path, file
    if not paths:
        raise InputError(Problem(reference="push-file", message=f"{source} has no files"))


def _secret(file: Path) -> str:
    """What is secret of `file`, as its name and its beginning tell; empty if that is nothing."""
    if file.name.endswith(SECRETS):
        return "a token that nodes report with"
    with file.open("rb") as opened:
        start = opened.read(_START)
    is_short = len(start) < _START and len(start.splitlines()) <= 2  # noqa: PLR2004  a comment and the key
    return "a private key" if _PEM_KEY.search(start) or (is_short and is_minisign_secret(start)) else ""


def _blobs(files: Mapping[str, Path], *, makes_lists: bool, advance: Advance) -> Iterator[Blob]:
    """A blob for each file, and with `makes_lists` for the chunk digests of large files that have no list."""
    for title, path in files.items():
        size = path.stat().st_size
        chunk = chunk_size(size, (None,)) if makes_lists and f"{title}{SUFFIX}" not in files else None
        blob, *made = blobs_of(title, path, chunk=None if title.endswith(SUFFIX) else chunk, advance=advance)
        listing = files.get(title.removesuffix(SUFFIX)) if title.endswith(SUFFIX) else None
        yield replace(blob, chunk_size=size_of_chunks(path, listing)) if listing else blob
        yield from made


def size_of_chunks(list_path: Path, file: Path) -> int | None:
    """The bytes in each chunk of `file`, as the list of its chunk digests was made; None if it is no such list.

    Their number leaves few sizes, and the first digest tells which of them it is.
    """
    size, text = file.stat().st_size, list_path.read_bytes()
    number = len(text.split())
    try:
        first = unlisted(text, number=number)[:DIGEST]
    except ValueError:
        return None
    if not size or not number:
        return None
    if number == 1:
        least = max(SMALLEST, -(-size // STEP) * STEP)
        return least if least <= LARGEST and hashlib.sha256(file.read_bytes()).digest() == first else None
    chunk = max(SMALLEST, -(-size // number // STEP) * STEP)
    digest = hashlib.sha256()
    with file.open("rb") as content:
        digest.update(content.read(chunk))
        while chunk <= LARGEST and count(size, chunk=chunk) >= number:
            if digest.digest() == first and count(size, chunk=chunk) == number:
                return chunk
            digest.update(content.read(STEP))
            chunk += STEP
    return None


def _check_layout(layout: Layout, blobs: Iterable[Blob]) -> None:
    """Raise WorkError if a file of the layout is not what its manifest says."""
    for blob in blobs:
        known = layout.files.get(blob.title)
        if known and known.sha256 != blob.counted.sha256:
            message = f"{layout.root / blob.title} is not the file that {MANIFEST} lists"
            hint = "pack again to restore the layout"
            raise WorkError(Problem(reference="layout-differs", message=message, hint=hint))
    layout.check_unchanged()
