"""A root filesystem that boots, from Debian's packages by mmdebstrap, and its kernel and initrd."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from liveos.cache import Cache, content_key
from liveos.programs import EPOCH, BuildError, require, run

SUITE = "bookworm"
PACKAGES = (
    "systemd-sysv udev dbus linux-image-cloud-amd64 dracut dracut-live dracut-network isc-dhcp-client procps"
    " iputils-arping iproute2 curl ca-certificates jq zstd libcap2-bin"
)
_UNWANTED = (
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*",
    "/usr/share/bash-completion/*", "/usr/share/zsh/*", "/usr/share/bug/*",
)  # fmt: skip
# NFSv4 is mounted by this one program. Its package would bring Python and a port mapper along.
_NFS_CLIENT = (
    'cd "$1/tmp" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq download nfs-common'
    ' && dpkg-deb --fsys-tarfile nfs-common_*.deb | tar -x -C "$1" ./sbin/mount.nfs && rm nfs-common_*.deb'
)
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
_BOOT = ("vmlinuz", "initrd.img", "kver")
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class BootFiles:
    """The kernel and its initrd, and what `uname -r` will say."""

    kernel: Path
    initrd: Path
    release: str


@dataclass(frozen=True)
class Base:
    """A root filesystem as a tar stream (as bootstrapped: without the tests' own files) and its boot files."""

    tree: Path
    boot: BootFiles


def base(cache: Cache, say: Callable[[str], None]) -> Base:
    """The bootstrapped root filesystem, from the cache or made now (two minutes); raises BuildError."""
    key = content_key(*_arguments(provision="", work=""), _HERE / "provision")

    def make(folder: Path) -> None:
        require("mmdebstrap")
        say(f"bootstrapping Debian {SUITE} and making its initrd: about two minutes, once")
        folder.mkdir()
        with cache.scratch() as work:
            _bootstrap(work)
            for made in sorted(work.iterdir()):
                made.replace(folder / made.name)

    folder = cache.get(f"base-{key}", make)
    release = (folder / "kver").read_text().strip()
    return Base(
        tree=folder / "tree.tar",
        boot=BootFiles(kernel=folder / "vmlinuz", initrd=folder / "initrd.img", release=release),
    )


def _bootstrap(work: Path) -> None:
    """Leave tree.tar, vmlinuz, initrd.img and kver in `work`."""
    root = os.geteuid() == 0
    if not root:
        require("newuidmap")
    mode = f"--mode={'root' if root else 'unshare'}"
    run(
        [
            "mmdebstrap",
            mode,
            *_arguments(provision=_quoted(_HERE / "provision"), work=_quoted(work)),
            work / "tree.tar",
        ],
        doing="bootstrapping the root filesystem",
        # INITRD: else the kernel's installation makes an initrd of its own
        env={"INITRD": "No", "TMPDIR": "/var/tmp"},
    )
    for name in ("tree.tar", *_BOOT):
        if not (work / name).exists():
            raise BuildError(f"bootstrapping the root filesystem: mmdebstrap left no {name}")


def _arguments(*, provision: str, work: str) -> list[str]:
    """What mmdebstrap is told, but for its mode and output. Its hooks upload and download do so in either mode.

    (In the namespace of `unshare` the caller's own files belong to another user, so a hook could not read them itself.)
    """
    hooks = [
        _NFS_CLIENT,
        f"upload {provision} /provision",
        f'SOURCE_DATE_EPOCH={EPOCH} chroot "$1" bash /provision',
        *(f"download /liveos-boot/{name} {work}/{name}" for name in _BOOT),
        'rm -r "$1/liveos-boot"',
    ]
    return [
        "--variant=essential",
        f"--include={','.join(PACKAGES.split())}",
        f"--hook-dir={_MERGED_USR}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED),
        *(f"--customize-hook={hook}" for hook in hooks),
        SUITE,
    ]


def _quoted(path: Path) -> str:
    """A path as mmdebstrap's special hooks take it: they split as a shell does."""
    return shlex.quote(str(path))
