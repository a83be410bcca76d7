"""Gets a layout back from a registry, verified, and puts it in place in one step.

What the registry sends is input from outside: only the files that the layout's own manifest lists are written, whose
paths layout/manifest.py has checked, and each has to have the digest that both manifests say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pxe_fetch.contract.problem import Problem, printable
from pxe_fetch.contract.registry import Layer, read_manifest, written
from pxe_pack.console import Console, Step
from pxe_pack.hashing import copy_hashed
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import MANIFEST, MAX_SIZE, SUMS, LayoutFile, ManifestError, parse_manifest
from pxe_pack.output import output_problem, staging
from pxe_pack.registry.client import Repository, digest_of, wrong
from pxe_pack.tools import InputError, WorkError


def pull(repository: Repository, output: Path, *, console: Console) -> tuple[Layout, str]:
    """Pull the layout to the folder `output`; it, and the digest of its manifest in the registry.

    Raises InputError, WorkError and OSError; `output` is then as it was.
    """
    if problem := output_problem(output):
        raise InputError(problem)
    name = written(repository.url)
    body = repository.manifest()
    try:
        listed = read_manifest(body)
    except ValueError as error:
        raise wrong(f"the manifest of {name} cannot be used: {error}") from None
    layers = {layer.title: layer for layer in listed}
    if len(layers) < len(listed):
        raise wrong(f"{name} has two layers with one title, or without any")
    if MANIFEST not in layers or SUMS not in layers:
        message, hint = f"{name} is not a layout of pxe-pack", f"its files: oras pull {name}"
        raise WorkError(Problem(reference="pull-no-layout", message=message, hint=hint))
    _check(layers, _files_in(repository.text(layers[MANIFEST].digest, limit=MAX_SIZE)), name=name)
    with staging(output) as made, console.step("Pulling", total=sum(layer.size for layer in listed)) as step:
        for title, layer in layers.items():
            _write(made.layout, title, layer, repository, step)
        for path in made.layout.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        Layout.read(made.layout)
    return Layout.read(output), digest_of(body)


def _files_in(manifest: bytes) -> Mapping[str, LayoutFile]:
    try:
        return parse_manifest(manifest).files
    except ManifestError as error:
        raise wrong(f"the {MANIFEST} in the registry {error}") from error


def _check(layers: Mapping[str, Layer], files: Mapping[str, LayoutFile], *, name: str) -> None:
    """Raise WorkError unless the layers are the files of the layout, to the byte."""
    if differing := layers.keys() ^ {*files, MANIFEST, SUMS}:
        raise wrong(f"{name} and its {MANIFEST} do not list the same files: {printable(min(differing))}")
    for path, file in files.items():
        if layers[path].size != file.size or layers[path].digest != f"sha256:{file.sha256}":
            raise wrong(f"{name} and its {MANIFEST} disagree about {path}")


def _write(folder: Path, title: str, layer: Layer, repository: Repository, step: Step) -> None:
    target = folder / title
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.new(layer.digest.partition(":")[0])

    def pieces() -> Iterator[bytes]:
        for piece in repository.pieces(layer.digest, size=layer.size):
            digest.update(piece)
            step.advance(len(piece))
            yield piece

    copy_hashed(pieces(), target)
    if digest.hexdigest() != layer.digest.partition(":")[2]:
        raise wrong(f"the registry sent other bytes than those of {layer.digest} ({title})")
