"""Checks of the image's additional files: that each can be served, and has a place of its own in the layout."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pxe_fetch.contract.paths import enclosing, parents
from pxe_fetch.contract.problem import Problem
from pxe_pack.additional_files import AdditionalFiles
from pxe_pack.artifacts import LocalFile
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_CFG, GRUB_DIR
from pxe_pack.image.liveos import LiveImage
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.manifest import FOLDER, MANIFEST, MAX_FILES, SUMS, Kind, path_problem
from pxe_pack.layout.urls import Urls, file_name, same_urls

_MAX_SHOWN = 5  # names in one message
_MAX_CLASHES = 20


def additional_files(
    additional: AdditionalFiles,
    *,
    image: LiveImage,
    loaders: BootLoaders | None,
    files: Sequence[LocalFile],
    urls: Urls,
) -> Iterator[Problem]:
    """Files that cannot be served, and errors for those that cannot be in one layout with the rest of it.

    `loaders` (None if there are none), `files` and `urls` are those of the layout.
    """
    for reason, paths in additional.refused.items():
        yield _refusal(reason, paths)
    for pattern in additional.unused:
        yield _unused(pattern)
    taken = _taken_paths(image, loaders, files, urls)
    yield from _same_but_for_case([*taken, *additional.files])
    clashes = [*_clashes(additional, taken, urls)]
    yield from clashes[:_MAX_CLASHES]
    if more := len(clashes) - _MAX_CLASHES:
        message = f"{more:,} more of the image's files would be in the place of others, or at their URLs"
        yield from [Problem(reference="additional-name-clash", message=message)] if more > 0 else []
    if len(additional.files) + len(taken) > MAX_FILES:
        yield Problem(
            reference="additional-too-many",
            message=f"the image has {len(additional.files):,} additional files; a layout has at most {MAX_FILES:,}",
            hint="leave folders out with --leave-out",
        )


def _shown(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MAX_SHOWN:,} more" if len(items) > _MAX_SHOWN else ""
    return ", ".join(items[:_MAX_SHOWN]) + more


def _refusal(reason: str, paths: Sequence[str]) -> Problem:
    shown = _shown([ascii(path) if path_problem(path) else path for path in paths])
    return Problem(
        reference="additional-not-served",
        message=f"these files of the image will not be served: {shown} ({reason})",
        hint="replace or rename them in the image, or name them in `leave_out` to hide this warning",
        severity="warning",
    )


def _unused(pattern: str) -> Problem:
    return Problem(
        reference="leave-out-unused",
        message=f"leave_out has {pattern!r}, which matches none of the image's additional files",
        hint="patterns are for paths from the image's top, such as docs/*; `pxe-pack show` lists the files",
        severity="warning",
    )


def _same_but_for_case(paths: Iterable[str]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    pairs = [f"{first} and {path}" for path in paths if (first := seen.setdefault(path.casefold(), path)) != path]
    if pairs:
        yield Problem(
            reference="additional-case",
            message=f"names in the layout differ only in case: {_shown(pairs)}",
            hint="serve the layout from a file system that tells them apart, or leave one out with --leave-out",
            severity="warning",
        )


def _clashes(additional: AdditionalFiles, taken: Mapping[str, str], urls: Urls) -> Iterator[Problem]:
    """Errors for files in the place of others; `taken` has the paths of these, and what each is."""
    folders = {parent: path for path in [*additional.files, *taken] for parent in parents(path)}
    apart: dict[str, Kind] = {path: _kind(path, urls) for path in taken}
    for path in additional.files:
        above = enclosing(path, taken)
        if path in taken or above:
            yield _clash(path, f"would be in the place of {taken[above or path]}")
        elif path in folders:
            yield _clash(path, f"would be in the place of the folder of {folders[path]}")
        else:
            apart[path] = Kind.ADDITIONAL
    for path, first, url in same_urls(apart, urls):
        if path in additional.files:
            yield _clash(path, f"would be served at {url}, as would {first}")


def _taken_paths(
    image: LiveImage, loaders: BootLoaders | None, files: Sequence[LocalFile], urls: Urls
) -> dict[str, str]:
    """The paths in the layout of all that is not an additional file, and what each is, for people."""
    found = dict.fromkeys([*image.boot_files(), GRUB_CFG, f"{GRUB_DIR}/grubenv"], "a file for TFTP")
    if loaders:
        found |= dict.fromkeys([*loaders.files, *loaders.redirector], "a boot loader or its configuration")
    found |= {MANIFEST: "the layout's manifest", SUMS: "the layout's checksums", IPXE_SCRIPT: "the script for iPXE"}
    if urls.boot_url:
        found[file_name(urls.boot_url)] = f"the ISO, which is named by the boot_url {urls.boot_url}"
    for file in files:
        found[f"{FOLDER}/{file.name}"] = f"the artifact {file.source}"
        if file.chunk:
            found[f"{FOLDER}/{file.list_name}"] = f"the chunk digests of {file.source}"
    return found


def _kind(path: str, urls: Urls) -> Kind:
    """The kind of a file that is not an additional one."""
    if path.startswith(f"{FOLDER}/"):
        return Kind.ARTIFACT
    return Kind.ISO if path == file_name(urls.boot_url or "") else Kind.BOOT


def _clash(path: str, what: str) -> Problem:
    return Problem(
        reference="additional-name-clash",
        message=f"the image's file {path} {what}",
        hint=f"rename one of them, or leave the image's out: --leave-out {shlex.quote(glob.escape(path))}",
    )
