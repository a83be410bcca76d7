"""What reading an image may cost: one table of limits, and the error that says which was exceeded.

They are far above what producers write, and keep a damaged or hostile image from taking gigabytes or hours.
docs/images.md lists them, and docs/decisions/0037-limits-of-images.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError


class Limit(Enum):
    """How much is allowed, of what: "`subject` has more than `most` `of`"."""

    NAMES = 200_000, "it", "files and folders"
    ARCHIVE_NAMES = 100_000, "an archive", "files and folders"  # tarfile takes 0.2 ms for each
    NAMES_SIZE = 64 << 20, "it", "bytes of file names"
    DEPTH = 64, "it", "folders inside one another"
    PATH = 4095, "it", "bytes in the path or the link target of a file"  # PATH_MAX of limits.h, without the last byte

    ISO_DIRECTORY = 16 << 20, "its ISO 9660 file system", "bytes in one directory"
    ISO_DIRECTORIES = 64 << 20, "its ISO 9660 file system", "bytes in all directories"
    ISO_ATTRIBUTES = 16 << 20, "its ISO 9660 file system", "bytes of Rock Ridge attributes outside the directories"
    ISO_AREAS = 64, "its ISO 9660 file system", "places for the Rock Ridge attributes of one file"
    ISO_EXTENTS = 256, "its ISO 9660 file system", "extents for one file"
    BOOT_IMAGES = 8, "its El Torito boot catalog", "boot images for UEFI"

    # the FAT specification's limit of a directory: 65,536 entries of 32 bytes
    FAT_DIRECTORY = 2 << 20, "a FAT file system in it", "bytes in one directory"
    FAT_FILES = 20_000, "a FAT file system in it", "files and folders"
    FAT_DEPTH = 32, "a FAT file system in it", "folders inside one another"
    FAT_SIZE = 256 << 20, "a FAT file system in it", "bytes to read, in boot loaders and directories"

    # more is never downloaded for booting, or means an archive made to fill the memory
    EXPANSION = 200, "a compressed or sparse part of it", "bytes for each byte that is stored"
    DECOMPRESSOR = 128 << 20, "a compressed part of it", "bytes of memory needed to decompress it"

    # Linux on x86 loads initrds below 2 GiB (Documentation/arch/x86/boot.rst, initrd_addr_max)
    INITRD_SIZE = 2 << 30, "an initrd in it", "bytes"
    INITRD_PARTS = 64, "an initrd in it", "concatenated parts"
    INITRD_FILES = 300_000, "an initrd in it", "files and folders"
    INITRD_NAMES = 64 << 20, "an initrd in it", "bytes of file names"
    INITRD_KEPT = 64 << 20, "an initrd in it", "bytes in the files to examine"

    # a grub-mkconfig file for 20 kernels has 20 KB
    GRUB_BYTES = 1 << 20, "a GRUB configuration in it", "bytes, with the files that it includes"
    GRUB_TOKENS = 200_000, "a GRUB configuration in it", "words, separators and gaps"
    GRUB_DEPTH = 64, "a GRUB configuration in it", "blocks, conditions or included files inside one another"
    GRUB_INCLUDES = 64, "a GRUB configuration in it", "included files"
    GRUB_ENTRIES = 256, "a GRUB configuration in it", "menu entries"
    GRUB_STEPS = 50_000, "a GRUB configuration in it", "commands to run"
    GRUB_TEXT = 8 << 20, "a GRUB configuration in it", "characters in the commands that it runs"
    GRUB_VALUE = 1 << 14, "a GRUB configuration in it", "characters in one command or variable"

    LOADER_SIZE = 64 << 20, "a boot loader in it", "bytes"
    LOADERS = 256, "it", "UEFI programs where boot loaders are"
    LOADERS_SIZE = 1 << 30, "it", "bytes in the UEFI programs where boot loaders are"
    KERNEL_SIZE = 128 << 20, "a kernel in it", "bytes"
    KERNELS_SIZE = 1 << 30, "it", "bytes in all kernels"
    KERNEL_UNPACKED = 256 << 20, "a kernel in it", "bytes after decompression"

    # what is beyond these is not examined; shims have two signatures of 10,000 bytes, with two certificates each
    SIGNATURES = 16, "a UEFI program in it", "signatures"
    SIGNATURE_SIZE = 1 << 18, "a UEFI program in it", "bytes in a signature"
    SIGNATURE_CERTIFICATES = 16, "a UEFI program in it", "certificates in a signature"
    SBAT_SIZE = 1 << 16, "a UEFI program in it", "bytes in its SBAT"
    VENDOR_SIZE = 1 << 20, "a shim in it", "bytes in its vendor table"

    SQUASHFS_RECORDS = 1 << 24, "a squashfs in it", "entries in one table"
    SQUASHFS_INDEX = 1 << 16, "a squashfs in it", "entries in the index of one directory"
    SQUASHFS_WALK = 2_000_000, "a squashfs in it", "files and folders"
    SQUASHFS_SEARCH = 5_000_000, "a squashfs in it", "names to search"
    SQUASHFS_LISTED = 200_000, "a squashfs in it", "names in one directory to examine"
    SQUASHFS_XATTRS = 16 << 20, "a squashfs in it", "bytes in the extended attributes of one file"
    SQUASHFS_FILE = 64 << 20, "a squashfs in it", "bytes in a file to examine"  # the C library, configurations

    ROOT_NAMES = 500_000, "its root filesystem, a tar,", "files and folders"
    ROOT_TEXT = 1 << 20, "its root filesystem", "bytes in a configuration file"
    ROOT_NETWORKS = 1000, "its root filesystem", "network configuration files"
    # refpolicy has 6,000 expressions, of which a few hundred may apply to one of our 30 paths
    PATTERN_STATES = 10_000, "its SELinux policy", "states in one regular expression"
    PATTERN_STEPS = 10_000_000, "its SELinux policy", "steps to match its regular expressions"
    ROOT_CONFIGS = 16 << 20, "its root filesystem", "bytes in kernel configurations"

    def __init__(self, most: int, subject: str, of: str) -> None:
        self.most = most
        self.subject = subject
        self.of = of

    def check(self, count: int) -> None:
        """Raise LimitError if `count` exceeds the limit."""
        if count > self.most:
            raise LimitError(self)


class LimitError(InputError):
    """An image exceeds a limit; the message says which."""

    def __init__(self, limit: Limit, *, image: str = "the image") -> None:
        self.limit = limit
        message = f"{image} cannot be read: {limit.subject} has more than {limit.most:,} {limit.of}"
        hint = "make sure that this is an image, from a source that you trust; docs/images.md lists the limits"
        super().__init__(Problem(reference="image-limit", message=message, hint=hint))


@dataclass(slots=True)
class Usage:
    """What one reader has used of one limit."""

    limit: Limit
    used: int = 0

    def add(self, count: int = 1) -> None:
        """Count what is used now. Raises LimitError if that exceeds the limit."""
        self.used += count
        self.limit.check(self.used)


@contextmanager
def limits_of(image: Path) -> Iterator[None]:
    """Name the image in a LimitError that is raised inside."""
    try:
        yield
    except LimitError as error:
        raise LimitError(error.limit, image=str(image)) from error
