"""Whether every file can be brought over the protocol that serves it, and is there."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject

# UEFI's and GRUB's TFTP clients count sizes in 32 bits, and so does Linux's boot protocol for initrds
LIMIT = 4 << 30


def files(subject: Subject) -> Iterator[Problem]:
    """Files that are too large for TFTP, and of a layout those that are not there or not as its manifest says."""
    for path, file in subject.image.boot_files().items():
        if file.size >= LIMIT:
            yield _too_large(path, file.size, hint="make it smaller; a root filesystem that large goes into an ISO")
    iso = subject.image.iso
    if iso and subject.boot_url.startswith("tftp:") and iso.size >= LIMIT:
        yield _too_large(iso.path.name, iso.size, hint="have the ISO served by http")
    if layout := subject.layout:
        gone = layout.missing()
        for path in gone:
            yield Problem(
                reference="layout-missing",
                message=f"{path} is in the layout's manifest and is not there",
                hint="export the layout again to have it whole",
            )
        yield from (problem for problem in layout.differing() if not any(path in problem.message for path in gone))


def _too_large(path: str, size: int, *, hint: str) -> Problem:
    message = f"{path} has {size:,} bytes, and files of 4 GiB and more cannot be loaded by TFTP"
    return Problem(reference="file-too-large", message=message, hint=hint)
