"""GRUBs as a test wants them, and boot loaders as they are installed on a machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SHIM = Path("/usr/lib/shim/shimx64.efi.signed")
MODULES = "normal linux efinet net tftp http test echo search search_fs_file configfile memdisk fat"


def grub(where: Path, *, prefix: str = "/boot/grub2", script: str = "", modules: str = MODULES) -> Path:
    """A GRUB of one's own."""
    where.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = ["grub-mkimage", "-O", "x86_64-efi", "-p", prefix, "-o", where]
    if script:
        early = where.with_suffix(".early")
        early.write_text(script)
        command += ["-c", early]
    subprocess.run([*command, *modules.split()], check=True, capture_output=True)
    where.with_suffix(".early").unlink(missing_ok=True)
    return where


def debian(root: Path) -> None:
    """Put a shim and a network GRUB where Debian's packages put theirs."""
    shim = root / "usr/lib/shim/shimx64.efi.signed"
    shim.parent.mkdir(parents=True)
    shutil.copyfile(SHIM, shim)
    grub(root / "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", prefix="/grub")
