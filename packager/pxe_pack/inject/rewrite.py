"""Recompress the root filesystem, and graft the payload onto the result."""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from pxe_pack.console import Console
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.liveroot import find_live
from pxe_pack.image.squashfs import Superblock
from pxe_pack.inject import recompress, rootfs
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.inject.recompress import Compression
from pxe_pack.inject.xorriso import EDITOR
from pxe_pack.payload import Payload

_MARGIN = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewrite:
    """The Injector used instead of `rootfs` when the root filesystem gets another compressor or level."""

    compressor: str
    level: int | None  # None: the compressor's default

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802  an injector constant
        return (*recompress.TOOLS, EDITOR)

    @property
    def HOW(self) -> str:  # noqa: N802
        level = f", level {self.level}" if self.level else ""
        return f"the root filesystem recompressed ({self.compressor}{level}), and the payload grafted onto it"

    def unsupported_reason(self, image: LiveImage) -> str | None:
        if reason := rootfs.no_squashfs(image):
            return reason
        socket = next((inode.path for inode in image.liveos.tree.walk() if stat.S_ISSOCK(inode.mode)), None)
        return f"its root filesystem has a socket (/{socket}), which a tar stream cannot hold" if socket else None

    def disk_space(self, image: LiveImage, payload: Payload) -> int:
        # the old squashfs, the new one, and two ISOs containing it; a fast level may need half as much again
        live = image.liveos
        return 6 * live.span.size + 2 * live.iso.size + 2 * payload.size + _MARGIN

    def inject(self, image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
        """Write the ISO with another root filesystem, and graft the payload onto that; see Injector.

        So the payload can be cut off again, and a packed ISO that is packed again has the same bytes.
        """
        made = work / "recompressed.iso"
        self._write(image, made, work=work, console=console)
        with open_iso(made, input_path=image.liveos.iso.input_path) as iso:
            live = find_live(iso, image.network.arguments)
            injected = rootfs.inject(replace(image, live=live), payload, target=target, work=work, console=console)
        made.unlink()
        return injected

    def _write(self, image: LiveImage, target: Path, *, work: Path, console: Console) -> None:
        """Write the ISO with its root filesystem recompressed to `target`."""
        old, new = work / "old.squashfs", work / "new.squashfs"
        live = image.liveos
        with console.step("Extracting the root filesystem"):
            rootfs.copy_original(image, old)
        with console.step(f"Rewriting the root filesystem ({self.compressor})") as step:
            recompress.recompress(
                old,
                new,
                superblock=cast("Superblock", live.superblock),  # `unsupported_reason` rejects images without one
                compression=Compression(
                    compressor=self.compressor, options=[f"level={self.level}"] if self.level else []
                ),
                advance=step.advance,
            )
            step.note(f"{live.span.size:,} → {new.stat().st_size:,} bytes")
        with console.step("Comparing the new root filesystem with the original"):
            recompress.compare(old, new)
        old.unlink()
        with console.step("Writing the ISO", total=new.stat().st_size) as step:
            rootfs.write_around(image, new, target, work=work, advance=step.advance)
        new.unlink()
