"""The root filesystem as one tar stream: what was bootstrapped or made up, and the tests' own files laid over it."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from liveos import specials
from liveos.programs import EPOCH
from liveos.specials import Inode, folder, symlink

_NODE = Path(__file__).resolve().parent / "node"
_UNITS = "etc/systemd/system"


def node_files() -> Iterator[Inode]:
    """What makes the bootstrapped tree a test node: network, journal, the inspection probe, and the special inodes."""
    yield _node_file("etc/systemd/network/20-dhcp.network", "20-dhcp.network")
    yield folder("etc/systemd/journald.conf.d")
    yield _node_file("etc/systemd/journald.conf.d/liveos.conf", "journald.conf")
    yield folder("usr/libexec")
    yield _node_file("usr/libexec/liveos-inspect", "liveos-inspect", mode=0o755)
    yield _node_file(f"{_UNITS}/liveos-inspect.service", "liveos-inspect.service")
    yield symlink(f"{_UNITS}/multi-user.target.wants/liveos-inspect.service", "../liveos-inspect.service")
    yield Inode("etc/machine-id", mode=0o444)
    yield Inode("etc/hostname", data=b"liveos\n")
    yield Inode("etc/hosts", data=b"127.0.0.1 localhost liveos\n")
    yield Inode("etc/resolv.conf", data=b"# the resolver of QEMU's user network\nnameserver 10.0.2.3\n")
    yield from specials.inodes()


def _node_file(path: str, source: str, *, mode: int = 0o644) -> Inode:
    return Inode(path, data=(_NODE / source).read_bytes(), mode=mode)


def write(stream: IO[bytes], *, base: Path | None, over: Iterable[Inode]) -> None:
    """Write `base` (a tar, if given) with the inodes of `over` in it, theirs taking the place of its own.

    The root directory itself and what is in /dev are left out: squashfs makes the one, devtmpfs covers the other.
    """
    laid = {inode.path: inode for inode in over}
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as out:
        if base is not None:
            with tarfile.open(base) as source:
                for member in source:
                    member.name = member.name.removeprefix("./").rstrip("/")
                    if member.name in {"", "."} or member.name.startswith("dev/"):
                        continue
                    if member.name in laid:
                        if member.isdir():  # there already: keep the base's
                            del laid[member.name]
                        else:
                            continue
                    _copy(member, source=source, out=out)
        for inode in laid.values():
            inode.write(out)


def _copy(member: tarfile.TarInfo, *, source: tarfile.TarFile, out: tarfile.TarFile) -> None:
    """One member as it is, but for names of owners (this machine's) and times (none after EPOCH)."""
    kept = {name: value for name, value in member.pax_headers.items() if name.startswith("SCHILY.xattr.")}
    member.pax_headers = kept
    member.uname = member.gname = ""
    member.mtime = min(int(member.mtime), EPOCH)
    if member.islnk():
        member.linkname = member.linkname.removeprefix("./")
    out.addfile(member, source.extractfile(member) if member.isreg() else None)
