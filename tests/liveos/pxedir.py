"""What Image Customizer from 0.16 on writes for PXE: `--output-image-format pxe-dir`, and `pxe-tar`."""

import gzip
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from liveos.bootloader import BootLoaders
from liveos.programs import EPOCH

ISO = "image.iso"  # what the bootstrap's initrd fetches


def write(partial: Path, *, files: Mapping[str, Path | str], loaders: BootLoaders) -> None:
    """Make the folder: `files` (path in it -> a file or a text), and the boot loaders at its top in lower case."""
    for name, content in {**files, "bootx64.efi": loaders.shim, "grubx64.efi": loaders.grub}.items():
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.write_text(content)
        else:
            shutil.copyfile(content, target)


def archive(partial: Path, folder: Path) -> None:
    """Make the .tar.gz of such a folder, its members named `./…`."""
    with (
        partial.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as out,
    ):
        out.add(folder, arcname=".", filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = EPOCH
    member.mode = 0o755 if member.isdir() else 0o644
    return member
