"""The image's files, by the paths that GRUB uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pxe_pack.image.grub.commands import plain_path


class UnsuitableGrubConfigError(ValueError):
    """The configuration cannot be made to boot over the network; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Access to the image's files by GRUB paths such as `/boot/vmlinuz`."""

    exists: Callable[[str], bool]
    read: Callable[[str], str]  # a text file's content; empty if it does not exist
    names: Callable[[str], Iterable[str]] = lambda _: ()  # names of the files in a folder

    def located(self, path: str) -> str:
        """The path of a file that an entry names; /boot may have been a separate filesystem. Empty if not found."""
        plain = plain_path(path)
        return next((where for where in (plain, f"/boot{plain}") if self.exists(where)), "")
