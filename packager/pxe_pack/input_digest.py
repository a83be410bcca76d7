"""What was packed, for the manifest: the image's files as they were before the first pack, with their SHA-256.

The digest of an ISO is computed on request only, since that takes as long as the rest of the pack. If the image is a
layout of ours, the manifest in it names the first pack's image, so that n packs give what one gives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pxe_fetch.contract import sha256sums
from pxe_fetch.contract.problem import Problem
from pxe_pack.console import Console
from pxe_pack.hashing import SizeAndDigest, hash_file
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.liveos import LiveImage
from pxe_pack.input_file import read_input
from pxe_pack.layout.layout import Layout, find_layout
from pxe_pack.layout.manifest import Kind
from pxe_pack.settings import Settings
from pxe_pack.tools import InputError, WorkError

SUFFIX = ".sha256"

_IMAGE_ROLES = ("image", "made-iso")


def image_inputs(
    image: LiveImage, settings: Settings, *, hashed: Mapping[str, SizeAndDigest], console: Console
) -> list[dict[str, object]]:
    """The image's files, with the digests of those that the pack has `hashed`, by path in the image.

    Raises WorkError if the ISO's digest differs from the one in the file beside it.
    """
    known = _known_before(image)
    initrds = [_input(image, path, hashed[path]) for path in sorted(hashed) if path != image.iso_path]
    if image.iso is None:
        return initrds
    before = [entry for entry in known if not _is_initrd(entry, known)]
    of_iso = hashed.get(image.iso_path)
    made = _iso_input(image, image.iso, wanted=settings.input_digest, hashed=of_iso, console=console)
    if before and before[0].get("size") == made["size"]:  # else someone has exchanged the ISO
        made = {**before[0], "sha256": before[0].get("sha256") or made["sha256"]}
    return [made, *initrds, *before[1:]]


def image_name(image: LiveImage) -> str:
    """The name of the image that was packed first."""
    return next((str(entry["name"]) for entry in _known_before(image)), image.path.name)


def _known_before(image: LiveImage) -> list[dict[str, object]]:
    """The image's files in the manifest of an earlier pack; none if the image is not a layout of ours, or its ISO."""
    layout = _layout_of(image.path) if isinstance(image.media, Iso) else find_layout(image.media.path)
    listed = layout.facts.get("inputs") if layout else None
    entries = listed if isinstance(listed, list) else []
    found = [entry for entry in entries if isinstance(entry, dict) and entry.get("role") in _IMAGE_ROLES]
    return found if all(isinstance(entry.get("name"), str) for entry in found) else []


def _layout_of(iso: Path) -> Layout | None:
    """The layout whose ISO is at `iso`; None if there is none there that can be trusted."""
    try:
        layout = find_layout(iso.parent)
        listed = layout.files.get(iso.name) if layout else None
        return layout if listed and listed.kind is Kind.ISO and listed.size == iso.stat().st_size else None
    except (InputError, OSError):
        return None


def _is_initrd(entry: Mapping[str, object], entries: Sequence[Mapping[str, object]]) -> bool:
    """True if it is a file beside the ISO, which comes first."""
    return entry is not entries[0] and "path" in entry


def _iso_input(
    image: LiveImage, iso: Iso, *, wanted: bool, hashed: SizeAndDigest | None, console: Console
) -> dict[str, object]:
    """The ISO, as it was before earlier packs; with its digest if it is `hashed`, `wanted`, or published."""
    given = iso.path if iso.path == iso.input_path else None  # else it was built, or restored
    if wanted and not hashed:
        with console.step("Hashing the input"):
            hashed = hash_file(iso.path)
    if hashed:
        if given:
            check_published(given, sha256=hashed.sha256)
        return _input(image, image.iso_path, hashed)
    published = published_digest(given) if given else None
    document = _input(image, image.iso_path, SizeAndDigest(size=iso.size, sha256=published or ""))
    origin = {"sha256_from": f"{given.name}{SUFFIX}"} if given and published else {}
    return {**document, "sha256": published, **origin}


def _input(image: LiveImage, path: str, counted: SizeAndDigest) -> dict[str, object]:
    known = _known_before(image)
    role = "made-iso" if image.rootfs_source else known[0]["role"] if known else "image"
    at = {"path": path} if path else {}
    return {"role": role, "name": image_name(image), **at, "size": counted.size, "sha256": counted.sha256}


def published_digest(path: Path) -> str | None:
    """The digest that the file `<path>.sha256` has for `path`, in lower case; None if there is none."""
    try:
        sums = read_input(Path(f"{path}{SUFFIX}"), limit=sha256sums.LARGEST)
        return sha256sums.digest_of(os.fsencode(path.name), sums=sums)
    except (OSError, ValueError):
        return None


def check_published(path: Path, *, sha256: str) -> None:
    """Raise WorkError if `path`, which has the digest `sha256`, was published with another one."""
    published = published_digest(path)
    if published and published != sha256:
        raise WorkError(
            Problem(
                reference="image-differs",
                message=f"the SHA-256 of {path} is {sha256}, but {path.name}{SUFFIX} says {published}",
                hint="download the image again",
            )
        )
