"""What has to hold: each check gives the problems it finds, so that all are shown at once. One question a module."""

from pxe_pack.checks.agent import agent_fits
from pxe_pack.checks.image import bootable, doubtful
from pxe_pack.checks.machine import disk_room, needed_tools
from pxe_pack.checks.settings import artifact_url, boot_url, compression, missing_setting, places, urls

__all__ = [
    "agent_fits",
    "artifact_url",
    "boot_url",
    "bootable",
    "compression",
    "disk_room",
    "doubtful",
    "missing_setting",
    "needed_tools",
    "places",
    "urls",
]
