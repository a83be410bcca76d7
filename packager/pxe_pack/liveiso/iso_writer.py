"""Write the ISO for a root filesystem: boot files, GRUB configurations, and the FAT image that UEFI boots from.

Sources: El Torito; UEFI Specification 3.5.1.1 (/EFI/BOOT/BOOTX64.EFI); mkfs.fat(8), mtools(1), xorrisofs(1), called so
that the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pxe_pack import tools
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_DIR

VOLUME_ID = "LIVEOS"
TOOLS = ("xorriso", "mkfs.fat", "mmd", "mcopy")

_EFI_IMAGE = f"{GRUB_DIR}/efiboot.img"
_MARGIN = 2  # MiB for the FAT image's own structures
# what GRUB reads first in the FAT image
_REDIRECTOR = f"""\
search --no-floppy --label {VOLUME_ID} --set=root
set prefix=($root)/{GRUB_DIR}
source $prefix/grub.cfg
"""


def write(target: Path, stage: Path, *, loaders: BootLoaders, texts: Mapping[str, str], mtime: int, work: Path) -> None:
    """Write an ISO of the folder `stage` to `target`, after adding `texts` (path -> content) and the boot loaders.

    Everything it creates gets `mtime` (seconds since the epoch). Raises WorkError and OSError.
    """
    env = {"SOURCE_DATE_EPOCH": str(mtime), "TZ": "UTC0", "MTOOLS_SKIP_CHECK": "1"}
    firmware = {f"EFI/BOOT/{_disc_name(name)}": b"".join(file.pieces()) for name, file in loaders.files.items()}
    config = loaders.netboot.config.lstrip("/")
    for path, data in {**firmware, **{name: text.encode() for name, text in texts.items()}}.items():
        _placed(stage / path, data)
    if not (stage / config).exists():
        _placed(stage / config, _REDIRECTOR.encode())
    _efi_image(stage / _EFI_IMAGE, {**firmware, config: _REDIRECTOR.encode()}, env=env, work=work)
    stamp = datetime.fromtimestamp(mtime, tz=UTC).strftime("%Y%m%d%H%M%S00")
    options = ["-V", VOLUME_ID, "-r", "-J", "-joliet-long", "-iso-level", "3"]
    options += [f"--modification-date={stamp}", "--set_all_file_dates", stamp]
    efi = ["-eltorito-platform", "efi", "-eltorito-boot", _EFI_IMAGE, "-no-emul-boot"]
    tools.run("xorriso", "-no_rc", "-stdio_sync", "off", "-as", "mkisofs", *options, "-o", target, *efi, stage, env=env)


def _disc_name(name: str) -> str:
    """The name on the disc: firmware looks for BOOTX64.EFI, in that case on ISO 9660; shim looks for grubx64.efi."""
    return name.upper() if name.startswith("boot") else name


def _placed(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _efi_image(target: Path, files: Mapping[str, bytes], *, env: Mapping[str, str], work: Path) -> None:
    size = sum(map(len, files.values())) // (1 << 20) + _MARGIN
    with target.open("wb") as image:
        image.truncate(size << 20)
    tools.run("mkfs.fat", "--invariant", "-n", "EFI", target, env=env)
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    tools.run("mmd", "-i", target, *(f"::{folder}" for folder in folders), env=env)
    source = work / "efi-file"
    for name, data in files.items():
        source.write_bytes(data)
        tools.run("mcopy", "-i", target, source, f"::{name}", env=env)
    source.unlink()
