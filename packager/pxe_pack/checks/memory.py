"""Whether a node has the memory that the image takes: everything a LiveOS has is in it.

Sources: Linux, init/do_mounts.c and Documentation/filesystems/ramfs-rootfs-initramfs.rst (an initramfs without `root=`
is a tmpfs, which holds half of the memory; with it a ramfs, which has no limit); dracut's livenet (the ISO stays where
it was fetched to) and dmsquash-live (the overlay is on a tmpfs: half of the memory).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.quantity import show_size
from pxe_pack.artifacts import FOLDER
from pxe_pack.checks.subject import Subject

_SYSTEM = 256 << 20  # bytes; of the kernel and what runs, at the least
_MIB = 1 << 20


def memory(subject: Subject) -> Iterator[Problem]:
    """What a node's memory has to hold, against what was given; a note of what that is when nothing was."""
    iso = subject.image.iso.size if subject.image.iso else 0
    fetched = _artifacts(subject)
    booting = max((_initrd(subject, names) for names in _loaded(subject)), default=0)
    parts = {"the initrd": booting, "the ISO": iso, "the artifacts": fetched, "the system": _SYSTEM}
    told = ", ".join(f"{name} {_megabytes(size)}" for name, size in parts.items() if size)
    needed = sum(parts.values())
    given = subject.node_memory
    if given is None:
        yield Problem(
            reference="node-memory",
            message=f"a node needs {_megabytes(needed)} of memory or more: {told}",
            hint="--node-memory 4GiB has that compared with what nodes have",
            severity="note",
        )
        return
    if needed > given:
        yield Problem(
            reference="node-memory",
            message=f"a node needs {_megabytes(needed)} of memory or more, and has {show_size(given)}: {told}",
            hint="make the image smaller, have artifacts go to a disk, or give nodes more memory",
        )
    elif not subject.image.live and 2 * booting > given:
        yield Problem(
            reference="node-memory-half",
            message=f"the initrd unpacks to {_megabytes(booting)}, and without root= the kernel gives it half of "
            f"{show_size(given)}",
            hint="make the image smaller, or give nodes more memory",
        )
    elif 2 * fetched > given:
        yield Problem(
            reference="node-memory-half",
            message=f"the artifacts take {_megabytes(fetched)}, and the overlay holds half of {show_size(given)}",
            hint="have artifacts go to a disk, or give nodes more memory",
        )


def _loaded(subject: Subject) -> Iterator[list[str]]:
    """The initrds of each entry, by their paths on the medium."""
    for entry in subject.menu.entries:
        yield [name for name, _ in subject.initrds(entry)]


def _initrd(subject: Subject, names: list[str]) -> int:
    """Bytes of an entry's initrds unpacked; as packed as they are, where that cannot be seen."""
    total = 0
    for name in names:
        entry = subject.image.media.find(name)
        total += max(subject.image.initrds[name].unpacked, entry.size if entry else 0)
    return total


def _artifacts(subject: Subject) -> int:
    """Bytes of the artifacts whose size is known."""
    if subject.config is None:
        listed = subject.layout.files if subject.layout else {}
        return sum(file.size for path, file in listed.items() if path.startswith(f"{FOLDER}/"))
    sizes = ((artifact.size or subject.local_sizes.get(artifact.name, 0)) for artifact in subject.config.artifacts)
    return sum(sizes)


def _megabytes(size: int) -> str:
    return f"{-(-size // _MIB):,} MiB"
