"""The image inside an initrd that was made with dracut's squash module, in which all of its programs are.

The archive has only what mounts that image; then the node switches to it, and the archive's other files are gone.
Sources: dracut, modules.d/99squash (up to 102) and 99squash-lib (from 103), init-squash.sh.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

from pxe_pack.image.limits import Limit
from pxe_pack.image.squashfs import Tree
from pxe_pack.squashfs import Image

Form = Literal["squashfs", "EROFS"]

_IMAGES: dict[str, Form] = {
    "squash-root.img": "squashfs",
    "squashfs-root.img": "squashfs",
    "erofs-root.img": "EROFS",
}


@dataclass(kw_only=True)
class SquashedContent:
    """Finds the image among the members of an archive, and keeps it in a temporary file without a name."""

    form: Form | None = None  # None: there is none, as in most initrds
    _file: BinaryIO | None = field(default=None, repr=False)

    def destination(self, path: str, size: int) -> BinaryIO | None:
        """The file to copy the member `path` of `size` bytes to, if it is the image. Raises LimitError, OSError."""
        if path not in _IMAGES:
            return None
        Limit.INITRD_SIZE.check(size)
        self.form = _IMAGES[path]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  as long as its tree is used
        return self._file

    @cached_property
    def tree(self) -> Tree | None:
        """What is in the image; None if there is none, or it is an EROFS. Valid when the archive was read."""
        if self._file is None or self.form != "squashfs":
            return None
        self._file.flush()
        return Tree(image=Image.within(self._file.fileno(), Path("squash-root.img")))
