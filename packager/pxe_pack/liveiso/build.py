"""Build a LiveOS ISO from a root filesystem: its squashfs, kernels and initrds from /boot, boot loaders, grub.cfg.

Source: dracut.cmdline(7), "Booting live images"; kernel-install(8) on /etc/kernel/cmdline.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.image import rootfs
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_CFG, GRUB_DIR, GRUB_PXE_CFG
from pxe_pack.image.grub.network import Files, for_network
from pxe_pack.image.grub.words import quoted
from pxe_pack.image.iso.reader import Iso, open_iso
from pxe_pack.image.limits import Limit
from pxe_pack.image.rootfs_source import RootfsSource
from pxe_pack.image.squashfs import Tree, open_tree
from pxe_pack.image.tree import text_file
from pxe_pack.liveiso import iso_writer
from pxe_pack.liveiso.kernels import KernelPair, kernel_pairs
from pxe_pack.liveiso.squash import WRITER, write_squashfs
from pxe_pack.loaders import choose_loaders, in_tree
from pxe_pack.squashfs import File, Image
from pxe_pack.tools import InputError

LIVE_DIR, SQUASHFS = "liveos", "rootfs.img"  # Image Customizer's names

StepContext = Callable[[str], AbstractContextManager[object]]  # title -> context manager around a long step

_CMDLINES = ("etc/kernel/cmdline", "usr/lib/kernel/cmdline")
_DISK_ARGUMENTS = ("root=", "rootfstype=", "rootflags=", "resume=", "BOOT_IMAGE=", "initrd=")
_GRUBENV = "# GRUB Environment Block\n".ljust(1024, "#")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltIso:
    """The finished ISO, open for reading, and the boot loaders on it."""

    iso: Iso
    loaders: BootLoaders


@contextmanager
def build_iso(
    source: RootfsSource, *, boot_url: str, boot_loader: Path | None, staging: Path, step: StepContext
) -> Iterator[BuiltIso]:
    """Build the ISO of `source` in the folder `staging`; the result is valid inside the context.

    `step` wraps each long step. Raises InputError if the result could not boot, and WorkError if a program fails.
    """
    if problems := tools.missing([WRITER, *iso_writer.TOOLS], reason="to build an ISO from a root filesystem"):
        raise InputError(*problems)
    found = kernel_pairs(source.names, given=source.path)
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    mtime = int(epoch) if epoch.isdecimal() else source.newest
    free = shutil.disk_usage(staging).free
    if free < source.size:
        message = (
            f"an ISO of {source.path} needs up to {source.size:,} bytes in {staging.parent}, but only {free:,} are free"
        )
        hint = "use --output to choose a folder on another filesystem"
        raise InputError(Problem(reference="disk-full", message=message, hint=hint))
    stage = staging / "iso"
    root = stage / LIVE_DIR / SQUASHFS
    root.parent.mkdir(parents=True)
    with step("Compressing the root filesystem"):
        write_squashfs(source, root, mtime=mtime)
    (stage / "boot").mkdir()
    with open_tree(root) as tree:
        facts = rootfs.read_root(tree)
        loaders = choose_loaders(in_tree(tree, machine=facts.machine), machine=facts.machine, given=boot_loader).loaders
        for pair in found:
            for path, name in ((pair.kernel, pair.kernel_name), (pair.initrd, pair.initrd_name)):
                _copy(tree.image, tree.resolve(path), stage / "boot" / name, given=source.path)
        menu = _menu(found, title=facts.name or "LiveOS", arguments=_arguments(tree))
    texts = {GRUB_CFG: menu, f"{GRUB_DIR}/grubenv": _GRUBENV}
    if boot_url:
        files = Files(exists=lambda path: (stage / path.lstrip("/")).exists(), read=lambda _: "")
        texts[GRUB_PXE_CFG] = for_network(menu, boot_url=boot_url, files=files).text
    target = staging / "made.iso"
    with step("Building the ISO"):
        iso_writer.write(target, stage, loaders=loaders, texts=texts, mtime=mtime, work=staging)
    root.unlink()
    with open_iso(target, input_path=source.path) as opened:
        yield BuiltIso(iso=opened, loaders=loaders)


def _copy(image: Image, path: str, target: Path, *, given: Path) -> None:
    """Copy a kernel or an initrd out of the root filesystem."""
    found = image.find(path)
    if not isinstance(found, File) or not found.size:
        message = f"{path} in the root filesystem {given} is not a regular file, or is empty"
        raise InputError(Problem(reference="root-no-kernel", message=message, hint="reinstall the kernel in it"))
    Limit.INITRD_SIZE.check(found.size)
    with target.open("wb") as file:
        file.writelines(image.chunks(found))


def _arguments(tree: Tree) -> list[str]:
    """The system's own kernel arguments, without those about its disk."""
    for path in _CMDLINES:
        if path in tree.stat([path]):
            text = text_file(tree, path)
            return [word for word in text.split() if not word.startswith(_DISK_ARGUMENTS) and word not in ("ro", "rw")]
    return []


def _menu(found: Sequence[KernelPair], *, title: str, arguments: Sequence[str]) -> str:
    live = f"root=live:CDLABEL={iso_writer.VOLUME_ID} rd.live.image rd.live.dir={LIVE_DIR} rd.live.squashimg={SQUASHFS}"
    words = " ".join([live, "rd.live.overlay.overlayfs=1", *map(quoted, arguments)])
    entries = [
        f"menuentry {quoted(f'{title} ({pair.version})' if pair.version else title)} {{\n"
        f"\tlinux /boot/{pair.kernel_name} {words}\n"
        f"\tinitrd /boot/{pair.initrd_name}\n"
        "}\n"
        for pair in found
    ]
    search = f"search --no-floppy --label {iso_writer.VOLUME_ID} --set=root\n"
    return "".join(["set timeout=3\nset default=0\n", search, "\n", *entries])
