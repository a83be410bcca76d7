"""A root filesystem (a folder, a tar, a squashfs) made into the ISO that its own initrd boots, without privilege."""

from pxe_pack.mastering.given import Given, given_root
from pxe_pack.mastering.make import Made, Told, made

__all__ = ["Given", "Made", "Told", "given_root", "made"]
