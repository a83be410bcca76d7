"""Examine the programs that UEFI starts and GRUB loads: boot loaders and kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pxe_pack.image import kernel
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.efi import EfiProgram, examined
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.liveos import LiveImage


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """A kernel."""

    release: str  # as in `uname -r`; empty if unknown
    program: EfiProgram


@dataclass(frozen=True, kw_only=True, slots=True)
class Programs:
    """The programs of an image."""

    loaders: tuple[EfiProgram, ...]  # with their names in the layout
    kernels: Mapping[str, Kernel]  # by path on the medium


def programs(image: LiveImage, loaders: BootLoaders | None) -> Programs:
    """Examine `loaders` and the kernels of `image`. Raises LimitError, and OSError if one cannot be read."""
    files = loaders.files if loaders else {}
    kernels = {}
    size = Usage(Limit.KERNELS_SIZE)
    for path in image.network.kernels:
        if entry := image.media.find(path):
            Limit.KERNEL_SIZE.check(entry.size)
            size.add(entry.size)
            data = image.media.read(entry)
            kernels[path] = Kernel(release=kernel.release(data), program=examined(path, data))
    found = [examined(name, b"".join(file.pieces())) for name, file in files.items()]
    return Programs(loaders=tuple(found), kernels=kernels)
