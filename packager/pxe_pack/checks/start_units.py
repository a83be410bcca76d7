"""Checks that the units that artifacts start exist: in the root filesystem, or among the artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from pxe_fetch.contract.facts import fill
from pxe_fetch.contract.model import Artifact
from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import units

_MOUNT_UNITS = (".mount", ".automount")  # systemd-fstab-generator(8) makes them of fstab


def start_units(subject: Subject) -> Iterator[Problem]:
    """Errors for units that are missing and required, warnings for others."""
    tree, config = subject.image.tree, subject.config
    if tree is None or config is None or not any(artifact.start for artifact in config.artifacts):
        return
    installed = units.installed(tree)
    mounted = {unit_of(point) for point in subject.mounts}
    for artifact in config.artifacts:
        for unit in artifact.start:
            stem, dot, kind = unit.rpartition(".")
            if (dot + kind in _MOUNT_UNITS and stem in mounted) or units.is_among(unit, installed):
                continue
            if any(_may_bring(one, unit) for one in config.artifacts):
                continue
            yield Problem(
                reference="start-unit-missing",
                message=f"artifact {artifact.name} starts {unit}, which is neither in the image nor an artifact",
                hint="install it in the image, or fetch it to /etc/systemd/system, which has to be in allowed_roots",
                severity="error" if artifact.start_required else "warning",
            )


def unit_of(point: str) -> str:
    """The name of the unit of a mount point, without its suffix (systemd.unit(5), "String Escaping")."""
    text = point.strip("/")
    if not text:
        return "-"
    plain = (
        "-" if letter == "/" else letter if (letter.isascii() and letter.isalnum()) or letter in ":_." else _hex(letter)
        for letter in text
    )
    return "".join(plain)


def _hex(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode())


def _may_bring(artifact: Artifact, unit: str) -> bool:
    """Whether the artifact is the unit's file, or an archive that may have it."""
    dest = fill(artifact.dest, lambda _: "*")
    folders = [f"/{folder}" for folder in (*units.FOLDERS, *units.QUADLETS)]
    if any(f"{folder}/".startswith(f"{artifact.dest}/") for folder in folders):
        return True
    place, _, name = dest.lstrip("/").rpartition("/")
    if place in units.QUADLETS and fnmatchcase(unit, units.quadlet_service(name)):
        return True
    template = units.template_of(unit)
    return any(fnmatchcase(f"{folder}/{name}", dest) for folder in folders for name in {unit, template})
