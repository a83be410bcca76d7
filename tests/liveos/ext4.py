"""An ext4 image of a root filesystem, made without mounting one."""

import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from liveos import tree
from liveos.programs import EPOCH, BuildError, require, run
from liveos.specials import Inode

_UUID = "6c69766f-732d-4578-8434-000000000001"
_FIXED_TIME = {"E2FSPROGS_FAKE_TIME": str(EPOCH)}
_KINDS = {tarfile.DIRTYPE: 0o040000, tarfile.CHRTYPE: 0o020000, tarfile.BLKTYPE: 0o060000, tarfile.FIFOTYPE: 0o010000}
_DEVICES = {tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b"}


def make(partial: Path, *, base: Path | None, over: Iterable[Inode], work: Path) -> None:
    """Write an ext4 of the tree (`tree.write`): files by `mke2fs -d`, by debugfs what takes privilege."""
    require("mke2fs", "debugfs")
    stream, folder, edits = work / "tree.tar", work / "tree", work / "debugfs.commands"
    with stream.open("wb") as file:
        tree.write(file, base=base, over=over)
    members: list[tarfile.TarInfo] = []
    size = 0
    with tarfile.open(stream) as archive:
        for member in archive:
            members.append(member)
            size += member.size
            _unpack(archive, member, folder)
    megabytes = int(size * 1.3 / (1 << 20)) + len(members) // 1000 + 16
    format_as = ["-q", "-t", "ext4", "-F", "-L", "rootfs", "-U", _UUID, "-O", "^has_journal"]
    extended = ["-E", f"hash_seed={_UUID},root_owner=0:0,lazy_itable_init=0"]
    run(
        ["mke2fs", *format_as, *extended, "-d", folder, partial, f"{megabytes}M"],
        doing="making the ext4 image",
        env=_FIXED_TIME,
    )
    edits.write_text("".join(f"{line}\n" for member in members for line in _commands(member)))
    # debugfs reports what it could not do, and exits with 0
    said = run(["debugfs", "-w", "-f", edits, partial], doing="making the ext4 image", env=_FIXED_TIME)
    if complaints := [line for line in said.splitlines() if not line.startswith(("debugfs: ", "Allocated inode: "))]:
        raise BuildError(f"making the ext4 image: debugfs: {complaints[0]}")
    stream.unlink()
    shutil.rmtree(folder)


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Put one member into `folder` as this user can: devices come later, and all stays writable by us meanwhile."""
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        target.mkdir(exist_ok=True)
    elif member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.hardlink_to(folder / member.linkname)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)


def _commands(member: tarfile.TarInfo) -> Iterator[str]:
    """The debugfs(8) commands that give one inode its device number, mode, owner and times."""
    if member.islnk():
        return
    parent, _, name = member.name.rpartition("/")
    yield f'cd "/{parent}"'
    if member.isfifo():
        yield f'mknod "{name}" p'
    elif member.type in _DEVICES:
        yield f'mknod "{name}" {_DEVICES[member.type]} {member.devmajor} {member.devminor}'
    if not member.issym():
        yield f'sif "{name}" mode 0{_KINDS.get(member.type, 0o100000) | member.mode:o}'
    yield f'sif "{name}" uid {member.uid}'
    yield f'sif "{name}" gid {member.gid}'
    for field in ("mtime", "atime", "ctime", "crtime"):
        yield f'sif "{name}" {field} @{EPOCH if field == "crtime" else int(member.mtime)}'
