"""How to install what is missing on this machine: the distribution's package manager, and its names of packages.

The distribution is that of os-release(5): `ID`, else the first of `ID_LIKE` that is known. Packages are asked for by
Debian's names; only names that differ are listed.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class _Distribution:
    """A family of distributions: its command, and Debian's name of a package -> its own."""

    install: str
    names: Mapping[str, str] = field(default_factory=dict)


_FEDORA_NAMES = {
    "iproute2": "iproute",
    "dnsmasq-base": "dnsmasq",
    "grub-efi-amd64-signed": "grub2-efi-x64",
    "grub-efi-arm64-signed:arm64": "grub2-efi-aa64",
    "ipxe": "ipxe-bootimgs",
    "ovmf": "edk2-ovmf",
    "shim-signed": "shim-x64",
    "shim-signed:arm64": "shim-aa64",
    "uidmap": "shadow-utils",
}
_DEBIAN = _Distribution(install="apt-get install")
_FEDORA = _Distribution(install="dnf install", names=_FEDORA_NAMES)
_AZURE_LINUX = _Distribution(
    install="tdnf install",
    names={
        **_FEDORA_NAMES,
        "grub-efi-amd64-signed": "grub2-efi-binary",
        "grub-efi-arm64-signed:arm64": "grub2-efi-binary",
        "shim-signed": "shim",
        "shim-signed:arm64": "shim",
    },
)
_SUSE = _Distribution(
    install="zypper install",
    names={
        "dnsmasq-base": "dnsmasq",
        "grub-efi-amd64-signed": "grub2-x86_64-efi",
        "grub-efi-arm64-signed:arm64": "grub2-arm64-efi",
        "ipxe": "ipxe-bootimgs",
        "ovmf": "qemu-ovmf-x86_64",
        "qemu-system-x86": "qemu-x86",
        "qemu-user-static": "qemu-linux-user",
        "shim-signed": "shim",
        "shim-signed:arm64": "shim",
        "squashfs-tools": "squashfs",
        "uidmap": "shadow",
    },
)
_DISTRIBUTIONS: Mapping[str, _Distribution] = {
    "debian": _DEBIAN,
    "ubuntu": _DEBIAN,
    "fedora": _FEDORA,
    "rhel": _FEDORA,
    "centos": _FEDORA,
    "azurelinux": _AZURE_LINUX,
    "mariner": _AZURE_LINUX,
    "suse": _SUSE,
    "opensuse": _SUSE,
}


def install_command(*packages: str) -> str:
    """The command that installs `packages`, called as Debian calls them, on this machine's distribution.

    Debian's, if the distribution is unknown.
    """
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    known = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    here = next((_DISTRIBUTIONS[name] for name in known if name in _DISTRIBUTIONS), _DEBIAN)
    names = dict.fromkeys(here.names.get(package, package) for package in packages)
    return f"{here.install} {' '.join(names)}"
