"""Images as their producers lay them out, made of a tiny image's files: right in structure, with nothing that boots."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

from liveos.specials import Inode
from packing.site import files_of, make_iso, with_files

KERNELS = ("6.12.9-1.azl4", "6.12.57-1.azl4")
_ENTRY = """\
title Azure Linux 4.0 ({version})
version {version}
linux /vmlinuz-{version}
initrd /initramfs-{version}.img
options root=live:LABEL=CDROM rd.live.image rd.live.dir=liveos rd.live.squashimg=rootfs.img $kernelopts
grub_class azurelinux
"""
_BLS_CFG = """\
set timeout=1
load_env
set default="${saved_entry}"
search --no-floppy --label CDROM --set=root
insmod blscfg
blscfg
"""
_REDIRECTOR = (
    "search --no-floppy --label CDROM --set=root\nset prefix=($root)/boot/grub2\nconfigfile $prefix/grub.cfg\n"
)
_KIWI_CFG = """\
# kiwi generated one time grub2 config file
search --file --set=root /boot/0x5a4b3c2d
set prefix=($root)/boot/grub2
set default=0
set timeout=10
menuentry "Live" --class os {
    linux ($root)/boot/x86_64/loader/linux root=live:CDLABEL=CDROM rd.live.image
    initrd ($root)/boot/x86_64/loader/initrd
}
"""
_KIWI_MODULES = "normal configfile linux echo iso9660 fat part_gpt search search_fs_file search_label test loadenv"
GRUBENV = f"# GRUB Environment Block\nsaved_entry={KERNELS[0]}\nkernelopts=console=ttyS0 quiet\n".ljust(1024, "#")


def azure_linux_4(source: Path, target: Path) -> Path:
    """Two kernels, their entries in files of their own, upper-case boot loaders, a redirector."""
    given = files_of(source)
    files: dict[str, str | bytes] = {
        "EFI/BOOT/BOOTX64.EFI": given["efi/boot/bootx64.efi"],
        "EFI/BOOT/grubx64.efi": given["efi/boot/grubx64.efi"],
        "EFI/azurelinux/grub.cfg": _REDIRECTOR,
        "boot/grub2/grub.cfg": _BLS_CFG,
        "boot/grub2/grubenv": GRUBENV,
        "liveos/rootfs.img": given["liveos/rootfs.img"],
    }
    for version in KERNELS:
        files[f"boot/vmlinuz-{version}"] = given["boot/vmlinuz"] + version.encode()
        files[f"boot/initramfs-{version}.img"] = given["boot/initrd.img"]
        files[f"boot/loader/entries/{version}.conf"] = _ENTRY.format(version=version)
    return make_iso(target, files)


def kiwi(source: Path, target: Path) -> Path:
    """LiveOS/squashfs.img, the kernel in boot/x86_64/loader, and one GRUB, made for the medium alone."""
    given = files_of(source)
    early, grub = target.with_suffix(".early"), target.with_suffix(".grub")
    early.write_text("\n".join(_KIWI_CFG.splitlines()[1:3]) + "\n")
    command: list[str | Path] = [
        "grub-mkimage",
        "-O",
        "x86_64-efi",
        "-p",
        "",
        "-c",
        early,
        "-o",
        grub,
        *_KIWI_MODULES.split(),
    ]
    subprocess.run([*command, *_KIWI_MODULES.split()], check=True, capture_output=True)
    files: dict[str, str | bytes] = {
        "EFI/BOOT/bootx64.efi": grub.read_bytes(),
        "boot/0x5a4b3c2d": "",
        "boot/grub2/grub.cfg": _KIWI_CFG,
        "boot/x86_64/loader/linux": given["boot/vmlinuz"],
        "boot/x86_64/loader/initrd": given["boot/initrd.img"],
        "LiveOS/squashfs.img": given["liveos/rootfs.img"],
    }
    early.unlink()
    grub.unlink()
    return make_iso(target, files)


_PXE_MODULES = "normal configfile linux echo test loadenv sleep minicmd gzio efinet net tftp http search"
_PXE_ENTRY = """\
menuentry 'Azure Linux 4.0 ({version})' {{
    linux /boot/vmlinuz-{version} root=live:http://192.0.2.1/image.iso rd.live.image rd.live.dir=liveos \\
        rd.live.squashimg=rootfs.img ip=dhcp rd.live.azldownloader=enable
    initrd /boot/initramfs-{version}.img
}}
"""


def azure_linux_4_pxe_dir(source: Path, target: Path) -> Path:
    """A bootstrap pxe-dir of Image Customizer 1.6: entries in grub.cfg itself, and a redirector at GRUB's prefix."""
    grub = target.with_suffix(".grub")
    options: list[str | Path] = ["-O", "x86_64-efi", "-p", "/EFI/azurelinux", "-o", grub]
    subprocess.run(["grub-mkimage", *options, *_PXE_MODULES.split()], check=True, capture_output=True)
    medium = azure_linux_4(source, target.with_suffix(".iso"))
    given = files_of(medium)
    newest_first = sorted(KERNELS, key=lambda version: int(version.split(".")[2].split("-")[0]), reverse=True)
    entries = "".join(_PXE_ENTRY.format(version=version) for version in newest_first)
    files: dict[str, bytes] = {
        **{name: content for name, content in given.items() if name.startswith("boot/") and "grub2" not in name},
        "bootx64.efi": given["EFI/BOOT/BOOTX64.EFI"],
        "grubx64.efi": grub.read_bytes(),
        "EFI/azurelinux/grub.cfg": b"set prefix=($root)/boot/grub2\nconfigfile ($root)/boot/grub2/grub.cfg\n",
        "boot/grub2/grub.cfg": f"set timeout=1\nload_env\ninsmod blscfg\nset default=0\n{entries}".encode(),
        "boot/grub2/grubenv": given["boot/grub2/grubenv"],
        "image.iso": medium.read_bytes(),
    }
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    medium.unlink()
    grub.unlink()
    return target


_FULL_OS_ENTRY = """\
menuentry 'Azure Linux, with Linux {version}' {{
    linux /boot/vmlinuz-{version} rd.auto=1 selinux=0 console=tty0 console=ttyS0
    initrd /boot/initrd.img
}}
"""


def full_os_of_several_kernels(source: Path, target: Path) -> Path:
    """A pxe-dir of Image Customizer 1.6, `initramfsType: full-os`: all entries have one initrd, the whole system."""
    given = files_of(source)
    initrd = next(content for name, content in given.items() if name.startswith("boot/initramfs-"))
    kernel = next(content for name, content in given.items() if name.startswith("boot/vmlinuz-"))
    files: dict[str, bytes] = {
        "bootx64.efi": given["EFI/BOOT/BOOTX64.EFI"],
        "grubx64.efi": given["EFI/BOOT/grubx64.efi"],
        "boot/grub2/grub.cfg": "".join(
            ["set timeout=0\n", *(_FULL_OS_ENTRY.format(version=one) for one in KERNELS)]
        ).encode(),
        "boot/grub2/grubenv": given["boot/grub2/grubenv"],
        "boot/initrd.img": initrd,
        "azl-image-customizer/saved-configs.yaml": b"liveOS:\n  kdumpBootFiles: none\n",
        **{f"boot/vmlinuz-{one}": kernel + one.encode() for one in KERNELS},
    }
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return target


def kdump_on_the_medium(source: Path, target: Path, *, version: str) -> Path:
    """An ISO with `iso.kdumpBootFiles: none`: the crash initrd is beside its kernel, and no entry boots it."""
    return with_files(source, target, {f"boot/initramfs-{version}kdump.img": b"\x1f\x8b a crash initrd\n"})


def kdump_kept(version: str) -> list[Inode]:
    """What `kdumpBootFiles: keep` leaves in the root filesystem's /boot, which is otherwise empty."""
    names = (f"boot/vmlinuz-{version}", f"boot/initramfs-{version}kdump.img")
    return [
        Inode("boot", tarfile.DIRTYPE, mode=0o700),
        *(Inode(name, data=name.encode(), mode=0o600) for name in names),
    ]


def without_rock_ridge(source: Path, target: Path) -> Path:
    """The same image with the names of ISO 9660 level 1 alone: BOOT/VMLINUZ., LIVEOS/ROOTFS.IMG."""
    stage = target.with_suffix(".stage")
    for name, content in files_of(source).items():
        if "-" not in name and not name.endswith(".yaml"):  # what level 1 has no name for
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(content)
    command: list[str | Path] = [
        "xorriso",
        "-as",
        "mkisofs",
        "--norock",
        "-iso-level",
        "1",
        "-V",
        "CDROM",
        "-o",
        target,
        stage,
    ]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(stage)
    return target
