"""The images there are, and the building of each."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from liveos import bootloader, ext4, fullos, grubcfg, iso, pxedir, rootfs, specials, squash, tiny, tree
from liveos.bootloader import BootLoaders
from liveos.cache import Cache, beside, content_key
from liveos.grubcfg import Kernel
from liveos.programs import BuildError
from liveos.rootfs import BootFiles
from liveos.specials import Inode

_HERE = Path(__file__).resolve().parent
SAVED_CONFIGS = """\
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
    full_os: bool = False  # no squashfs: the initrd is the whole system, compressed with `compressor` (gzip or zstd)
    media: Literal["iso", "pxe-dir", "pxe-tar"] = "iso"  # as Image Customizer's --output-image-format


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
        "full-os": replace(_IC16, full_os=True),
        "pxe-dir": replace(_IC16, media="pxe-dir"),
    }
)


def _quiet(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A root filesystem in parts, and what boots it."""

    boot: BootFiles
    base: Path | None  # a tar
    over: Callable[[], Iterable[Inode]]  # what is laid over it


def build(shape: Shape, output: Path, *, cache: Cache | None = None, say: Callable[[str], None] = _quiet) -> None:
    """Write the image to `output` (beside it, then renamed); raises BuildError."""
    made = cached(shape, cache=cache, say=say)
    with beside(output) as partial:
        if made.is_dir():
            shutil.copytree(made, partial, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(made, partial)


def system(shape: Shape, *, cache: Cache, say: Callable[[str], None] = _quiet) -> System:
    """What the image of a shape is made from, bootstrapped now if it is not in the cache. Raises BuildError."""
    if shape.contents == "tiny":
        return System(boot=tiny.boot_files(cache), base=None, over=tiny.tree)
    bootstrapped = rootfs.base(cache, say)
    return System(boot=bootstrapped.boot, base=bootstrapped.tree, over=tree.node_files)


def cached(shape: Shape, *, cache: Cache | None = None, say: Callable[[str], None] = _quiet) -> Path:
    """The image in the cache, made now if it is not there. Shared, so copy it to change it. Raises BuildError."""
    cache = cache if cache is not None else Cache()
    loaders = bootloader.boot_loaders(cache, say)
    made = system(shape, cache=cache, say=say)
    kernel = Kernel("vmlinuz", "initrd.img")
    if shape.versioned:
        kernel = Kernel(f"vmlinuz-{made.boot.release}", f"initramfs-{made.boot.release}.img")
    files: dict[str, Path | str] = {
        "boot/grub2/grubenv": grubcfg.GRUBENV,
        f"boot/{kernel.kernel}": made.boot.kernel,
        "azl-image-customizer/saved-configs.yaml": SAVED_CONFIGS,
    }
    if shape.full_os:
        files[f"boot/{kernel.initrd}"] = _full_os_initrd(shape, made, cache=cache, say=say)
    else:
        files |= {
            f"boot/{kernel.initrd}": made.boot.initrd,
            "liveos/rootfs.img": _root_image(shape, base=made.base, over=made.over, cache=cache, say=say),
        }
    if shape.media == "iso":
        return _iso(shape, kernel, files=files, loaders=loaders, cache=cache, say=say)
    return _pxe(shape, kernel, files=files, loaders=loaders, cache=cache, say=say)


def _iso(
    shape: Shape,
    kernel: Kernel,
    *,
    files: Mapping[str, Path | str],
    loaders: BootLoaders,
    cache: Cache,
    say: Callable[[str], None],
) -> Path:
    with_pxe = shape.grub_pxe and not shape.full_os
    whole: dict[str, Path | str] = {
        "boot/grub2/grub.cfg": _grub_cfg(shape, kernel),
        **({"boot/grub2/grub-pxe.cfg": grubcfg.pxe(kernel)} if with_pxe else {}),
        **files,
    }
    key = content_key(*sorted(map(str, whole.items())), str(loaders), shape.efi_dir, _HERE / "iso.py")

    def make(partial: Path) -> None:
        with cache.scratch() as work:
            say("writing the ISO")
            iso.write(partial, files=whole, loaders=loaders, efi_dir=shape.efi_dir, work=work)

    return cache.get(f"{shape.contents}-{key}.iso", make)


def _pxe(
    shape: Shape,
    kernel: Kernel,
    *,
    files: Mapping[str, Path | str],
    loaders: BootLoaders,
    cache: Cache,
    say: Callable[[str], None],
) -> Path:
    """The pxe-dir of a shape, or the archive of one: boot files, and the ISO that a bootstrap initrd fetches."""
    served = {name: content for name, content in files.items() if name != "liveos/rootfs.img"}
    grub_cfg = grubcfg.full_os(kernel, search=False)
    if not shape.full_os:
        served[pxedir.ISO] = cached(replace(shape, media="iso"), cache=cache, say=say)
        grub_cfg = grubcfg.pxe_from_iso(_grub_cfg(shape, kernel))
    whole: dict[str, Path | str] = {"boot/grub2/grub.cfg": grub_cfg, **served}
    key = content_key(*sorted(map(str, whole.items())), str(loaders), _HERE / "pxedir.py")
    folder = cache.get(
        f"{shape.contents}-{key}.pxe", lambda partial: pxedir.write(partial, files=whole, loaders=loaders)
    )
    if shape.media == "pxe-dir":
        return folder
    return cache.get(f"{shape.contents}-{key}.tar.gz", lambda partial: pxedir.archive(partial, folder))


def _grub_cfg(shape: Shape, kernel: Kernel) -> str:
    if shape.full_os:
        return grubcfg.full_os(kernel, search=True)
    return grubcfg.iso_guarded(kernel) if shape.guarded else grubcfg.iso(kernel)


def _full_os_initrd(shape: Shape, made: System, *, cache: Cache, say: Callable[[str], None]) -> Path:
    """The shape's boot/initrd.img in the cache; named by all that goes into it."""
    laid = list(made.over())
    compression = shape.compressor
    if compression not in ("gzip", "zstd"):
        raise BuildError(f"a full-os initrd is made with gzip or zstd, not {compression}")
    key = content_key(
        compression, made.base.parent.name if made.base else "", *map(repr, laid),
        *(_HERE / f"{module}.py" for module in ("tree", "specials", "newc", "fullos")),
    )  # fmt: skip

    def make(partial: Path) -> None:
        say(f"making the full-os initrd ({compression})")
        with cache.scratch() as work:
            fullos.make(partial, base=made.base, over=laid, compression=compression, work=work)

    return cache.get(f"{shape.contents}-full-{key}.img", make)


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
