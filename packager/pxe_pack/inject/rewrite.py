"""Recompress the root filesystem with the payload in it, as a tar stream in which members are replaced.

sqfs2tar outputs every inode with its xattrs and tar2sqfs writes them, including those of the root directory, which
sqfstar 4.5 loses. Both run without privilege and hold only a few blocks in memory.
"""

from __future__ import annotations

import stat
import subprocess
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, cast

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.console import Console, Step
from pxe_pack.hashing import SizeAndDigest, background_hasher
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.squashfs import Superblock, open_tree
from pxe_pack.inject import rootfs, updates
from pxe_pack.inject.compare_trees import unexplained_differences
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.inject.replace_members import TarDamagedError, replace_members
from pxe_pack.inject.selinux_labels import SelinuxLabels
from pxe_pack.inject.xorriso import EDITOR
from pxe_pack.payload import Payload
from pxe_pack.tools import WorkError

READER, WRITER = "sqfs2tar", "tar2sqfs"

_MARGIN = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewrite:
    """The Injector used instead of `rootfs` when the root filesystem gets another compressor or level."""

    compressor: str
    level: int | None  # None: the compressor's default

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802  an injector constant
        return (READER, WRITER, EDITOR)

    @property
    def HOW(self) -> str:  # noqa: N802
        level = f", level {self.level}" if self.level else ""
        return f"the root filesystem recompressed ({self.compressor}{level}), with the payload in it"

    def unsupported_reason(self, image: LiveImage) -> str | None:
        if reason := rootfs.no_squashfs(image):
            return reason
        socket = next((inode.path for inode in image.liveos.tree.walk() if stat.S_ISSOCK(inode.mode)), None)
        return f"its root filesystem has a socket (/{socket}), which a tar stream cannot hold" if socket else None

    def disk_space(self, image: LiveImage, payload: Payload) -> int:
        # the old squashfs, the new one, and the ISO containing it; a fast level may need half as much again
        live = image.liveos
        return 4 * live.span.size + live.iso.size + 2 * payload.size + _MARGIN

    def inject(self, image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
        output = target.place(target.iso)
        incoming, outgoing = self._write(image, payload, target=output, work=work, console=console)
        return Injected(files={target.iso: outgoing}, inputs={image.iso_path: incoming})

    def _write(
        self, image: LiveImage, payload: Payload, *, target: Path, work: Path, console: Console
    ) -> tuple[SizeAndDigest, SizeAndDigest]:
        """Write the ISO to `target`, and return size and digest of the input ISO and of the new one."""
        old, new = work / "old.squashfs", work / "new.squashfs"
        live = image.liveos
        superblock = cast("Superblock", live.superblock)  # `unsupported_reason` rejects images without one
        with background_hasher() as hasher:
            incoming = hasher.file(live.iso.path)
            with console.step("Extracting the root filesystem"):
                rootfs.copy_original(image, old)
            with console.step(f"Rewriting the root filesystem ({self.compressor})") as step:
                options = self._options(superblock)
                _rewrite(image, old, new, options=options, payload=payload, step=step)
                step.note(f"{live.span.size:,} → {new.stat().st_size:,} bytes")
            with console.step("Comparing the new root filesystem with the original"):
                _compare(old, new, payload)
            old.unlink()
            removed = updates.previous_paths(image, payload.replaces)
            with console.step("Writing the ISO", total=new.stat().st_size) as step:
                rootfs.write_around(image, new, target, removed=removed, work=work, advance=step.advance)
            new.unlink()
            outgoing = hasher.file(target)
            with console.step("Hashing the ISO"):
                return incoming.result(), outgoing.result()

    def _options(self, superblock: Superblock) -> list[str]:
        """tar2sqfs options that keep the old squashfs's settings, except for the compressor."""
        options = ["-q", "-s", "-c", self.compressor, "-b", str(superblock.block_size)]
        if self.level:
            options += ["-X", f"level={self.level}"]
        if superblock.exportable:
            options.append("-e")
        if not superblock.tails_packed:
            options.append("-T")
        return options


def _rewrite(image: LiveImage, old: Path, new: Path, *, options: list[str], payload: Payload, step: Step) -> None:
    labels = SelinuxLabels(image.liveos.tree)
    # -r .: include the root directory itself, with owner, mode and xattrs; -s: fail instead of skipping
    with tools.start(READER, "-s", "-r", ".", old) as reader:
        writer = tools.start(
            WRITER,
            *options,
            new,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={"SOURCE_DATE_EPOCH": str(image.mtime)},
        )
        with writer:
            failure: Exception | None = None
            try:
                with cast("IO[bytes]", writer.stdin) as stdin:
                    replace_members(
                        cast("IO[bytes]", reader.stdout),
                        stdin,
                        payload=payload,
                        mtime=image.mtime,
                        xattrs=labels.xattrs,
                        advance=step.advance,
                    )
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


def _compare(old: Path, new: Path, payload: Payload) -> None:
    """Raise WorkError unless the tree of the new squashfs is that of the old one plus the payload."""
    with open_tree(old) as before, open_tree(new) as after:
        differences = list(islice(unexplained_differences(before.walk(), after.walk(), payload), 5))
    if differences:
        raise WorkError(
            Problem(
                reference="rootfs-differs",
                message="the recompressed root filesystem differs from the original by more than the payload",
                label="\n  ".join(differences),
                hint="this is a bug in pxe-pack, please report it; without --compressor nothing is recompressed",
            )
        )
