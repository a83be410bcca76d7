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
from pxe_fetch.contract.model import Artifact, Digest, FetchConfig
from pxe_fetch.contract.problem import Problem, RuleError
from pxe_fetch.contract.url import redact
from pxe_pack import dump
from pxe_pack.agent_downloads import IN_PLACE, Downloads, as_file, download
from pxe_pack.checks.secrets import url_secrets
from pxe_pack.cleanup import removed
from pxe_pack.config import Pack
from pxe_pack.config_file import read_config
from pxe_pack.console import Console, joined
from pxe_pack.hashing import hash_file
from pxe_pack.input_file import read_input
from pxe_pack.layout.files import sum_line, summed_paths
from pxe_pack.layout.manifest import SUMS, path_problem
from pxe_pack.lock.lockfile import read_lock
from pxe_pack.mirror.files import MirroredFile, mirrored
from pxe_pack.output import locked, parent_problem
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, WorkError

CONFIG = "fetch.yaml"
FAILED = "mirror-download"  # reference of a problem
_WORK = ".pxe-pack-mirror"
_HEADER = "# Written by `pxe-pack mirror`, which replaces it: a configuration that fetches from this folder.\n"


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
            text = _HEADER + dump.dump(_with_sources(rebased, config), pack=_absolute(document.pack, config))
            earlier = _listed(output)
            new = output / _WORK / "new"
            new.write_text(text, encoding="utf-8")
            known = {file.path: file.artifact.digest for file in files}
            pinned = {path: one.hex for path, one in known.items() if one and one.algorithm == "sha256"}
            sums = {path: pinned.get(path) or hash_file(output / path).sha256 for path in paths}
            sums[CONFIG] = hash_file(new).sha256
            new.replace(output / CONFIG)
            gone = [*_remove(output, earlier - sums.keys())]
            new.write_text("".join(sum_line(path, sums[path]) for path in sorted(sums)), encoding="utf-8")
            new.replace(output / SUMS)
            step.note(quantity.count(len(sums), "file"))
    if found := [*url_secrets(rebased, where="the mirror")]:
        console.problems(found)
    return Mirror(
        output=output,
        base_url=rebased.base_url,
        paths=tuple(paths),
        size=sum((output / path).stat().st_size for path in paths),
        received=received,
        removed=tuple(gone),
        elsewhere=tuple(_elsewhere(rebased)),
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
    if not files:
        message = "the configuration has no URL to mirror"
        return Problem(reference="mirror-empty", message=message, hint="a `source` is exported by `pxe-pack pack`")
    if problem := parent_problem(output):
        return problem
    if output.exists() and not output.is_dir():
        message = f"the output {output} exists and is not a folder"
        return Problem(reference="output-foreign", message=message, hint="choose another folder")
    foreign = next((name for name in (CONFIG, SUMS) if (output / name).exists() and not _is_ours(output)), None)
    if foreign:
        message = f"the output folder {output} contains a file that `pxe-pack mirror` did not write: {foreign}"
        return Problem(reference="output-foreign", message=message, hint="choose another folder, or move it away")
    if real_path(config) in {output / path for path in (CONFIG, *_listed(output))}:
        message = f"{config} is in the mirror that it would replace"
        hint = "mirror the configuration that it was made from"
        return Problem(reference="mirror-of-itself", message=message, hint=hint)
    return None


def _is_ours(output: Path) -> bool:
    try:
        return read_input(output / CONFIG, limit=len(_HEADER)) == _HEADER.encode()
    except OSError:
        return False


def _download(config: FetchConfig, files: Sequence[MirroredFile], *, output: Path, console: Console) -> int:
    """Download `files`, lists of digests first; the bytes that were received. Raises WorkError."""
    lists = [file for file in files if file.is_list]
    others = [file for file in files if not file.is_list]
    received = 0
    for number, (title, turn) in enumerate((("Downloading lists of digests", lists), ("Downloading", others))):
        if not turn:
            continue
        sizes = [file.artifact.size for file in turn]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        work = output / _WORK / str(number)
        work.mkdir(parents=True)
        artifacts = tuple(_artifact(file, index, output=output) for index, file in enumerate(turn))
        with console.step(title, total=total) as step:
            ended = download(config, artifacts, root=output, work=work, reference=FAILED, step=step)
            problems = [*_failures(turn, ended)]
            kept = sum(one.get("phase") == "kept" for one in ended.artifacts.values())
            if problems:
                raise WorkError(*problems)
            step.note(f"{quantity.count(len(turn), 'file')}, of which {kept} were there")
        received += sum(
            size
            for one in ended.artifacts.values()
            if one.get("phase") == "placed" and isinstance(size := one.get("bytes_received"), int)
        )
    return received


def _artifact(file: MirroredFile, index: int, *, output: Path) -> Artifact:
    """The artifact by which the agent downloads `file`: its digest may be in a list that is in the folder already."""
    sums = (output / file.sums).as_uri() if file.sums else None
    return replace(as_file(file.artifact, dest=output / file.path), name=_name(index), digest_url=sums)


def _name(index: int) -> str:
    return f"file-{index}"  # several files may be of one artifact


def _failures(files: Sequence[MirroredFile], ended: Downloads) -> Iterator[Problem]:
    for index, file in enumerate(files):
        if ended.artifacts.get(_name(index), {}).get("phase") not in IN_PLACE:
            urls = " or ".join(map(redact, file.artifact.urls))
            yield Problem(
                reference=FAILED,
                message=f"cannot download {file.title} from {urls}: {ended.why(_name(index))}",
                hint="what is there stays: run it again when the server has the file",
            )


def _absolute(pack: Pack, config: Path) -> Pack:
    """The section `pack` of `config` with absolute paths: the new configuration is in another folder."""

    def path(name: str | None) -> str | None:
        return name and str(config.absolute().parent / name)

    boot = pack.secure_boot
    return replace(
        pack,
        image=path(pack.image),
        output=path(pack.output),
        boot_loader=path(pack.boot_loader),
        trust=tuple(str(path(name)) for name in pack.trust),
        secure_boot=replace(boot, key=path(boot.key), cert=path(boot.cert), passphrase=path(boot.passphrase)),
    )


def _with_sources(fetch: FetchConfig, config: Path) -> FetchConfig:
    """`fetch` with absolute paths of local files, for the same reason."""
    folder = config.absolute().parent
    artifacts = (replace(one, source=one.source and f"{folder / one.source}") for one in fetch.artifacts)
    return replace(fetch, artifacts=tuple(artifacts))


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


def _elsewhere(config: FetchConfig) -> Iterator[str]:
    """What nodes with `config` contact beside the mirror."""
    if config.report.url:
        yield f"report.url: {redact(config.report.url)}"
    for key, url in (("http", config.proxy.http), ("https", config.proxy.https)):
        if url:
            yield f"proxy.{key}: {redact(url)}"


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
