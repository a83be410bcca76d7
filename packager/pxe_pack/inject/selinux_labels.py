"""The SELinux labels that the payload's files get in an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pxe_pack.image.file_contexts import read_file_contexts
from pxe_pack.image.squashfs import Tree
from pxe_pack.payload import Entry

XATTR: Final = "security.selinux"


class SelinuxLabels:
    """Labels for new files: from the image's file contexts, else inherited from the folder they go into."""

    def __init__(self, tree: Tree) -> None:
        """Raises InputError if the image's file contexts cannot be parsed."""
        self._tree = tree
        self._contexts = read_file_contexts(tree)
        self._folders: dict[str, bytes | None] = {}

    def xattrs(self, entry: Entry) -> Mapping[str, bytes]:
        """The extended attributes of an entry: its label; empty if the image has no labels."""
        context = self._contexts.label(f"/{entry.path}", entry.mode) if self._contexts else None
        # NUL-terminated, as setfilecon(3) writes it
        label = context.encode() + b"\0" if context else self._of_folder(entry.path.rpartition("/")[0])
        return {XATTR: label} if label else {}

    def _of_folder(self, folder: str) -> bytes | None:
        """The label of the nearest existing parent folder, which is what the kernel gives a new file."""
        if folder not in self._folders:
            label = self._tree.xattrs(folder).get(XATTR)
            self._folders[folder] = label or (self._of_folder(folder.rpartition("/")[0]) if folder else None)
        return self._folders[folder]
