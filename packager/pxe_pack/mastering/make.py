"""A root filesystem made into a LiveOS ISO: squashfs, kernels and initrds out of its /boot, boot loaders, grub.cfg.

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
from pxe_pack.image import grub, iso, rootfs
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grubconfig import GRUB_CFG, GRUB_DIR, GRUB_PXE_CFG
from pxe_pack.image.grubscript import quoted
from pxe_pack.image.iso import Iso
from pxe_pack.image.squashfs import Tree
from pxe_pack.loaders import choose_loaders, in_tree
from pxe_pack.mastering import disc
from pxe_pack.mastering.given import Given
from pxe_pack.mastering.kernels import Pair, pairs
from pxe_pack.mastering.squash import WRITER, squash
from pxe_pack.squashfs import File, Image
from pxe_pack.tools import InputError

LIVE_DIR, SQUASHFS = "liveos", "rootfs.img"  # as Image Customizer names them

Told = Callable[[str], AbstractContextManager[object]]

_LARGEST = 2 << 30  # bytes of a kernel or an initrd
_CMDLINES = ("etc/kernel/cmdline", "usr/lib/kernel/cmdline")
_OF_A_DISK = ("root=", "rootfstype=", "rootflags=", "resume=", "BOOT_IMAGE=", "initrd=")
_GRUBENV = "# GRUB Environment Block\n".ljust(1024, "#")


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """The ISO that was made, open, and the boot loaders on it."""

    iso: Iso
    loaders: BootLoaders


@contextmanager
def made(given: Given, *, boot_url: str, boot_loader: Path | None, staging: Path, told: Told) -> Iterator[Made]:
    """The ISO of `given`, made in the folder `staging`; valid inside the block.

    `told` is a context manager around each step that takes long. Raises InputError when it cannot boot, WorkError.
    """
    if problems := tools.missing([WRITER, *disc.TOOLS], reason="to make an ISO of a root filesystem"):
        raise InputError(*problems)
    found = pairs(given.names, given=given.path)
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    mtime = int(epoch) if epoch.isdecimal() else given.newest
    free = shutil.disk_usage(staging).free
    if free < given.size:
        message = f"an ISO of {given.path} takes up to {given.size:,} bytes in {staging.parent}, and {free:,} are free"
        hint = "choose a folder on another file system by --output"
        raise InputError(Problem(reference="disk-full", message=message, hint=hint))
    stage = staging / "iso"
    root = stage / LIVE_DIR / SQUASHFS
    root.parent.mkdir(parents=True)
    with told("Compressing the root filesystem"):
        squash(given, root, mtime=mtime)
    tree = Tree(file=root)
    facts = rootfs.read_root(tree)
    loaders = choose_loaders(in_tree(tree, machine=facts.machine), machine=facts.machine, given=boot_loader).loaders
    (stage / "boot").mkdir()
    with Image.open(root) as image:
        for pair in found:
            for path, name in ((pair.kernel, pair.kernel_name), (pair.initrd, pair.initrd_name)):
                (stage / "boot" / name).write_bytes(_read(image, tree.resolve(path), given=given.path))
    menu = _menu(found, title=facts.name or "LiveOS", arguments=_arguments(tree))
    texts = {GRUB_CFG: menu, f"{GRUB_DIR}/grubenv": _GRUBENV}
    if boot_url:
        files = grub.Files(exists=lambda path: (stage / path.lstrip("/")).exists(), read=lambda _: "")
        texts[GRUB_PXE_CFG] = grub.for_network(menu, boot_url=boot_url, files=files).text
    target = staging / "made.iso"
    with told("Making the ISO"):
        disc.write(target, stage, loaders=loaders, texts=texts, mtime=mtime, work=staging)
    root.unlink()
    with iso.opened(target, given=given.path) as opened:
        yield Made(iso=opened, loaders=loaders)


def _read(image: Image, path: str, *, given: Path) -> bytes:
    found = image.find(path)
    data = image.read(found, limit=_LARGEST) if isinstance(found, File) else b""
    if not data:
        message = f"{path} in the root filesystem {given} is no file, or an empty one"
        raise InputError(Problem(reference="root-no-kernel", message=message, hint="install the kernel in it again"))
    return data


def _arguments(tree: Tree) -> list[str]:
    """What the system's own kernel arguments say beside its disk."""
    for path in _CMDLINES:
        if path in tree.stat([path]):
            text = tree.cat(tree.resolve(path)).decode(errors="replace")
            return [word for word in text.split() if not word.startswith(_OF_A_DISK) and word not in ("ro", "rw")]
    return []


def _menu(found: Sequence[Pair], *, title: str, arguments: Sequence[str]) -> str:
    live = f"root=live:CDLABEL={disc.VOLUME_ID} rd.live.image rd.live.dir={LIVE_DIR} rd.live.squashimg={SQUASHFS}"
    words = " ".join([live, "rd.live.overlay.overlayfs=1", *map(quoted, arguments)])
    entries = [
        f"menuentry {quoted(f'{title} ({pair.version})' if pair.version else title)} {{\n"
        f"\tlinux /boot/{pair.kernel_name} {words}\n"
        f"\tinitrd /boot/{pair.initrd_name}\n"
        "}\n"
        for pair in found
    ]
    search = f"search --no-floppy --label {disc.VOLUME_ID} --set=root\n"
    return "".join(["set timeout=3\nset default=0\n", search, "\n", *entries])
