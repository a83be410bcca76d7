"""Inject through the initrd: append one more cpio archive, which the kernel unpacks over the earlier ones.

In a full-os image the initrd is the root filesystem, so files go to their final paths. In a bootstrap image they go
below /updates, which dracut copies onto the new root (modules.d/90dmsquash-live/apply-live-updates.sh, 059 to current),
just like updates/ on the medium. The ISO stays unchanged.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pxe_pack.console import Console
from pxe_pack.freeze.agent import MANIFEST
from pxe_pack.hashing import copy_whole
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.inject import updates
from pxe_pack.inject.append import Addition, append, compressing
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.payload import Entry, Payload

TOOLS: tuple[str, ...] = ()
HOW = "an archive appended to the initrd, which the kernel unpacks over it"

_MARGIN = 1 << 20  # bytes


def unsupported_reason(image: LiveImage) -> str | None:
    """Why this injector does not work for `image`; None if it does."""
    if image.live is None:
        return None  # under enforcing SELinux, its other files come out of a cpio without labels as well
    if image.selinux_enforcing:
        return "SELinux is enforcing, and files copied at boot get no labels"
    if squashed := [name for name, facts in image.initrds.items() if facts.squashed]:
        # dracut's init-squash.sh switches to the image; the archive's own files are not in it
        return f"{', '.join(squashed)} boots from an image inside it, which hides what is appended"
    return updates.no_hook(image)


def disk_space(image: LiveImage, payload: Payload) -> int:
    """Upper bound of the disk space it needs, in bytes."""
    iso = image.iso.size if image.iso else 0
    return iso + len(_targets(image)) * payload.size + _MARGIN


def inject(image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:  # noqa: ARG001  nothing temporary
    """Copy the ISO, and write the initrds with the payload appended; see Injector."""
    entries = tuple(_archive_entries(image, payload))
    program = next(entry for entry in entries if entry.path.endswith(f"/{MANIFEST}"))
    record, agent = program.path.removesuffix(f"/{MANIFEST}"), _version(program)
    additions = {
        name: Addition(
            entries=(*entries, *target.hook.get(name, ())), record=record, agent=agent, verifies_iso=name in target.hook
        )
        for name in _targets(image)
    }
    with compressing(image, additions) as archives:
        files, inputs = {}, {}
        if image.iso:
            with console.step("Copying and hashing the ISO", total=image.iso.size) as step:
                copied = copy_whole(image.iso.file, target.place(target.iso), advance=step.advance)
            files[target.iso] = inputs[image.iso_path] = copied
        appended = append(image, additions, archives, target=target, console=console)
    return Injected(files={**files, **appended.files}, inputs={**inputs, **appended.inputs})


def _targets(image: LiveImage) -> list[str]:
    """The paths on the medium of the initrds that get the payload."""
    return [name for name, facts in image.initrds.items() if image.live or facts.full_os]


def _archive_entries(image: LiveImage, payload: Payload) -> Iterator[Entry]:
    """The payload's entries at the paths where the kernel creates them, parents first."""
    if image.live is None:
        yield from payload.entries
        return
    moved = [replace(entry, path=f"{UPDATES}/{entry.path}") for entry in payload.entries]
    parents = {str(parent) for entry in moved for parent in PurePosixPath(entry.path).parents} - {"."}
    folders = [Entry(path=path, mode=stat.S_IFDIR | 0o755) for path in parents - {entry.path for entry in moved}]
    yield from sorted([*folders, *moved], key=lambda entry: entry.path)


def _version(manifest: Entry) -> str:
    text = manifest.content.read_bytes() if isinstance(manifest.content, Path) else manifest.content
    return str(json.loads(text)["agent"])
