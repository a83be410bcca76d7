"""Checks for artifacts placed on a tmpfs of their own, which takes memory and has a limited size."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject


def destinations(subject: Subject) -> Iterator[Problem]:
    """Artifacts placed on a tmpfs: notes, or warnings if one is too large for it."""
    if subject.config is None:
        return
    model = subject.memory
    for space in model.spaces:
        for one in space.artifacts:
            if not space.limit or not one.dest.startswith(f"{space.point.rstrip('/')}/") or space.point == "/":
                continue
            size = space.size(model.given) if model.given is not None else None
            yield Problem(
                reference="dest-tmpfs",
                message=f"artifact {one.name} goes to {one.dest}, but {space.point} is a tmpfs, which takes memory "
                f"(at most {space.limit})",
                hint="use a dest on a disk, or one that the image does not mount a tmpfs on",
                severity="warning" if size is not None and one.size > size else "note",
            )
