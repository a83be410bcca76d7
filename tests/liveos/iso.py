"""The ISO 9660 image around it all: El Torito for UEFI, volume id CDROM."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from liveos.bootloader import BootLoaders
from liveos.programs import EPOCH, require, run

VOLUME_ID = "CDROM"
_EFI_IMAGE = "boot/grub2/efiboot.img"


def efi_image(partial: Path, *, loaders: BootLoaders, grub_cfg: str, work: Path) -> None:
    """The FAT image from which UEFI boots the ISO: the two loaders and the same grub.cfg, which looks for the label."""
    require("mkfs.vfat", "mmd", "mcopy")
    cfg = work / "grub.cfg"
    cfg.write_text(grub_cfg)
    contents = [
        (loaders.shim, "EFI/BOOT/BOOTX64.EFI"),
        (loaders.grub, "EFI/BOOT/grubx64.efi"),
        (cfg, "boot/grub2/grub.cfg"),
    ]
    mebibytes = sum(source.stat().st_size for source, _ in contents) // (1 << 20) + 2
    with partial.open("wb") as image:
        image.truncate(mebibytes << 20)
    run(["mkfs.vfat", "--invariant", "-n", "EFI", partial], doing="making the EFI image")
    run(["mmd", "-i", partial, "::EFI", "::EFI/BOOT", "::boot", "::boot/grub2"], doing="making the EFI image")
    for source, name in contents:
        run(["mcopy", "-i", partial, source, f"::{name}"], doing="making the EFI image")


def write(partial: Path, *, files: Mapping[str, Path | str], loaders: BootLoaders, efi_dir: str, work: Path) -> None:
    """Write an ISO that holds `files` (path in the image -> a file or a text) and the boot loaders in `efi_dir`."""
    require("xorriso")
    stage = work / "iso"
    upper = efi_dir.isupper()
    grub_cfg = files["boot/grub2/grub.cfg"]
    assert isinstance(grub_cfg, str)
    for name, content in {
        **files,
        f"{efi_dir}/{'BOOTX64.EFI' if upper else 'bootx64.efi'}": loaders.shim,
        f"{efi_dir}/grubx64.efi": loaders.grub,
    }.items():
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.write_text(content)
        else:
            _link(content, target)
    efi_image(stage / _EFI_IMAGE, loaders=loaders, grub_cfg=grub_cfg, work=work)
    stamp = datetime.fromtimestamp(EPOCH, tz=UTC).strftime("%Y%m%d%H%M%S00")
    dates = [f"--modification-date={stamp}", "--set_all_file_dates", stamp]
    layout = ["-V", VOLUME_ID, "-r", "-J", "-joliet-long", "-iso-level", "3"]
    efi = ["-eltorito-platform", "efi", "-eltorito-boot", _EFI_IMAGE, "-no-emul-boot"]
    run(["xorriso", "-as", "mkisofs", *layout, *dates, "-o", partial, *efi, stage], doing="writing the ISO")


def _link(source: Path, target: Path) -> None:
    """The file under another name: linked where the file system can, as it is large and only read."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
