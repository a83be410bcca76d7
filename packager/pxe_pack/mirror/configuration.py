"""The configuration that a mirror writes: its text, which packs from any folder, and what to know about it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack import dump
from pxe_pack.config import Document, Pack
from pxe_pack.input_file import read_input
from pxe_pack.mirror.files import MirroredFile
from pxe_pack.output import parent_problem
from pxe_pack.tools import command_line
from pxe_pack.trust.signature import PROGRAM, signature_file

CONFIG = "fetch.yaml"
_WRITTEN = "# Written by `pxe-pack mirror`, which replaces it: a configuration that fetches from"
FOLDER_HEADER, REGISTRY_HEADER = f"{_WRITTEN} this folder.\n", f"{_WRITTEN} a registry.\n"


def begins_with(config: Path, header: str) -> bool:
    """Whether the configuration `config` was written with this `header`; not if it cannot be read."""
    try:
        return read_input(config, limit=len(header)) == header.encode()
    except OSError:
        return False


def refusal(output: Path, files: Collection[MirroredFile]) -> Problem | None:
    """Why `output` cannot be the folder of any mirror of `files`; None if it can."""
    if not files:
        message = "the configuration has no URL to mirror"
        return Problem(reference="mirror-empty", message=message, hint="a `source` is exported by `pxe-pack pack`")
    if problem := parent_problem(output):
        return problem
    if output.exists() and not output.is_dir():
        message = f"the output {output} exists and is not a folder"
        return Problem(reference="output-foreign", message=message, hint="choose another folder")
    return None


def text(rebased: FetchConfig, document: Document, config: Path, *, header: str) -> str:
    """`rebased` as the text of the new configuration: of `document`, in the file `config`, its other sections stay.

    The paths of local files become absolute: the new configuration is in another folder.
    """
    folder = config.absolute().parent
    artifacts = (replace(one, source=one.source and f"{folder / one.source}") for one in rebased.artifacts)
    return header + dump.dump(replace(rebased, artifacts=tuple(artifacts)), pack=_absolute(document.pack, folder))


def _absolute(pack: Pack, folder: Path) -> Pack:
    def path(name: str | None) -> str | None:
        return name and str(folder / name)

    boot = pack.secure_boot
    return replace(
        pack,
        image=path(pack.image),
        output=path(pack.output),
        boot_loader=path(pack.boot_loader),
        trust=tuple(str(path(name)) for name in pack.trust),
        secure_boot=replace(boot, key=path(boot.key), cert=path(boot.cert), passphrase=path(boot.passphrase)),
    )


def unsigned(config: Path, new: Path, *, content: str) -> Iterator[Problem]:
    """A warning if `config` is signed, and `new`, which is to have this `content`, has no signature of that."""
    signature = signature_file(new)
    if not signature.exists() and not signature_file(config).exists():
        return
    is_same = new.is_file() and new.read_bytes() == content.encode()
    if not (is_same and signature.exists()):
        yield Problem(
            reference="mirror-unsigned",
            message=f"{new} needs a signature of its own: that of {config} is for another file",
            hint=f"sign it: {command_line(PROGRAM, '-S', '-s', 'KEY', '-m', new)}",
            severity="warning",
        )


def elsewhere(config: FetchConfig) -> Iterator[str]:
    """What nodes with `config` contact beside the mirror."""
    if config.report.url:
        yield f"report.url: {redact(config.report.url)}"
    for key, url in (("http", config.proxy.http), ("https", config.proxy.https)):
        if url:
            yield f"proxy.{key}: {redact(url)}"
