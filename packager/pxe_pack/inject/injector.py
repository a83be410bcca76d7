"""The Injector Protocol, the target it writes to, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pxe_pack.console import Console
from pxe_pack.hashing import SizeAndDigest
from pxe_pack.image.liveos import LiveImage
from pxe_pack.payload import Entry, Payload


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where an injector writes: a layout, in which it creates the ISO and the initrds that it changes."""

    place: Callable[[str], Path]  # path in the layout -> where to write that file; parent folders exist
    iso: str  # the ISO's path in the layout; empty for an image without one
    hook: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)  # files that each initrd gets besides


@dataclass(frozen=True, kw_only=True, slots=True)
class Injected:
    """The files an injector has written, the ISO among them. The other boot files are exported from the image."""

    files: Mapping[str, SizeAndDigest]  # by path in the layout
    inputs: Mapping[str, SizeAndDigest] = field(default_factory=dict)  # those it has hashed, by path in the image


class Injector(Protocol):
    """A way to put the payload into an image. Modules of this package implement it."""

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802  a module's constant
        """The external programs it runs."""

    @property
    def HOW(self) -> str:  # noqa: N802
        """What it does, as a short phrase for the user."""

    def unsupported_reason(self, image: LiveImage) -> str | None:
        """Why this injector does not work for `image`; None if it does."""

    def disk_space(self, image: LiveImage, payload: Payload) -> int:
        """Upper bound, in bytes, of the disk space for the ISO, for additions to other files, and temporary files."""

    def inject(self, image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
        """Write the files of `target` that contain the payload, and the ISO; `work` is a folder for temporary files.

        Raises WorkError if an external program fails, and OSError for the disk's errors.
        """
