"""The UEFI boot loaders: shim as Debian signs it, and a GRUB made for this layout."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from liveos.cache import Cache, content_key
from liveos.programs import require, run

_SHIM = Path("/usr/lib/shim/shimx64.efi.signed")
_GRUB_MODULES = Path("/usr/lib/grub/x86_64-efi")

# Azure Linux's GRUB looks for its configuration below /boot/grub2 of where it was loaded from: TFTP or the EFI image.
_PREFIX = "/boot/grub2"
_MODULES = (
    "normal configfile linux echo test true sleep loadenv ls cat minicmd help reboot halt regexp gzio "
    "efinet net tftp http iso9660 fat ext2 part_gpt part_msdos squash4 loopback "
    "search search_label search_fs_file search_fs_uuid all_video gfxterm serial terminal"
)
_EMBEDDED_SBAT = """\
sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md
grub,5,Free Software Foundation,grub,2.06,https://www.gnu.org/software/grub/
"""


@dataclass(frozen=True)
class BootLoaders:
    """The two programs that the firmware runs, the first loading the second."""

    shim: Path
    grub: Path


def boot_loaders(cache: Cache, say: Callable[[str], None]) -> BootLoaders:
    """Shim and GRUB for x86_64; raises BuildError."""
    require("grub-mkimage", str(_SHIM), str(_GRUB_MODULES / "normal.mod"))
    key = content_key(_PREFIX, _MODULES, _EMBEDDED_SBAT, (_GRUB_MODULES / "modinfo.sh").read_text())

    def make(partial: Path) -> None:
        say("making GRUB")
        with cache.scratch() as work:
            sbat = work / "sbat.csv"
            sbat.write_text(_EMBEDDED_SBAT)
            # --sbat: shim refuses to start a GRUB that has no such section once Secure Boot is on
            options = ["-O", "x86_64-efi", "-p", _PREFIX, "--sbat", str(sbat), "-o", str(partial)]
            run(["grub-mkimage", *options, *_MODULES.split()], doing="making GRUB")

    return BootLoaders(shim=_SHIM, grub=cache.get(f"grub-{key}.efi", make))
