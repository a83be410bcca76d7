"""The GRUB configurations, in the forms in which Image Customizer writes them."""

from dataclasses import dataclass

# What Image Customizer adds to the kernel arguments of every LiveOS.
_LIVE = (
    "rd.shell rd.live.image rd.live.dir=liveos rd.live.squashimg=rootfs.img"
    " rd.live.overlay=1 rd.live.overlay.overlayfs rd.live.overlay.nouserconfirmprompt"
)
# What it adds for PXE.
_PXE = "ip=dhcp rd.live.azldownloader=enable"
# What the image itself came with. The fixture has no SELinux policy to load; without the mitigations, which guard
# nothing here, an emulated processor has a tenth less to do.
_IMAGE = "rd.auto=1 selinux=0 mitigations=off console=tty0 console=ttyS0,115200"

PLACEHOLDER_URL = "http://192.0.2.1/liveos/image.iso"  # TEST-NET-1 (RFC 5737): what the image's maker wrote, wrong here

GRUBENV = "# GRUB Environment Block\n".ljust(1024, "#")


@dataclass(frozen=True)
class Kernel:
    """A kernel and its initrd by their names below boot/."""

    kernel: str
    initrd: str


def iso(kernel: Kernel) -> str:
    """`grub.cfg` of an ISO: finds the medium by its label."""
    return f"""\
set timeout=0
set default=0

menuentry "Azure Linux" {{
\tsearch --label CDROM --set root
\tlinux /boot/{kernel.kernel} {_IMAGE} root=live:LABEL=CDROM {_LIVE}
\tinitrd /boot/{kernel.initrd}
}}
"""


def iso_guarded(kernel: Kernel) -> str:
    """`grub.cfg` of an ISO as Azure Linux words it: by variables, and the initrd only if it can be seen."""
    return f"""\
set timeout=0
set bootprefix=/boot
search --label CDROM --set root

load_env -f $bootprefix/grub2/grubenv
set mariner_linux={kernel.kernel}
set mariner_initrd={kernel.initrd}
set mariner_cmdline="{_IMAGE}"
set rootdevice=live:LABEL=CDROM

menuentry "Azure Linux" {{
\tlinux $bootprefix/$mariner_linux root=$rootdevice $mariner_cmdline {_LIVE} $kernelopts
\tif [ -f $bootprefix/$mariner_initrd ]; then
\t\tinitrd $bootprefix/$mariner_initrd
\tfi
}}
"""


def pxe(kernel: Kernel) -> str:
    """`grub-pxe.cfg`, as Image Customizer up to 0.15 put it beside grub.cfg."""
    return f"""\
set timeout=0
set default=0

menuentry "Azure Linux" {{
\tlinux /boot/{kernel.kernel} {_IMAGE} root=live:{PLACEHOLDER_URL} {_LIVE} {_PXE}
\tinitrd /boot/{kernel.initrd}
}}
"""


def pxe_from_iso(text: str) -> str:
    """A `grub.cfg` of an ISO as Image Customizer from 0.16 on has it in a pxe-dir: no search, root by URL, DHCP."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith("search "))
    lines = kept.replace("live:LABEL=CDROM", f"live:{PLACEHOLDER_URL}").splitlines(keepends=True)
    return "".join(f"{line.rstrip()} {_PXE}\n" if line.strip().startswith("linux ") else line for line in lines)


def full_os(kernel: Kernel, *, search: bool) -> str:
    """`grub.cfg` where the initrd is the whole system: no root=, nothing of dracut's. On an ISO it has to `search`."""
    looked_for = "\tsearch --label CDROM --set root\n" if search else ""
    return f"""\
set timeout=0
set default=0

menuentry "Azure Linux" {{
{looked_for}\tlinux /boot/{kernel.kernel} {_IMAGE}
\tinitrd /boot/{kernel.initrd}
}}
"""
