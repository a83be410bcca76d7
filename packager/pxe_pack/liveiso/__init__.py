"""A root filesystem (a folder, a tar, a squashfs) made into the ISO that its own initrd boots, without privilege."""

from pxe_pack.liveiso.build import BuiltIso, StepContext, build_iso
from pxe_pack.liveiso.rootfs_source import RootfsSource, detect_rootfs

__all__ = ["BuiltIso", "RootfsSource", "StepContext", "build_iso", "detect_rootfs"]
