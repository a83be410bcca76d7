"""Recompress a squashfs as a tar stream, which loses nothing, and leave members out of it.

sqfs2tar outputs every inode with its xattrs and tar2sqfs writes them, including those of the root directory, which
sqfstar 4.5 loses. Both run without privilege and hold only a few blocks in memory. All members pass through byte for
byte, headers included. Sources: see image/tar_members.py, which reads the stream.
"""

from __future__ import annotations

import stat
import subprocess
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, cast

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.hashing import Advance
from pxe_pack.image.squashfs import Superblock, open_tree
from pxe_pack.image.tar_members import BLOCK, COPY, Member, TarDamagedError, exactly, members
from pxe_pack.image.tree import Inode
from pxe_pack.tools import WorkError

READER, WRITER = "sqfs2tar", "tar2sqfs"
TOOLS: tuple[str, ...] = (READER, WRITER)

_WRITES = ("gzip", "xz", "zstd")  # decision 6: what it writes as lz4 is not read by Linux


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """A compressor, and its options in the syntax of tar2sqfs -X."""

    compressor: str
    options: Sequence[str] = ()

    @classmethod
    def like(cls, superblock: Superblock) -> Compression:
        """That of an existing squashfs; gzip, which every kernel reads, for one that cannot be written."""
        if superblock.compressor not in _WRITES:
            return cls(compressor="gzip")
        return cls(compressor=superblock.compressor, options=superblock.options)


def recompress(
    old: Path,
    new: Path,
    *,
    superblock: Superblock,
    compression: Compression,
    left_out: Collection[str] = (),
    advance: Advance,
) -> None:
    """Write the squashfs `old` to the new file `new` with another `compression`, and without the paths `left_out`.

    Block size and other settings stay those of `superblock`, the old one's; so does its time. `advance` is called with
    the number of bytes of the tar stream. Raises WorkError if a program fails, or if a member that stays is a hard link
    to one that does not. `compare` says whether the result is right.
    """
    options = ["-q", "-s", "-c", compression.compressor, "-b", str(superblock.block_size)]
    if compression.options:
        options += ["-X", ",".join(compression.options)]
    if superblock.exportable:
        options.append("-e")
    if not superblock.tails_packed:
        options.append("-T")
    is_left_out = _below(left_out)
    # -r .: include the root directory itself, with owner, mode and xattrs; -s: fail instead of skipping
    with tools.start(READER, "-s", "-r", ".", old) as reader:
        writer = tools.start(
            WRITER,
            *options,
            new,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={"SOURCE_DATE_EPOCH": str(superblock.mkfs_time)},
        )
        with writer:
            failure: Exception | None = None
            try:
                with cast("IO[bytes]", writer.stdin) as stdin:
                    _pass_on(cast("IO[bytes]", reader.stdout), stdin, is_left_out=is_left_out, advance=advance)
            except BrokenPipeError as error:
                failure = error  # the writer's stderr has the reason
            except TarDamagedError as error:
                failure = error  # the reader's stderr has the reason
                writer.kill()
            except BaseException:
                writer.kill()
                reader.kill()
                raise
            _finish(reader, writer, failure)


def _below(paths: Collection[str]) -> Callable[[str], bool]:
    """Whether a path is one of `paths`, or below one."""
    folders = tuple(f"{path.strip('/')}/" for path in paths)
    return lambda path: f"{path}/".startswith(folders)


def _pass_on(source: IO[bytes], target: IO[bytes], *, is_left_out: Callable[[str], bool], advance: Advance) -> None:
    """Copy the tar stream `source` to `target`. Raises TarDamagedError and WorkError."""
    for member in members(source):
        padded = member.size + -member.size % BLOCK
        if is_left_out(member.path):
            _copy(source, None, padded)
            continue
        if member.kind == tarfile.LNKTYPE and is_left_out(member.link):
            raise WorkError(_hard_linked(member))
        target.write(member.headers)
        _copy(source, target, padded)
        advance(len(member.headers) + padded)
    target.write(bytes(2 * BLOCK))


def _copy(source: IO[bytes], target: IO[bytes] | None, size: int) -> None:
    while size:
        data = exactly(source, min(size, COPY))
        size -= len(data)
        if target:
            target.write(data)


def _hard_linked(member: Member) -> Problem:
    return Problem(
        reference="payload-hardlinked",
        message=f"/{member.path} in the image is a hard link to /{member.link}, which pxe-pack replaces",
        hint="make it a separate file in the image",
    )


def _finish(reader: subprocess.Popen[bytes], writer: subprocess.Popen[bytes], failure: Exception | None) -> None:
    """Wait for both processes, and raise the first error."""
    if isinstance(failure, BrokenPipeError):
        reader.kill()
    cast("IO[bytes]", reader.stdout).close()  # if it still has output, this makes it end
    reader_errors, writer_errors = (cast("IO[bytes]", process.stderr).read() for process in (reader, writer))
    reader.wait()
    writer.wait()
    if isinstance(failure, BrokenPipeError):
        tools.check(WRITER, writer.returncode, writer_errors)
    tools.check(READER, reader.returncode, reader_errors)
    if failure:
        raise WorkError(Problem(reference="rootfs-unreadable", message=f"{READER}'s output: {failure}")) from failure
    tools.check(WRITER, writer.returncode, writer_errors)


def compare(old: Path, new: Path, *, left_out: Collection[str] = ()) -> None:
    """Raise WorkError unless the tree of the squashfs `new` is that of `old` without the paths `left_out`."""
    is_left_out = _below(left_out)
    with open_tree(old) as before, open_tree(new) as after:
        kept = (inode for inode in before.walk() if not is_left_out(inode.path))
        differences = list(islice(_differences(kept, after.walk()), 5))
    if differences:
        raise WorkError(
            Problem(
                reference="rootfs-differs",
                message="the recompressed root filesystem differs from the original",
                label="\n  ".join(differences),
                hint="this is a bug in pxe-pack, please report it; without --compressor nothing is recompressed",
            )
        )


def _differences(old: Iterator[Inode], new: Iterator[Inode]) -> Iterator[str]:
    """One line per difference in type, mode, owner, size, time or link target. Both are in the order of directories.

    Stops at the first name that only one side has, because the streams may be out of step after it.
    """
    for now in new:
        was = next(old, None)
        if was is None or was.path != now.path:
            yield f"/{now.path} is new" + (f", or /{was.path} is missing" if was else "")
            return
        if _facts(was) != _facts(now):
            yield f"/{was.path} was {_facts(was)}, is {_facts(now)}"
    yield from (f"/{inode.path} is missing" for inode in old)


def _facts(inode: Inode) -> tuple[str | int, ...]:
    # a directory's size is that of its listing, which changes with its content
    size = "" if stat.S_ISDIR(inode.mode) else inode.size
    return (oct(inode.mode), inode.uid, inode.gid, size, inode.mtime, inode.target)
