"""What an injector is: the Protocol that every way in keeps, where it writes, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pxe_pack.console import Console
from pxe_pack.hashing import SizeAndDigest
from pxe_pack.image.liveos import LiveImage
from pxe_pack.payload import Payload


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where an injector writes: a layout, in which it makes the files that it changes, and no others."""

    place: Callable[[str], Path]  # where the layout's file of that path goes; its folders are there
    iso: str  # the ISO's path in the layout; empty for an image that has none


@dataclass(frozen=True, kw_only=True, slots=True)
class Injected:
    """What an injector has written. Whatever else the layout has is exported as the image has it."""

    files: Mapping[str, SizeAndDigest]  # of the layout, by path
    # the files of the image they were made from, by the names in LiveImage
    inputs: Mapping[str, SizeAndDigest] = field(default_factory=dict)


class Injector(Protocol):
    """A way in. Modules of this package are the injectors there are."""

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802  a module's constant
        """The outside programs it runs."""

    @property
    def HOW(self) -> str:  # noqa: N802
        """What it does, in a few words."""

    def objection(self, image: LiveImage) -> str | None:
        """Why this way is not right for `image`; None when it is."""

    def room(self, image: LiveImage, payload: Payload) -> int:
        """Bytes of disk that the ISO in the layout, what it adds to other files, and temporary files take at most."""

    def inject(self, image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
        """Write the files of `target` that have the payload in them; `work` is for temporary files.

        Raises WorkError, and OSError as the disk does.
        """
