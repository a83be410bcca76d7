"""Checks that a node has enough memory for the image: a LiveOS keeps everything in memory.

Sources: Linux, init/do_mounts.c and Documentation/filesystems/ramfs-rootfs-initramfs.rst (an initramfs without `root=`
is a tmpfs limited to half of the memory; with `root=` it is a ramfs without a limit); dracut's livenet (the fetched ISO
stays in memory) and dmsquash-live (the overlay is on a tmpfs: half of the memory).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.quantity import show_size
from pxe_pack.checks.subject import Subject
from pxe_pack.layout.manifest import Kind

_SYSTEM = 256 << 20  # bytes; minimum for the kernel and running programs
_MIB = 1 << 20


def memory(subject: Subject) -> Iterator[Problem]:
    """An error if the image needs more than `node_memory`; a note with the amount if `node_memory` is not given."""
    iso = subject.image.iso.size if subject.image.iso else 0
    fetched = _artifacts(subject)
    booting = max((_initrd(subject, names) for names in _loaded(subject)), default=0)
    parts = {"the initrd": booting, "the ISO": iso, "the artifacts": fetched, "the system": _SYSTEM}
    breakdown = ", ".join(f"{name} {_megabytes(size)}" for name, size in parts.items() if size)
    needed = sum(parts.values())
    given = subject.node_memory
    if given is None:
        yield Problem(
            reference="node-memory",
            message=f"a node needs at least {_megabytes(needed)} of memory: {breakdown}",
            hint="to check it against your nodes, pass for example --node-memory 4GiB",
            severity="note",
        )
        return
    if needed > given:
        yield Problem(
            reference="node-memory",
            message=f"a node needs at least {_megabytes(needed)} of memory, but has {show_size(given)}: {breakdown}",
            hint="make the image smaller, put artifacts on a disk, or give nodes more memory",
        )
    elif not subject.image.live and 2 * booting > given:
        yield Problem(
            reference="node-memory-half",
            message=f"the initrd unpacks to {_megabytes(booting)}, but without root= the kernel limits it to half of "
            f"{show_size(given)}",
            hint="make the image smaller, or give nodes more memory",
        )
    elif 2 * fetched > given:
        yield Problem(
            reference="node-memory-half",
            message=f"the artifacts take {_megabytes(fetched)}, but the overlay holds only half of {show_size(given)}",
            hint="put artifacts on a disk, or give nodes more memory",
        )


def _loaded(subject: Subject) -> Iterator[list[str]]:
    """The initrds of each entry, as paths on the medium."""
    for entry in subject.menu.entries:
        yield [name for name, _ in subject.initrds(entry)]


def _initrd(subject: Subject, names: list[str]) -> int:
    """The unpacked size of an entry's initrds in bytes; the packed size if that is unknown."""
    total = 0
    for name in names:
        entry = subject.image.media.find(name)
        total += max(subject.image.initrds[name].unpacked, entry.size if entry else 0)
    return total


def _artifacts(subject: Subject) -> int:
    """The total size in bytes of the artifacts whose size is known."""
    if subject.config is None:
        listed = subject.layout.of_kind(Kind.ARTIFACT) if subject.layout else {}
        return sum(file.size for file in listed.values())
    sizes = ((artifact.size or subject.local_sizes.get(artifact.name, 0)) for artifact in subject.config.artifacts)
    return sum(sizes)


def _megabytes(size: int) -> str:
    return f"{-(-size // _MIB):,} MiB"
