"""The images there are, and the building of each."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from liveos import bootloader, ext4, grubcfg, iso, rootfs, specials, squash, tiny, tree
from liveos.cache import Cache, beside, content_key
from liveos.specials import Inode

_HERE = Path(__file__).resolve().parent
_SAVED_CONFIGS = """\
liveOS:
  kernelCommandLine:
    extraCommandLine: []
pxe:
  bootstrapBaseUrl: ""
"""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How an image is made; a variant is `dataclasses.replace(SHAPES["tiny"], compressor="xz")`."""

    contents: Literal["debian", "tiny"]  # a root filesystem that boots, or a made-up one that is there in a second
    compressor: Literal["gzip", "zstd", "xz", "lz4", "lzo"]
    block_size: int  # of the squashfs, bytes
    grub_pxe: bool  # grub-pxe.cfg beside grub.cfg, as Image Customizer <= 0.15 has it
    guarded: bool  # grub.cfg asks `[ -f … ]` before its initrd line, as Azure Linux words it
    versioned: bool  # vmlinuz-<kver> and initramfs-<kver>.img, not vmlinuz and initrd.img
    efi_dir: Literal["efi/boot", "EFI/BOOT"]
    nested: bool = False  # liveos/rootfs.img is a squashfs that holds LiveOS/rootfs.img, an ext4


_IC08 = Shape(
    contents="debian", compressor="gzip", block_size=128 << 10,
    grub_pxe=True, guarded=False, versioned=False, efi_dir="efi/boot",
)  # fmt: skip
_IC16 = Shape(
    contents="debian", compressor="zstd", block_size=256 << 10,
    grub_pxe=False, guarded=True, versioned=True, efi_dir="EFI/BOOT",
)  # fmt: skip

SHAPES = MappingProxyType(
    {
        "ic08": _IC08,
        "ic16": _IC16,
        "ext4": replace(_IC16, contents="tiny", nested=True),
        "tiny": replace(_IC08, contents="tiny"),
    }
)


def _quiet(_: str) -> None:
    """Say nothing."""


def build(shape: Shape, output: Path, *, cache: Cache | None = None, say: Callable[[str], None] = _quiet) -> None:
    """Write the image to `output` (beside it, then renamed); raises BuildError."""
    with beside(output) as partial:
        shutil.copyfile(cached(shape, cache=cache, say=say), partial)


def cached(shape: Shape, *, cache: Cache | None = None, say: Callable[[str], None] = _quiet) -> Path:
    """The image in the cache, made now if it is not there. Shared, so copy it to change it. Raises BuildError."""
    cache = cache if cache is not None else Cache()
    loaders = bootloader.boot_loaders(cache, say)
    if shape.contents == "debian":
        bootstrapped = rootfs.base(cache, say)
        boot, base, over = bootstrapped.boot, bootstrapped.tree, tree.node_files
    else:
        boot, base, over = tiny.boot_files(cache), None, tiny.tree
    root = _root_image(shape, base=base, over=over, cache=cache, say=say)
    kernel = grubcfg.Kernel("vmlinuz", "initrd.img")
    if shape.versioned:
        kernel = grubcfg.Kernel(f"vmlinuz-{boot.release}", f"initramfs-{boot.release}.img")
    files: dict[str, Path | str] = {
        "boot/grub2/grub.cfg": grubcfg.iso_guarded(kernel) if shape.guarded else grubcfg.iso(kernel),
        "boot/grub2/grubenv": grubcfg.GRUBENV,
        **({"boot/grub2/grub-pxe.cfg": grubcfg.pxe(kernel)} if shape.grub_pxe else {}),
        f"boot/{kernel.kernel}": boot.kernel,
        f"boot/{kernel.initrd}": boot.initrd,
        "liveos/rootfs.img": root,
        "azl-image-customizer/saved-configs.yaml": _SAVED_CONFIGS,
    }
    key = content_key(*sorted(map(str, files.items())), str(loaders), shape.efi_dir, _HERE / "iso.py")

    def make(partial: Path) -> None:
        with cache.scratch() as work:
            say("writing the ISO")
            iso.write(partial, files=files, loaders=loaders, efi_dir=shape.efi_dir, work=work)

    return cache.get(f"{shape.contents}-{key}.iso", make)


def _root_image(
    shape: Shape, *, base: Path | None, over: Callable[[], Iterable[Inode]], cache: Cache, say: Callable[[str], None]
) -> Path:
    """The shape's liveos/rootfs.img in the cache; named by all that goes into it."""
    laid = list(over())
    key = content_key(
        shape.compressor, str(shape.block_size), str(shape.nested), base.parent.name if base else "", *map(repr, laid),
        *(_HERE / f"{module}.py" for module in ("tree", "specials", "squash", "ext4")),
    )  # fmt: skip

    def make(partial: Path) -> None:
        say(f"making the squashfs ({shape.compressor}, {shape.block_size >> 10} KiB blocks)")
        with cache.scratch() as work:
            contents, below = laid, base
            if shape.nested:
                image = work / "rootfs.img"
                ext4.make(image, base=base, over=laid, work=work)
                contents, below = [specials.folder("LiveOS"), Inode("LiveOS/rootfs.img", data=image.read_bytes())], None
            squash.squash(
                partial,
                compressor=shape.compressor,
                block_size=shape.block_size,
                feed=lambda stream: tree.write(stream, base=below, over=contents),
            )

    return cache.get(f"{shape.contents}-{key}.squashfs", make)
