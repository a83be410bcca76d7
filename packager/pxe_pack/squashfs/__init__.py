"""squashfs 4.0: images read without privilege, and files grafted on them without recompressing anything.

`Image.open(path)` reads; `graft(source, additions=…, output=…)` adds, and `prune(…)` takes that out again.
"""

from .addition import Addition, NewDirectory, NewFile, NewSymlink
from .errors import SquashfsError
from .graft import Graft, GraftReport, graft, prune
from .image import Image
from .inodes import Device, Directory, File, Inode, Kind, Symlink
from .record import original
from .superblock import Compressor, Superblock

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
