"""The injectors, the ways to put a payload into an image: one Protocol, a file each, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import initrd, rootfs, updates
from pxe_pack.inject.injector import Injected, Injector, Target
from pxe_pack.inject.original_iso import PackedIso, original_image
from pxe_pack.inject.previous_payload import previous_payloads
from pxe_pack.inject.rewrite import Rewrite
from pxe_pack.tools import InputError

__all__ = [
    "INJECTORS",
    "Choice",
    "Injected",
    "Injector",
    "PackedIso",
    "Rewrite",
    "Target",
    "choose",
    "original_image",
    "previous_payloads",
]

# Quickest first: `auto` tries them in this order.
INJECTORS: Mapping[str, Injector] = MappingProxyType({"updates": updates, "initrd": initrd, "rootfs": rootfs})


# Why an injector that would also work was not chosen.
_SLOWER: Mapping[str, str] = MappingProxyType(
    {
        "updates": "works too, but leaves the agent outside the root filesystem",
        "initrd": "works too, but nodes would download more over TFTP",
        "rootfs": "works too, but packs more slowly",
    }
)
_QUICKEST = "the quickest that works for this image"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The chosen injector."""

    name: str
    injector: Injector
    why: str  # for the user


def choose(wanted: str, image: LiveImage, *, rewrite: Rewrite | None = None) -> Choice:
    """The injector named `wanted`; for `auto`, the quickest that works for `image`.

    It is `rewrite` if that is given and would change anything. Raises InputError if the wanted injector, or for `auto`
    every injector, does not work for this image.
    """
    if rewrite and not _already_matches(image, rewrite):
        if wanted not in ("auto", "rootfs"):
            raise InputError(_unsuitable(image, {wanted: "it cannot change the root filesystem's compressor"}))
        if reason := rewrite.unsupported_reason(image):
            raise InputError(_unsuitable(image, {"rootfs": reason}))
        return Choice(name="rootfs", injector=rewrite, why="the only one that can change the compressor")
    if wanted in INJECTORS:
        injector = INJECTORS[wanted]
        if reason := injector.unsupported_reason(image):
            raise InputError(_unsuitable(image, {wanted: reason}))
        return Choice(name=wanted, injector=injector, why="as requested")
    rejected: dict[str, str] = {}
    # a root filesystem as input comes out with the agent inside it
    order = sorted(INJECTORS, key=lambda name: name != "rootfs") if image.rootfs_source else INJECTORS
    for name in order:
        injector = INJECTORS[name]
        reason = injector.unsupported_reason(image)
        if reason is None:
            rest = [other for other in INJECTORS if other not in (name, *rejected)]
            rejected |= {other: INJECTORS[other].unsupported_reason(image) or _SLOWER[other] for other in rest}
            others = "".join(f"; not `{other}`: {why}" for other, why in rejected.items())
            first = "the input is a root filesystem" if image.rootfs_source and name == "rootfs" else _QUICKEST
            return Choice(name=name, injector=injector, why=f"{first}{others}")
        rejected[name] = reason
    raise InputError(_unsuitable(image, rejected))


def _already_matches(image: LiveImage, rewrite: Rewrite) -> bool:
    """Whether there is nothing to rewrite: the root filesystem has that compressor, and no level is requested."""
    superblock = image.live.superblock if image.live else None
    return rewrite.level is None and superblock is not None and superblock.compressor == rewrite.compressor


def _unsuitable(image: LiveImage, reasons: Mapping[str, str]) -> Problem:
    listed = "; ".join(f"`{name}`: {why}" for name, why in reasons.items())
    others = [name for name in INJECTORS if name not in reasons and INJECTORS[name].unsupported_reason(image) is None]
    hint = f"use --inject {others[0]}" if others else "change the image; `pxe-pack show` prints what is in it"
    return Problem(reference="inject-unsuitable", message=f"cannot inject into {image.path}: {listed}", hint=hint)
