"""Append archives to initrds: one with files, and one with a record of the original initrd (docs/decisions/0016).

The files are compressed like the initrd itself, because its kernel certainly supports that format. Source: Linux,
Documentation/driver-api/early-userspace/buffer-format.rst, init/initramfs.c.
"""

from __future__ import annotations

import lzma
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from pxe_pack.console import Console
from pxe_pack.hashing import SizeAndDigest, copy_with_trailer
from pxe_pack.image.initrd.appended import Appended
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import cpio_writer
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.payload import Entry

RECORD = "initrd.json"

_GZIP_LEVEL = 4  # the agent: 7.1 MB in 0.4 s; level 6 takes twice as long to save 3 %, level 9 eight times
_ZSTD_LEVEL, _XZ_PRESET = 6, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """What one initrd gets."""

    entries: tuple[Entry, ...]  # parents first
    record: str  # the folder of the record: one of the entries, or one that the initrd has
    agent: str = ""  # its version, if it is among them
    verifies_iso: bool = False  # whether the files that verify the ISO are among them


@contextmanager
def compressing(image: LiveImage, additions: Mapping[str, Addition]) -> Iterator[Mapping[str, Future[bytes]]]:
    """Compress the archives of `additions` (by initrd) in a thread, since zlib and its like release the GIL."""
    started: dict[tuple[str, tuple[Entry, ...]], Future[bytes]] = {}
    with ThreadPoolExecutor(max_workers=1) as pool:
        for name, addition in additions.items():
            key = (image.initrds[name].compression, addition.entries)
            if key not in started:
                archive = cpio_writer.archive(addition.entries, mtime=image.mtime)
                started[key] = pool.submit(_compressed, archive, key[0])
        yield {name: started[image.initrds[name].compression, one.entries] for name, one in additions.items()}


def append(
    image: LiveImage,
    additions: Mapping[str, Addition],
    archives: Mapping[str, Future[bytes]],
    *,
    target: Target,
    console: Console,
) -> Injected:
    """Write each initrd of `additions` with its archive behind it. Raises OSError."""
    boot_files = image.boot_files()
    files, inputs = {}, {}
    with console.step("Appending to the initrd") as step:
        for path, name in image.network.files.items():
            if name in additions:
                trailer = _Trailer(addition=additions[name], archive=archives[name].result(), mtime=image.mtime)
                inputs[name], files[path] = copy_with_trailer(
                    boot_files[path].pieces(), target.place(path), trailer=trailer
                )
                step.note(f"{inputs[name].size:,} → {files[path].size:,} bytes")
    return Injected(files=files, inputs=inputs)


def append_hook(image: LiveImage, injected: Injected, *, target: Target, console: Console) -> Injected:
    """Append the target's hook to each initrd that the injector has not written. Returns all that is written.

    Raises OSError.
    """
    additions = {
        name: Addition(entries=entries, record=PurePosixPath(entries[-1].path).parent.as_posix(), verifies_iso=True)
        for name, entries in target.hook.items()
        if name not in injected.inputs
    }
    if not additions:
        return injected
    with compressing(image, additions) as archives:
        hooked = append(image, additions, archives, target=target, console=console)
    return Injected(files={**injected.files, **hooked.files}, inputs={**injected.inputs, **hooked.inputs})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trailer:
    """The bytes appended to an initrd: the archive, and a record of the original initrd."""

    addition: Addition
    archive: bytes
    mtime: int

    def __call__(self, before: SizeAndDigest) -> Iterator[bytes]:
        addition = self.addition
        record = Appended(before=before, agent=addition.agent, verifies_iso=addition.verifies_iso)
        entry = Entry(path=f"{addition.record}/{RECORD}", mode=stat.S_IFREG | 0o644, content=record.pack())
        # an uncompressed archive must start at a multiple of 4 bytes
        yield bytes(-before.size % 4)
        yield self.archive
        yield bytes(-len(self.archive) % 4)
        yield from cpio_writer.archive([entry], mtime=self.mtime)


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
