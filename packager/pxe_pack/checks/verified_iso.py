"""Checks that nodes verify the ISO of a layout, and that its digest on the kernel command line is the right one."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.hashing import hash_file
from pxe_pack.layout.kernel_arguments import ISO_SHA256
from pxe_pack.layout.urls import is_nfs


def verified_iso(subject: Subject) -> Iterator[Problem]:
    """What keeps nodes from verifying the ISO, or from booting it, for each entry. Raises OSError."""
    layout = subject.layout
    if not layout or not subject.image.live:
        return
    iso = layout.root / layout.iso if layout.iso else None
    actual = ""
    for entry in subject.menu.entries:
        hooks = [bool(facts.appended and facts.appended.verifies_iso) for _, facts in subject.initrds(entry)]
        digests = entry.values(ISO_SHA256)
        if any(hooks) and not digests and entry.is_live and not is_nfs(subject.boot_url):
            yield Problem(
                reference="iso-digest-missing",
                message=f"the entry {entry.title!r} has no {ISO_SHA256}=: its initrd could verify the ISO, but accepts "
                "any",
                hint="pack the image again, or `pxe-pack relocate DIR --boot-url URL` with the layout's own URL",
                severity="warning",
            )
        if digests and not any(hooks):
            yield Problem(
                reference="iso-digest-unread",
                message=f"the entry {entry.title!r} has {ISO_SHA256}=, but its initrd does not verify the ISO: nodes "
                "boot any",
                hint="pack the image again; `--verify-iso true` says why an image cannot have it",
                severity="warning",
            )
        if digests and iso and iso.is_file():
            actual = actual or hash_file(iso).sha256
            if digests[-1] != actual:
                yield Problem(
                    reference="iso-digest-differs",
                    message=f"the entry {entry.title!r} has {ISO_SHA256}={digests[-1]}, but {layout.iso} has {actual}: "
                    "no node boots it",
                    hint="restore the ISO that was packed, or pack the image again",
                )
