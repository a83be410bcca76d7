"""The way in by a new root filesystem: the squashfs streamed through as tar, members exchanged, and compressed again.

sqfs2tar gives every inode with its xattrs, tar2sqfs writes them: of the root directory too, which sqfstar 4.5 loses.
Both run without privilege, and hold no more than some blocks in memory.
"""

from __future__ import annotations

import stat
import subprocess
from itertools import islice
from pathlib import Path
from typing import IO, cast

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.console import Console, Step
from pxe_pack.hashing import Tally, beside, copy_span
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.squashfs import Superblock, Tree
from pxe_pack.inject import isoedit, updates
from pxe_pack.inject.compare import unexpected
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.inject.isoedit import EDITOR, Placed
from pxe_pack.inject.tarstream import TarDamagedError, exchange
from pxe_pack.payload import Payload
from pxe_pack.tools import WorkError

READER, WRITER = "sqfs2tar", "tar2sqfs"
TOOLS: tuple[str, ...] = (READER, WRITER, EDITOR)
# squashfs-tools-ng 1.2 marks small blocks that lz4 made larger as compressed; Linux and unsquashfs refuse such images.
UNWRITABLE = frozenset({"lz4"})
HOW = "the root filesystem rewritten, with the payload in it"

_MARGIN = 1 << 20  # bytes


def objection(image: LiveImage) -> str | None:
    """Why this way is not right for `image`; None when it is."""
    if image.live is None:
        return "its root filesystem is its initrd, and only a squashfs can be rewritten"
    live = image.live
    if live.superblock is None:
        return f"{live.root.path} is an {live.root_format} file system, and only a squashfs can be rewritten"
    if image.facts.nested:
        return (
            f"{live.root.path} is a squashfs around a file system in a file ({image.facts.nested}), and only a plain "
            "squashfs can be rewritten"
        )
    if live.superblock.compressor in UNWRITABLE:
        return (
            f"{live.root.path} is compressed with {live.superblock.compressor}, which {WRITER} cannot be trusted with"
        )
    socket = next((inode.path for inode in live.tree.walk() if stat.S_ISSOCK(inode.mode)), None)
    if socket:
        return f"its root filesystem has a socket (/{socket}), which no tar stream can carry"
    return None


def room(image: LiveImage, payload: Payload) -> int:
    """Bytes of disk it takes at most."""
    # the old squashfs, the new one, and the ISO with it
    live = image.liveos
    return 2 * live.span.size + payload.size + live.iso.size + payload.size + _MARGIN


def inject(image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
    """Write the ISO with a new root filesystem; see Injector."""
    incoming, outgoing = _write(image, payload, target=target.place(target.iso), work=work, console=console)
    return Injected(files={target.iso: outgoing}, inputs={image.iso_path: incoming})


def _write(image: LiveImage, payload: Payload, *, target: Path, work: Path, console: Console) -> tuple[Tally, Tally]:
    """Write the ISO to `target`, and give the tallies of what it was and what it is."""
    old, new = work / "old.squashfs", work / "new.squashfs"
    live = image.liveos
    superblock = cast("Superblock", live.superblock)  # `objection` refused the others
    with beside() as hasher:
        incoming = hasher.file(live.iso.path)
        with console.step("Taking the root filesystem out", total=live.span.size) as step:
            copy_span(live.iso.file, old, offset=live.span.offset, size=live.span.size, advance=step.advance)
        with console.step(f"Rewriting the root filesystem ({superblock.compressor})") as step:
            _rewrite(old, new, superblock=superblock, payload=payload, mtime=image.mtime, step=step)
            step.note(f"{live.span.size:,} → {new.stat().st_size:,} bytes")
        with console.step("Comparing the new root filesystem with the old one"):
            _compare(Tree(file=old), Tree(file=new), payload)
        old.unlink()
        placed = Placed(path=live.root.path, source=new, mode=live.root.mode)
        with console.step("Writing the ISO"):
            isoedit.rewrite(
                live.iso, target, removed=updates.former(image, payload), placed=[placed], mtime=image.mtime, work=work
            )
        new.unlink()
        outgoing = hasher.file(target)
        with console.step("Hashing the ISO"):
            return incoming.result(), outgoing.result()


def _rewrite(old: Path, new: Path, *, superblock: Superblock, payload: Payload, mtime: int, step: Step) -> None:
    # -r .: the root directory as a member of its own, with its owner, mode and xattrs; -s: fail rather than skip
    with tools.start(READER, "-s", "-r", ".", old) as reader:
        writer = tools.start(
            WRITER,
            *_options(superblock),
            new,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={"SOURCE_DATE_EPOCH": str(mtime)},
        )
        with writer:
            failure: Exception | None = None
            try:
                with cast("IO[bytes]", writer.stdin) as entrance:
                    exchange(
                        cast("IO[bytes]", reader.stdout), entrance, payload=payload, mtime=mtime, advance=step.advance
                    )
            except BrokenPipeError as error:
                if isinstance(error.__context__, (KeyboardInterrupt, SystemExit)):
                    raise error.__context__ from None  # a signal to all of us, hidden by the closing pipe
                failure = error  # the writer says why on its stderr
            except TarDamagedError as error:
                failure = error  # the reader does
                writer.kill()
            except BaseException:
                writer.kill()
                reader.kill()
                raise
            _finish(reader, writer, failure)


def _finish(reader: subprocess.Popen[bytes], writer: subprocess.Popen[bytes], failure: Exception | None) -> None:
    """Wait for both, and raise what went wrong first."""
    if isinstance(failure, BrokenPipeError):
        reader.kill()
    cast("IO[bytes]", reader.stdout).close()  # should it have more to say, it ends now
    reader_said, writer_said = (cast("IO[bytes]", process.stderr).read() for process in (reader, writer))
    reader.wait()
    writer.wait()
    if isinstance(failure, BrokenPipeError):
        tools.check(WRITER, writer.returncode, writer_said)
    tools.check(READER, reader.returncode, reader_said)
    if failure:
        raise WorkError(Problem(reference="rootfs-unreadable", message=f"{READER}'s stream: {failure}")) from failure
    tools.check(WRITER, writer.returncode, writer_said)


def _options(superblock: Superblock) -> list[str]:
    """What makes tar2sqfs write as the old squashfs was written."""
    options = ["-q", "-s", "-c", superblock.compressor, "-b", str(superblock.block_size)]
    if superblock.options:
        options += ["-X", ",".join(superblock.options)]
    if superblock.exportable:
        options.append("-e")
    if not superblock.tails_packed:
        options.append("-T")
    return options


def _compare(old: Tree, new: Tree, payload: Payload) -> None:
    """Raise WorkError unless the new tree is the old one with the payload."""
    differences = list(islice(unexpected(old.walk(), new.walk(), payload), 5))
    if differences:
        raise WorkError(
            Problem(
                reference="rootfs-differs",
                message="the rewritten root filesystem differs from the old one by more than the payload",
                label="\n  ".join(differences),
                hint="this is a fault of pxe-pack; --inject updates does not rewrite anything",
            )
        )
