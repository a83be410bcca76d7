"""Images changed in one place: another file on the ISO, another name in its initrd, another GRUB."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from liveos import newc
from liveos.newc import Entry
from packing.site import files_of, make_iso
from pxe_pack.image.initrd.cpio import Archives

FOR_THE_NETWORK = ("normal", "linux", "efinet", "tftp")


def with_files(image: Path, target: Path, files: Mapping[str, str | bytes]) -> Path:
    """The ISO with `files` in place of its own."""
    return make_iso(target, {**files_of(image), **files})


def with_initrd(image: Path, target: Path, edit: Callable[[dict[str, Entry]], None]) -> Path:
    """The ISO with what `edit` makes of the names in its initrd."""
    files = files_of(image)
    initrd = next(name for name in files if name.startswith(("boot/initrd", "boot/initramfs")))
    plain = gzip.decompress(files[initrd])
    archives = Archives(lambda offset, size: plain[offset : offset + size])
    entries = {one.path: Entry(one.path, one.mode, one.content or b"") for one in archives.members(lambda _: True)}
    edit(entries)
    return with_files(image, target, {initrd: gzip.compress(newc.archive(entries.values()))})


def grub(where: Path, *options: str, modules: tuple[str, ...] = FOR_THE_NETWORK) -> bytes:
    """A GRUB made with these options, by grub-mkimage."""
    target = where / "grub.efi"
    command = ["grub-mkimage", "-O", "x86_64-efi", "-o", str(target), *options, *modules]
    subprocess.run(command, check=True, capture_output=True)
    return target.read_bytes()
