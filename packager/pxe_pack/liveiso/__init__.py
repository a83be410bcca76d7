"""A bootable LiveOS ISO from a root filesystem (a folder, a tar, or a squashfs), built without privilege."""

from pxe_pack.liveiso.opened import opened

__all__ = ["opened"]
