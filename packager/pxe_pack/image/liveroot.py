"""Find the LiveOS in an ISO: the file with the root filesystem, where dracut would look, recognised by content."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from pxe_fetch.contract.problem import Problem
from pxe_pack.hashing import Span
from pxe_pack.image import dracut, rootfs, squashfs
from pxe_pack.image.iso.reader import Iso, contiguous
from pxe_pack.image.iso.udf import has_udf, udf_span
from pxe_pack.image.media import MediaEntry
from pxe_pack.image.rootfs import RootFacts
from pxe_pack.image.squashfs import Superblock, Tree
from pxe_pack.image.tree import resolved
from pxe_pack.squashfs import Image
from pxe_pack.tools import InputError

# dracut's dmsquash-live-root: defaults of rd.live.dir and rd.live.squashimg, and the other names it looks for
LIVE_DIR, SQUASHFS_IMAGE, ROOTFS_IMAGE = "LiveOS", "squashfs.img", "rootfs.img"
_EXT3_IMAGE = "ext3fs.img"

_EXT_MAGIC_AT, _EXT_MAGIC = 1024 + 56, b"\x53\xef"


@dataclass(frozen=True, kw_only=True)
class LiveOS:
    """An ISO and the root filesystem in it that a small initrd mounts."""

    iso: Iso
    root: MediaEntry  # the file with the root filesystem
    span: Span  # its position in the ISO
    superblock: Superblock | None  # None: a plain ext filesystem instead of a squashfs
    squashfs_tree: Tree | None  # None likewise
    facts: RootFacts
    case_differs: bool = False  # dracut finds the root filesystem only because the ISO's names have no case (Joliet)

    @cached_property
    def tree(self) -> Tree:
        """The tree of the squashfs. Raises ValueError if there is none."""
        if self.squashfs_tree is None:
            raise ValueError(f"{self.root.path} in {self.iso.path} is not a squashfs")
        return self.squashfs_tree

    @property
    def root_format(self) -> str:
        """squashfs, ext4-in-squashfs or ext4."""
        if self.superblock is None:
            return "ext4"
        return "ext4-in-squashfs" if self.facts.nested else "squashfs"


def find_live(image: Iso, arguments: Iterable[tuple[str, ...]]) -> LiveOS:
    """The LiveOS in `image` that the kernel `arguments` (per menu entry) boot. Raises InputError if there is none."""
    root, exact = _root_image(image, arguments)
    span = contiguous(root)
    if span is None:
        raise InputError(
            Problem(
                reference="image-scattered",
                message=f"{root.path} is fragmented in {image.path}",
                hint="rewrite the ISO with xorriso, which stores files contiguously",
            )
        )
    if has_udf(image) and udf_span(image, root.path) != span:
        raise InputError(
            Problem(
                reference="image-no-liveos",
                message=f"{image.path} has a UDF file system, which nodes mount, but {root.path} is not the same in it",
                hint="rewrite the ISO without UDF: xorriso writes none, genisoimage only with -udf",
            )
        )
    superblock = squashfs.superblock(image.file, offset=span.offset)
    tree: Tree | None = None
    if superblock:
        tree = Tree(image=Image.within(image.file.fileno(), image.path, offset=span.offset, size=span.size))
    facts = rootfs.read_root(tree) if tree else RootFacts()
    return LiveOS(
        iso=image, root=root, span=span, superblock=superblock, squashfs_tree=tree, facts=facts, case_differs=not exact
    )


def _root_image(image: Iso, arguments: Iterable[tuple[str, ...]]) -> tuple[MediaEntry, bool]:
    """The file with the root filesystem, and whether its name is exactly what dracut looks for.

    It is what dracut mounts for one of `arguments`, if it is a file system.

    Source: dracut, dmsquash-live-root.sh: `/run/initramfs/live/${live_dir}/${squash_image}` if that exists, else
    rootfs.img or (up to dracut 107) ext3fs.img in the same folder; an empty value counts as none.
    """
    looked_for: dict[str, str] = {}  # path -> what is wrong with it
    for entry in arguments:
        folder = dracut.getarg(entry, dracut.LIVE_DIR) or LIVE_DIR
        named = dracut.getarg(entry, dracut.SQUASH_IMAGE) or SQUASHFS_IMAGE
        for name in (named, ROOTFS_IMAGE, _EXT3_IMAGE):
            path = f"{folder}/{name}"
            if found := _mounted(image, path):
                if found.is_file and _is_filesystem(image, found):
                    return found, resolved(path, image.entries.get) in image.entries
                looked_for[path] = "is not a file system"
                break  # dracut looks no further
        else:
            looked_for[f"{folder}/{named}"] = _absent(image, f"{folder}/{named}")
    raise InputError(
        Problem(
            reference="image-no-liveos",
            message=f"dracut finds no root filesystem in {image.path}: "
            + ", ".join(f"{path} {wrong}" for path, wrong in looked_for.items()),
            hint=f"set rd.live.dir and rd.live.squashimg to where it is; by default {LIVE_DIR}/{SQUASHFS_IMAGE}",
        )
    )


def _mounted(image: Iso, path: str) -> MediaEntry | None:
    """The entry at `path` below the mounted ISO, as Linux finds it: `.`, `..`, double slashes and links count."""
    if posixpath.normpath(path.lstrip("/")).startswith(".."):  # it leaves the ISO
        return None
    real = resolved(path, image.entries.get)
    return image.entries.get(real) if image.case_sensitive else image.find(real)


def _absent(image: Iso, path: str) -> str:
    other = image.find(resolved(path, image.entries.get))
    return f"does not exist (but {other.path} does: upper and lower case differ)" if other else "does not exist"


def _is_filesystem(image: Iso, entry: MediaEntry) -> bool:
    if squashfs.superblock(image.file, offset=entry.spans[0].offset if entry.spans else image.size):
        return True
    return image.read(entry, offset=_EXT_MAGIC_AT, size=2) == _EXT_MAGIC
