"""The whole root filesystem as an initrd (Image Customizer's `initramfsType: full-os`): the kernel starts its /init."""

import stat
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from liveos import newc, tree
from liveos.newc import Entry
from liveos.programs import BuildError, environment, require
from liveos.specials import Inode

Compression = Literal["gzip", "zstd"]

_INIT = Entry("init", stat.S_IFLNK | 0o777, b"usr/lib/systemd/systemd")
_COMMANDS = {"gzip": ["gzip", "-6", "-n"], "zstd": ["zstd", "-q", "-3", "-T0"]}
_KINDS = {
    tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO,
}  # fmt: skip


def make(partial: Path, *, base: Path | None, over: Iterable[Inode], compression: Compression, work: Path) -> None:
    """Write the initrd of the tree (`tree.write`). A cpio has no xattrs, so they are lost."""
    command = _COMMANDS[compression]
    require(command[0])
    stream = work / "tree.tar"
    with stream.open("wb") as file:
        tree.write(file, base=base, over=over)
    with (
        partial.open("wb") as target,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=target, env=environment()) as packer,
    ):
        assert packer.stdin is not None
        size = 0
        for piece in _members(stream):
            size += packer.stdin.write(piece)
        packer.stdin.write(bytes(-size % 512))
        packer.stdin.close()
    if packer.returncode:
        raise BuildError(f"making the full-os initrd: {command[0]} failed with exit code {packer.returncode}")
    stream.unlink()


def _members(stream: Path) -> Iterator[bytes]:
    """The archive, member by member; of an inode with several names, the last one carries the content (cpio(5))."""
    yield newc.member(Entry(".", stat.S_IFDIR | 0o755), inode=1)
    with tarfile.open(stream, errors="surrogateescape") as archive:
        members = archive.getmembers()
        first = {member.name: member.linkname if member.islnk() else member.name for member in members}
        names = Counter(first.values())
        inodes = {name: number for number, name in enumerate(names, start=2)}
        left = names.copy()
        originals = {member.name: member for member in members if not member.islnk()}
        for member in members:
            name = first[member.name]
            left[name] -= 1
            yield newc.member(
                _entry(archive, originals[name], path=member.name, links=names[name], with_data=not left[name]),
                inode=inodes[name],
            )
        yield newc.member(_INIT, inode=len(inodes) + 2)
        yield newc.member(newc.TRAILER, inode=0)


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, *, path: str, links: int, with_data: bool) -> Entry:
    data = member.linkname.encode() if member.issym() else b""
    if member.isreg() and with_data:
        content = archive.extractfile(member)
        assert content is not None
        data = content.read()
    return Entry(
        path,
        _KINDS.get(member.type, stat.S_IFREG) | member.mode,
        data,
        uid=member.uid,
        gid=member.gid & 0xFFFFFFFF,
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
        links=links if member.isreg() else 0,
    )
