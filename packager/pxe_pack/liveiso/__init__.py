"""Build a bootable LiveOS ISO from a root filesystem (a folder, a tar, or a squashfs), without privilege."""

from pxe_pack.liveiso.build import BuiltIso, StepContext, build_iso
from pxe_pack.liveiso.rootfs_source import RootfsSource, detect_rootfs

__all__ = ["BuiltIso", "RootfsSource", "StepContext", "build_iso", "detect_rootfs"]
