"""The ways into an image: a file each, one Protocol, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pxe_fetch.contract.problem import Problem
from pxe_pack.console import Console
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import initrd, rootfs, updates
from pxe_pack.inject.injector import Injected, Injector, Target
from pxe_pack.inject.previous_payload import previous_payloads
from pxe_pack.inject.rewrite import Rewrite
from pxe_pack.tools import InputError

__all__ = [
    "INJECTORS",
    "Choice",
    "Injected",
    "Injector",
    "Rewrite",
    "Target",
    "choose",
    "previous_payloads",
    "remove_from_iso",
]

# The quickest first: that is the order in which `auto` asks them.
INJECTORS: Mapping[str, Injector] = MappingProxyType({"updates": updates, "initrd": initrd, "rootfs": rootfs})


# Of ways that would be right too, why they are left.
_SLOWER: Mapping[str, str] = MappingProxyType(
    {
        "updates": "it would not be in the root filesystem",
        "initrd": "right too, and nodes would have more to fetch by TFTP",
        "rootfs": "right too, and slower to pack",
    }
)
_QUICKEST = "the quickest that is right for this image"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The way taken, and why."""

    name: str
    injector: Injector
    why: str


def choose(wanted: str, image: LiveImage, *, rewrite: Rewrite | None = None) -> Choice:
    """The injector `wanted`, or for `auto` the quickest that is right for `image`; `rewrite` where that is asked for.

    Raises InputError when it is, or all are, not right.
    """
    if rewrite and not _is_so(image, rewrite):
        if wanted not in ("auto", "rootfs"):
            raise InputError(_unsuitable(image, {wanted: "it leaves the root filesystem's compressor as it is"}))
        if reason := rewrite.unsupported_reason(image):
            raise InputError(_unsuitable(image, {"rootfs": reason}))
        return Choice(name="rootfs", injector=rewrite, why="the way that can change the compressor")
    if wanted in INJECTORS:
        injector = INJECTORS[wanted]
        if reason := injector.unsupported_reason(image):
            raise InputError(_unsuitable(image, {wanted: reason}))
        return Choice(name=wanted, injector=injector, why="as asked")
    left: dict[str, str] = {}
    # who gives a root filesystem gets it back with the agent in it
    order = sorted(INJECTORS, key=lambda name: name != "rootfs") if image.rootfs_source else INJECTORS
    for name in order:
        injector = INJECTORS[name]
        reason = injector.unsupported_reason(image)
        if reason is None:
            rest = [other for other in INJECTORS if other not in (name, *left)]
            left |= {other: INJECTORS[other].unsupported_reason(image) or _SLOWER[other] for other in rest}
            others = "".join(f"; not `{other}`: {why}" for other, why in left.items())
            first = "into the root filesystem that was given" if image.rootfs_source and name == "rootfs" else _QUICKEST
            return Choice(name=name, injector=injector, why=f"{first}{others}")
        left[name] = reason
    raise InputError(_unsuitable(image, left))


def remove_from_iso(image: LiveImage, *, target: Target, work: Path, console: Console) -> Injected | None:
    """Write the ISO without what former packs put into it; None, and nothing is written, when there is nothing.

    Raises WorkError and OSError, as injectors do.
    """
    ways = {one.how for one in previous_payloads(image)}
    if "updates" in ways:
        return updates.remove_payload(image, target=target, work=work, console=console)
    return rootfs.remove_payload(image, target=target, work=work, console=console) if "rootfs" in ways else None


def _is_so(image: LiveImage, rewrite: Rewrite) -> bool:
    """Whether the root filesystem has that compressor, and no level is asked for: then there is nothing to rewrite."""
    superblock = image.live.superblock if image.live else None
    return rewrite.level is None and superblock is not None and superblock.compressor == rewrite.compressor


def _unsuitable(image: LiveImage, reasons: Mapping[str, str]) -> Problem:
    told = "; ".join(f"`{name}`: {why}" for name, why in reasons.items())
    others = [name for name in INJECTORS if name not in reasons and INJECTORS[name].unsupported_reason(image) is None]
    hint = f"--inject {others[0]} can" if others else "the image has to change; `--dry-run` shows what pxe-pack sees"
    return Problem(reference="inject-unsuitable", message=f"{image.path} cannot be packed this way: {told}", hint=hint)
