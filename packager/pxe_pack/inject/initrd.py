"""Inject through the initrd: append one more cpio archive, which the kernel unpacks over the earlier ones.

In a full-os image the initrd is the root filesystem, so files go to their final paths. In a bootstrap image they go
below /updates, which dracut copies onto the new root (modules.d/90dmsquash-live/apply-live-updates.sh, 059 to current),
just like updates/ on the medium. The ISO stays unchanged. The archive is compressed like the initrd itself, because the
kernel certainly supports that format. Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst,
init/initramfs.c.
"""

from __future__ import annotations

import json
import lzma
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from pxe_pack.console import Console
from pxe_pack.freeze.agent import MANIFEST
from pxe_pack.hashing import SizeAndDigest, copy_whole, copy_with_trailer
from pxe_pack.image.initrd.appended import Appended
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.inject import cpio_writer, updates
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.payload import Entry, Payload

TOOLS: tuple[str, ...] = ()
HOW = "an archive appended to the initrd, which the kernel unpacks over it"
RECORD = "initrd.json"  # next to the agent's manifest

_GZIP_LEVEL = 4  # the agent: 7.1 MB in 0.4 s; level 6 takes twice as long to save 3 %, level 9 eight times
_ZSTD_LEVEL, _XZ_PRESET = 6, 1
_MARGIN = 1 << 20  # bytes


def unsupported_reason(image: LiveImage) -> str | None:
    """Why this injector does not work for `image`; None if it does."""
    if image.live is None:
        return None  # under enforcing SELinux, its other files come out of a cpio without labels as well
    if image.selinux_enforcing:
        return "SELinux is enforcing, and files copied at boot get no labels"
    if squashed := [name for name, facts in image.initrds.items() if facts.squashed]:
        # dracut's init-squash.sh switches to the image; the archive's own files are not in it
        return f"{', '.join(squashed)} boots from an image inside it, which hides what is appended"
    return updates.no_hook(image)


def disk_space(image: LiveImage, payload: Payload) -> int:
    """Upper bound of the disk space it needs, in bytes."""
    iso = image.iso.size if image.iso else 0
    return iso + len(_targets(image)) * payload.size + _MARGIN


def inject(image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:  # noqa: ARG001  nothing temporary
    """Copy the ISO, and write the initrds with the payload appended; see Injector."""
    entries = list(_archive_entries(image, payload))
    program = next(entry for entry in entries if entry.path.endswith(f"/{MANIFEST}"))
    record, agent = f"{program.path.removesuffix(MANIFEST)}{RECORD}", _version(program)
    boot_files = image.boot_files()
    files, inputs = {}, {}
    with ThreadPoolExecutor(max_workers=1) as pool:  # zlib and its like release the GIL
        archives = {
            compression: pool.submit(_compressed, cpio_writer.archive(entries, mtime=image.mtime), compression)
            for compression in {image.initrds[name].compression for name in _targets(image).values()}
        }
        if image.iso:
            with console.step("Copying and hashing the ISO", total=image.iso.size) as step:
                copied = copy_whole(image.iso.file, target.place(target.iso), advance=step.advance)
            files[target.iso] = inputs[image.iso_path] = copied
        with console.step("Appending the payload to the initrd") as step:
            for path, name in _targets(image).items():
                archive = archives[image.initrds[name].compression].result()
                addition = _Addition(archive=archive, record=record, agent=agent, mtime=image.mtime)
                inputs[name], files[path] = copy_with_trailer(
                    boot_files[path].pieces(), target.place(path), trailer=addition
                )
                step.note(f"{inputs[name].size:,} → {files[path].size:,} bytes")
    return Injected(files=files, inputs=inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Addition:
    """The bytes appended to an initrd: the payload's archive, and a record of the original initrd."""

    archive: bytes
    record: str  # its path
    agent: str
    mtime: int

    def __call__(self, before: SizeAndDigest) -> Iterator[bytes]:
        text = Appended(before=before, agent=self.agent).pack()
        entry = Entry(path=self.record, mode=stat.S_IFREG | 0o644, content=text)
        # an uncompressed archive must start at a multiple of 4 bytes
        yield bytes(-before.size % 4)
        yield self.archive
        yield bytes(-len(self.archive) % 4)
        yield from cpio_writer.archive([entry], mtime=self.mtime)


def _targets(image: LiveImage) -> dict[str, str]:
    """Path in the layout -> path on the medium, for the initrds that get the payload."""
    names = [name for name, facts in image.initrds.items() if image.live or facts.full_os]
    return {path: name for path, name in image.network.files.items() if name in names}


def _archive_entries(image: LiveImage, payload: Payload) -> Iterator[Entry]:
    """The payload's entries at the paths where the kernel creates them, parents first."""
    if image.live is None:
        yield from payload.entries
        return
    moved = [replace(entry, path=f"{UPDATES}/{entry.path}") for entry in payload.entries]
    parents = {str(parent) for entry in moved for parent in PurePosixPath(entry.path).parents} - {"."}
    folders = [Entry(path=path, mode=stat.S_IFDIR | 0o755) for path in parents - {entry.path for entry in moved}]
    yield from sorted([*folders, *moved], key=lambda entry: entry.path)


def _version(manifest: Entry) -> str:
    text = manifest.content.read_bytes() if isinstance(manifest.content, Path) else manifest.content
    return str(json.loads(text)["agent"])


def _compressed(pieces: Iterable[bytes], compression: str) -> bytes:
    """`pieces` as one compressed frame; uncompressed if `compression` is one we cannot write."""
    packer: _Packer
    if compression == "gzip":
        packer = zlib.compressobj(_GZIP_LEVEL, wbits=31)
    elif compression == "zstd":
        packer = zstd.ZstdCompressor(level=_ZSTD_LEVEL)
    elif compression == "xz":  # the only check the kernel supports is CRC32 (lib/xz)
        packer = lzma.LZMACompressor(check=lzma.CHECK_CRC32, preset=_XZ_PRESET)
    else:
        return b"".join(pieces)
    return b"".join([*map(packer.compress, pieces), packer.flush()])


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...
