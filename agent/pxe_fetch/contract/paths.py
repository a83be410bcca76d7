"""Paths and names on a node, and the MESSAGE_IDs of journal entries."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

AGENT_DIR = "/usr/lib/pxe-fetch"
AGENT = f"{AGENT_DIR}/pxe-fetch"
UNIT_NAME = "pxe-fetch.service"
TARGET_NAME = "pxe-fetch.target"
CATALOG_UNIT_NAME = "pxe-fetch-catalog.service"
LIVE_SPACE_UNIT_NAME = "pxe-fetch-live-space.service"
UNIT_DIR = "/usr/lib/systemd/system"
CATALOG = "/usr/lib/systemd/catalog/pxe-fetch.catalog"
WANTS_LINK = f"{UNIT_DIR}/multi-user.target.wants/{TARGET_NAME}"
LIVE_SPACE_LINK = f"{UNIT_DIR}/{UNIT_NAME}.wants/{LIVE_SPACE_UNIT_NAME}"

CONFIG_ETC = "/etc/pxe-fetch/fetch.yaml"
CONFIG_USR = "/usr/lib/pxe-fetch/fetch.yaml"
CREDENTIAL = "pxe-fetch.config"  # below $CREDENTIALS_DIRECTORY
CREDENTIALS_DIR = "/etc/pxe-fetch/credentials"  # files, for what the unit has no credential of that name
TRUST_DIR = "/etc/pxe-fetch/trust"  # NAME.pub: minisign's public keys, by one of which a configuration by URL is signed

STATE_DIR = "/run/pxe-fetch"
STATE = f"{STATE_DIR}/state.json"
KEPT_DIR = "/var/lib/pxe-fetch"  # the unit makes it, and may write to it
SERIAL = f"{KEPT_DIR}/serial"  # the highest serial of a configuration by URL that was used
USER_STATE_DIR = "pxe-fetch"  # below $XDG_RUNTIME_DIR, when an ordinary user runs the agent
PART_SUFFIX = ".pxe-fetch-part"  # of a file that is being downloaded, in its destination's directory
STAGING_SUFFIX = ".pxe-fetch-staging"  # of what is unpacked, in its destination's directory
LONGEST_PATH = 4095  # bytes; PATH_MAX of limits.h counts the byte that ends a path
LONGEST_NAME = 255  # bytes; NAME_MAX of Linux's file systems, limits.h

CA_BUNDLES = (
    "/etc/pki/tls/certs/ca-bundle.crt",  # Azure Linux, Fedora, RHEL
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/ssl/ca-bundle.pem",  # SUSE, a link to:
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",  # Alpine
)

DEFAULT_ROOTS = ("/var/lib", "/srv", "/opt", "/run")
# No artifact goes there, whatever allowed_roots says: from here the system's own programs, run by root, take units,
# rules, settings, scripts and messages, or here they keep what they rely on. The unit makes them read-only.
PROTECTED = (
    *("/run/systemd", "/run/udev", "/run/dbus", "/run/dbus-1", "/run/credentials", "/run/initramfs", "/run/log"),
    *("/run/tmpfiles.d", "/run/sysusers.d", "/run/sysctl.d", "/run/binfmt.d", "/run/modules-load.d", "/run/modprobe.d"),
    *("/run/mount", "/run/polkit-1", "/run/NetworkManager", "/run/cloud-init", "/run/sudo"),
    *("/run/user", "/run/credstore", "/run/credstore.encrypted", "/run/host", "/run/sssd", "/run/cryptsetup-keys.d"),
    *("/var/lib/systemd", "/var/lib/dbus", "/var/lib/polkit-1", "/var/lib/NetworkManager", "/var/lib/cloud"),
    *("/var/lib/sss", "/var/lib/AccountsService", "/var/lib/sudo", "/var/lib/selinux", "/var/lib/dpkg", "/var/lib/rpm"),
    *("/var/log/journal", STATE_DIR, KEPT_DIR),
)
# What the agent itself puts beside a destination: part files, staging directories, records.
OWN_NAME = re.compile(r".*?/\.[^/]*\.pxe-fetch-[a-z]+(?=/|$)", re.DOTALL)


class Places:
    """Places that no artifact goes to: each with all that is in it, and the folders that contain it themselves."""

    def __init__(self, places: Iterable[str] = PROTECTED) -> None:
        self._places = frozenset(places)
        self._inside = {parent: place for place in sorted(self._places) for parent in parents(place)}

    def of(self, path: str) -> str | None:
        """The place that `path` is, is in, or contains; also one of the agent's own names. None if there is none."""
        if ".pxe-fetch-" in path and (found := OWN_NAME.match(path)):
            return found[0]
        return self._inside.get(path) or next((one for one in (path, *parents(path)) if one in self._places), None)


def parents(path: str) -> list[str]:
    """The folders around `path`, the outermost first; without `/`, or what a relative path begins in."""
    return [path[:at] for at, character in enumerate(path) if character == "/" and at]


def enclosing(path: str, places: Container[str]) -> str | None:
    """The innermost of `places` that is a folder around `path`; None if there is none."""
    return next((one for one in reversed(parents(path)) if one in places), None)


class MessageId:
    """A fixed MESSAGE_ID (sd_journal_print(3)) for each kind of entry; units/pxe-fetch.catalog explains each."""

    CONFIG_FOUND = "6f0a8f4a3d0c4f0e9e5c0e0b6a3f4d01"
    CONFIG_REFUSED = "71c9e2b05f8d4a36a4e01d97b35c8f10"
    START = "3b9d1f6e8c2a47c5b0f7a4d2e91c6802"
    RETRYING = "c4e7a9025d1b4d3f8a6e37b0f5829c03"
    RESUMED = "92d5b8f1e06a4c7d9f3b64a81c0e7d04"
    MIRROR_DROPPED = "e81f30c6b94d4a2ea57d0c93f26b4805"
    VERIFIED = "5a7c2e9bd3f048168be1f4907a3dc506"
    PLACED = "b06f4d81a2c94e53975ed81b3c60fa07"
    KEPT = "d39a5e17f8044b6c8c21e70f4b9d5a08"
    FAILED = "17e4c08db5a64f92a3d08f5c6e2b9109"
    DONE = "f2c86b3a9e1d4057b4a91e5d7c08630a"
    CHUNK_WRONG = "2d7c94f0b8e64a1596c3f01ad8e75b0c"
    CHUNK_MENDED = "a95e03d7c1fb42688db47e9206cf310d"
    UNIT = "c07b52e4d19f4e86a3d5186fb27ce90e"
    STATUS = "84b1d6e5037f4c9a8f62c30e9a7d150b"  # anything else worth a line
