"""Puts everything that a configuration fetches into a registry, and writes the configuration for it.

    REFERENCE            a manifest with a layer for each file, titled as in a mirror's folder: HOST/PATH
    DIR/fetch.yaml       the configuration, whose artifacts name this manifest by its digest
    DIR/layers.json      which files are there, for later runs
    DIR/downloads/       files on their way: a few at a time, and none at the end

The agent downloads and verifies each file, and what is there of one that failed is resumed. A file is recorded as soon
as the registry has it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem, ProblemError, printable
from pxe_fetch.contract.quantity import count
from pxe_fetch.contract.registry import with_digest, written
from pxe_fetch.contract.url import each
from pxe_pack.cleanup import removed
from pxe_pack.config import read
from pxe_pack.config_file import read_config
from pxe_pack.console import Console, joined
from pxe_pack.layout.manifest import SUMS
from pxe_pack.lock.lockfile import read_lock
from pxe_pack.mirror.configuration import (
    CONFIG,
    FOLDER_HEADER,
    REGISTRY_HEADER,
    begins_with,
    elsewhere,
    refusal,
    text,
    unsigned,
)
from pxe_pack.mirror.copy import Copy
from pxe_pack.mirror.files import MirroredFile, mirrored
from pxe_pack.mirror.record import NEW_RECORD, RECORD, Record, read_record
from pxe_pack.mirror.references import Layers, left_out, with_references
from pxe_pack.output import locked
from pxe_pack.real_path import real_path
from pxe_pack.registry.client import Repository, digest_of
from pxe_pack.registry.layers import MIRROR_TYPE, manifest
from pxe_pack.tools import InputError, WorkError

_DOWNLOADS, _WORK = "downloads", ".pxe-pack-mirror"
_CARRIED = "http://mirror.invalid/"  # RFC 2606, 2: stands for the folder of a mirror while its paths are found


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryMirror:
    """What `mirror` has done."""

    output: Path
    reference: str  # with the manifest's digest
    titles: tuple[str, ...]
    size: int  # bytes of all files
    received: int  # bytes that were downloaded now
    sent: int  # bytes that the registry was sent now
    elsewhere: tuple[str, ...]  # what nodes with the new configuration still contact


def mirror(
    config: Path, *, output: Path, repository: Repository, credential: str | None, insecure: bool, console: Console
) -> RegistryMirror:
    """Mirror the configuration `config` in `repository`, and write the new one into the folder `output`.

    `credential` is the one with which nodes log in, and `insecure` allows them to send it unencrypted. Raises
    InputError; WorkError or requests.RequestException if a file cannot be downloaded, verified or pushed, when the
    others are there and neither the manifest nor the configuration is written.
    """
    _, document = read_config(config, lock=read_lock(config))
    fetch = document.fetch
    is_carried = begins_with(config, FOLDER_HEADER) and (config.parent / SUMS).is_file()
    files, rebased = _carried(fetch, config) if is_carried else mirrored(fetch)
    output = real_path(output)
    if problem := _refusal(config, output, files):
        raise InputError(problem)

    def content(manifest_digest: str, sizes: Mapping[str, int]) -> str:
        url = with_digest(repository.url, manifest_digest)
        layers = Layers(url=url, sizes=sizes, credential=credential, insecure=insecure)
        return text(with_references(rebased, layers), document, config, header=REGISTRY_HEADER)

    titles = sorted(file.path for file in files if file.kind == "file")
    _check(content(f"sha256:{'0' * 64}", dict.fromkeys(titles, 0)), output)
    if found := [*left_out(rebased)]:
        console.problems(found)
    before = _tagged(repository)
    output.mkdir(exist_ok=True)
    with locked(output), removed(output / _WORK):
        record = read_record(output) or Record(path=output / RECORD)
        record.save()  # from now on, the folder is known as one of a mirror
        shutil.rmtree(output / _WORK, ignore_errors=True)  # of a run that was killed
        (output / _WORK).mkdir(mode=0o700)  # the agent's configuration has secrets
        copy = Copy(
            config=fetch,
            downloads=output / _DOWNLOADS,
            work=output / _WORK,
            repository=repository,
            record=record,
            console=console,
        )
        copy.run(files)
        for gone in record.files.keys() - set(titles):
            del record.files[gone]
        body = manifest((layer for title in titles for layer in record.files[title]["layers"]), kind=MIRROR_TYPE)
        if body != before:
            _tagged(repository, error=WorkError)  # somebody else may have pushed meanwhile
            repository.put_manifest(body)
        record.save()
        sizes = {title: record.layers(title)[0].size for title in titles}
        new = content(digest_of(body), sizes)
        found = [*unsigned(config, output / CONFIG, content=new)]
        (output / _WORK / "new").write_text(new, encoding="utf-8")
        (output / _WORK / "new").replace(output / CONFIG)
        shutil.rmtree(output / _DOWNLOADS, ignore_errors=True)
    if found:
        console.problems(found)
    return RegistryMirror(
        output=output,
        reference=written(with_digest(repository.url, digest_of(body))),
        titles=tuple(titles),
        size=sum(sizes.values()),
        received=copy.received,
        sent=copy.sent,
        elsewhere=tuple(elsewhere(rebased)),
    )


def _carried(fetch: FetchConfig, config: Path) -> tuple[list[MirroredFile], FetchConfig]:
    """As `mirrored`, of the configuration in a mirror's folder: its files are there, wherever nodes would find them."""
    files, rebased = mirrored(replace(fetch, base_url=_CARRIED))
    folder, prefix = f"{config.absolute().parent.as_uri()}/", _CARRIED.removeprefix("http://")

    def here(url: str) -> str:
        return f"{folder}{url.removeprefix(_CARRIED)}" if url.startswith(_CARRIED) else url

    def moved(file: MirroredFile) -> MirroredFile:
        artifact, path = file.artifact, file.path.removeprefix(prefix)
        chunks = artifact.chunks and replace(artifact.chunks, mirrors=each(artifact.chunks.mirrors, here))
        artifact = replace(artifact, mirrors=each(artifact.mirrors, here), chunks=chunks)
        return replace(file, path=path, sums=file.sums.removeprefix(prefix), artifact=artifact)

    artifacts = (
        replace(one, mirrors=each(one.mirrors, lambda url: url.removeprefix(prefix))) for one in rebased.artifacts
    )
    return [*map(moved, files)], replace(rebased, artifacts=tuple(artifacts))


def _refusal(config: Path, output: Path, files: Sequence[MirroredFile]) -> Problem | None:
    """Why `output` cannot be the folder of a mirror of `config`; None if it can. Raises OSError."""
    if problem := refusal(output, files):
        return problem
    is_ours = (output / RECORD).exists() or not output.exists()
    if foreign := None if is_ours else next((one for one in output.iterdir() if one.name != NEW_RECORD), None):
        message = f"the output folder {output} contains what no mirror in a registry wrote: {foreign.name}"
        return Problem(reference="output-foreign", message=message, hint="choose another folder, or move it away")
    if real_path(config) == output / CONFIG:
        message, hint = f"{config} is what it would replace", "mirror the configuration that it was made from"
        return Problem(reference="mirror-of-itself", message=message, hint=hint)
    return None


def _check(content: str, output: Path) -> None:
    """Raise InputError, before anything is copied, if the new configuration could not be read.

    It may be too large, or have a title that no configuration may have.
    """
    try:
        read(content, name=f"{output / CONFIG} (not written)")
    except ProblemError as error:
        raise InputError(*error.problems) from None


def _tagged(repository: Repository, *, error: type[InputError | WorkError] = InputError) -> bytes | None:
    """The manifest of the mirror that the tag names; None if it names nothing. Raises `error` if it is no mirror."""
    body = repository.find_manifest()
    kind: object = None
    with suppress(ValueError, RecursionError):
        document = json.loads(body or b"")
        kind = document.get("artifactType") if isinstance(document, dict) else None
    if body is None or kind == MIRROR_TYPE:
        return body
    message = f"{written(repository.url)} is no mirror: it names {printable(str(kind or 'an image')[:100])}"
    raise error(Problem(reference="mirror-tag", message=message, hint="choose another tag, or another repository"))


def document(done: RegistryMirror) -> dict[str, object]:
    """What was done, as JSON values (docs/json.md)."""
    return {
        "output": str(done.output),
        "config": str(done.output / CONFIG),
        "reference": done.reference,
        "files": list(done.titles),
        "size": done.size,
        "received": done.received,
        "sent": done.sent,
        "elsewhere": list(done.elsewhere),
    }


def summary(done: RegistryMirror) -> str:
    """What was done, as text."""
    files = count(len(done.titles), "file")
    lines = [
        f"{done.reference}: {files}, {done.size:,} bytes, {done.received:,} of them downloaded now, {done.sent:,} sent",
        f"  {CONFIG}  {done.output / CONFIG}",
        *(f"  nodes still contact {place}" for place in done.elsewhere),
    ]
    return joined(lines)
