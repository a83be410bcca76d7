"""Downloads everything that a configuration fetches into a folder, and writes the configuration for it there.

    DIR/HOST/PATH        the files, as in their URLs
    DIR/fetch.yaml       the configuration, whose URLs are below --base-url
    DIR/SHA256SUMS       of all of these

What is there and right stays, and a download that was interrupted is resumed: the agent, which downloads into the
folder, sees to both.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract import quantity, validators
from pxe_fetch.contract.model import Digest, FetchConfig
from pxe_fetch.contract.problem import Problem, RuleError
from pxe_fetch.contract.url import redact
from pxe_pack.checks.secrets import url_secrets
from pxe_pack.cleanup import removed
from pxe_pack.config_file import read_config
from pxe_pack.console import Console, joined
from pxe_pack.hashing import hash_file
from pxe_pack.layout.files import sum_line, summed_paths
from pxe_pack.layout.manifest import SUMS, path_problem
from pxe_pack.lock.lockfile import read_lock
from pxe_pack.mirror.configuration import CONFIG, FOLDER_HEADER, begins_with, elsewhere, refusal, text, unsigned
from pxe_pack.mirror.download import download, known_size
from pxe_pack.mirror.files import MirroredFile, mirrored
from pxe_pack.output import locked
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, WorkError

_WORK = ".pxe-pack-mirror"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """What `mirror` has done."""

    output: Path
    base_url: str | None
    paths: tuple[str, ...]
    size: int  # bytes of all files
    received: int  # bytes of those that were downloaded now
    removed: tuple[str, ...]  # paths that earlier runs wrote and this configuration does not need
    elsewhere: tuple[str, ...]  # what nodes with the new configuration still contact


def mirror(config: Path, *, output: Path, base_url: str | None, console: Console) -> Mirror:
    """Mirror the configuration `config` in the folder `output`, to be served at `base_url`.

    Raises InputError; WorkError if a file cannot be downloaded or verified, when the others are there and the
    configuration is not written.
    """
    _, document = read_config(config, lock=read_lock(config))
    files, rebased = mirrored(document.fetch)
    rebased = replace(rebased, base_url=_base(base_url))
    output = real_path(output)
    if problem := _refusal(config, output, files):
        raise InputError(problem)
    output.mkdir(exist_ok=True)
    with locked(output), removed(output / _WORK):
        shutil.rmtree(output / _WORK, ignore_errors=True)  # of a run that was killed
        (output / _WORK).mkdir(mode=0o700)  # the folder may be served, and the agent's configuration has secrets
        received = _download(document.fetch, files, output=output, console=console)
        paths = sorted(file.path for file in files)
        with console.step("Writing the checksums") as step:
            rebased = _with_layers(rebased, document.fetch, files, output=output)
            content = text(rebased, document, config, header=FOLDER_HEADER)
            found = [*unsigned(config, output / CONFIG, content=content)]
            earlier = _listed(output)
            new = output / _WORK / "new"
            new.write_text(content, encoding="utf-8")
            known = {file.path: file.artifact.digest for file in files}
            pinned = {path: one.hex for path, one in known.items() if one and one.algorithm == "sha256"}
            sums = {path: pinned.get(path) or hash_file(output / path).sha256 for path in paths}
            sums[CONFIG] = hash_file(new).sha256
            new.replace(output / CONFIG)
            gone = [*_remove(output, earlier - sums.keys())]
            new.write_text("".join(sum_line(path, sums[path]) for path in sorted(sums)), encoding="utf-8")
            new.replace(output / SUMS)
            step.note(quantity.count(len(sums), "file"))
    if found := [*found, *url_secrets(rebased, where="the mirror")]:
        console.problems(found)
    return Mirror(
        output=output,
        base_url=rebased.base_url,
        paths=tuple(paths),
        size=sum((output / path).stat().st_size for path in paths),
        received=received,
        removed=tuple(gone),
        elsewhere=tuple(elsewhere(rebased)),
    )


def _base(url: str | None) -> str | None:
    """The base URL, ending in `/`. Raises InputError."""
    try:
        return validators.base_url(url) if url else None
    except RuleError as error:
        message = f"--base-url {redact(url or '')} {error.message}"
        raise InputError(Problem(reference=error.reference, message=message, hint=error.hint or error.label)) from error


def _refusal(config: Path, output: Path, files: Collection[MirroredFile]) -> Problem | None:
    """Why `output` cannot be the folder of a mirror of `config`; None if it can."""
    if problem := refusal(output, files):
        return problem
    is_ours = begins_with(output / CONFIG, FOLDER_HEADER)
    foreign = next((name for name in (CONFIG, SUMS) if (output / name).exists() and not is_ours), None)
    if foreign:
        message = f"the output folder {output} contains a file that a mirror in a folder did not write: {foreign}"
        return Problem(reference="output-foreign", message=message, hint="choose another folder, or move it away")
    if real_path(config) in {output / path for path in (CONFIG, *_listed(output))}:
        message = f"{config} is in the mirror that it would replace"
        hint = "mirror the configuration that it was made from"
        return Problem(reference="mirror-of-itself", message=message, hint=hint)
    return None


def _download(config: FetchConfig, files: Sequence[MirroredFile], *, output: Path, console: Console) -> int:
    """Download `files`, lists of digests first; the bytes that were received. Raises WorkError."""
    lists = [file for file in files if file.kind == "sums"]
    others = [file for file in files if file.kind != "sums"]
    received = 0
    for number, (title, turn) in enumerate((("Downloading lists of digests", lists), ("Downloading", others))):
        if not turn:
            continue
        with console.step(title, total=known_size(turn)) as step:
            ended = download(config, turn, root=output, work=output / _WORK / str(number), step=step)
            if ended.problems:
                raise WorkError(*ended.problems)
        received += ended.received
    return received


def _with_layers(
    rebased: FetchConfig, fetch: FetchConfig, files: Sequence[MirroredFile], *, output: Path
) -> FetchConfig:
    """`rebased` with the digests of files that a registry's manifest pins, which nodes do not see any longer."""
    layers = {one.name for one in fetch.artifacts if one.title is not None and one.digest is None}
    paths = {file.title: file.path for file in files if file.title in layers}
    found = {name: hash_file(output / path) for name, path in paths.items()}
    artifacts = (
        replace(one, size=found[one.name].size, digest=Digest(algorithm="sha256", hex=found[one.name].sha256))
        if one.name in found
        else one
        for one in rebased.artifacts
    )
    return replace(rebased, artifacts=tuple(artifacts))


def _listed(output: Path) -> set[str]:
    """The paths in the checksums of an earlier run."""
    try:
        text = (output / SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return set()
    return {path for path in summed_paths(text) if not path_problem(path)}


def _remove(output: Path, paths: Collection[str]) -> Iterator[str]:
    """Remove files of an earlier run, and the folders that are empty then. Yields their paths."""
    for path in sorted(paths):
        file = output / path
        if real_path(file.parent).is_relative_to(output) and file.is_file():
            file.unlink()
            yield path
            for folder in file.parents[: len(Path(path).parents) - 1]:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


def document(done: Mirror) -> dict[str, object]:
    """What was done, as JSON values (docs/json.md)."""
    return {
        "output": str(done.output),
        "config": str(done.output / CONFIG),
        "base_url": done.base_url,
        "files": list(done.paths),
        "size": done.size,
        "received": done.received,
        "removed": list(done.removed),
        "elsewhere": list(done.elsewhere),
    }


def summary(done: Mirror) -> str:
    """What was done, as text."""
    files = quantity.count(len(done.paths), "file")
    base = f"--base-url {done.base_url}" if done.base_url else "relative URLs: set defaults.base_url, or --base-url"
    lines = [f"{done.output}: {files}, {done.size:,} bytes, {done.received:,} of them downloaded now"]
    lines += [f"  {CONFIG}  {base}", *(f"  removed  {path}" for path in done.removed)]
    lines += [f"  nodes still contact {place}" for place in done.elsewhere]
    return joined(lines)
