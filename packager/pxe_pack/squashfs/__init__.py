"""squashfs 4.0: read images without privilege, and graft files onto them without recompressing anything.

`Image.open(path)` reads, `graft(source, additions=…, output=…)` adds files, and `prune(…)` removes them again.
"""

from pxe_pack.squashfs.addition import Addition, NewDirectory, NewFile, NewSymlink
from pxe_pack.squashfs.errors import SquashfsError
from pxe_pack.squashfs.graft import Graft, GraftReport, graft, prune
from pxe_pack.squashfs.graft_record import original
from pxe_pack.squashfs.image import Image
from pxe_pack.squashfs.inodes import Device, Directory, File, Inode, Kind, Symlink
from pxe_pack.squashfs.superblock import Compressor, Superblock

__all__ = [
    "Addition",
    "Compressor",
    "Device",
    "Directory",
    "File",
    "Graft",
    "GraftReport",
    "Image",
    "Inode",
    "Kind",
    "NewDirectory",
    "NewFile",
    "NewSymlink",
    "SquashfsError",
    "Superblock",
    "Symlink",
    "graft",
    "original",
    "prune",
]
