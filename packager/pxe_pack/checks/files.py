"""Checks that every file exists and is small enough for the protocol that serves it."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject

# UEFI's and GRUB's TFTP clients, and Linux's boot protocol for initrds, use 32-bit sizes
LIMIT = 4 << 30


def files(subject: Subject) -> Iterator[Problem]:
    """Files too large for TFTP; in a layout, also files that are missing or differ from the manifest."""
    for path, file in subject.image.boot_files().items():
        if file.size >= LIMIT:
            yield _too_large(path, file.size, hint="make it smaller; put a root filesystem of that size into an ISO")
    iso = subject.image.iso
    if iso and subject.boot_url.startswith("tftp:") and iso.size >= LIMIT:
        yield _too_large(iso.path.name, iso.size, hint="serve the ISO by http")
    if layout := subject.layout:
        gone = layout.missing()
        for path in gone:
            yield Problem(
                reference="layout-missing",
                message=f"{path} is listed in the layout's manifest but does not exist",
                hint="pack again to restore the layout",
            )
        yield from (problem for problem in layout.differing() if not any(path in problem.message for path in gone))


def _too_large(path: str, size: int, *, hint: str) -> Problem:
    message = f"{path} has {size:,} bytes, but TFTP cannot load files of 4 GiB or more"
    return Problem(reference="file-too-large", message=message, hint=hint)
