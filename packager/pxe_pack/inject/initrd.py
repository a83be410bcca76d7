"""The way in by the initrd: one more archive behind those that it has, which the kernel unpacks over them.

Of a full-os image the initrd is the root filesystem, so files go where they belong. Of a bootstrap image they go below
/updates, which dracut copies onto the new root (modules.d/90dmsquash-live/apply-live-updates.sh, 059 to current) as it
does updates/ of the medium. The ISO is not touched. Of the kernel's compressions the initrd's own is taken, for that
one it knows. Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst, init/initramfs.c.
"""

from __future__ import annotations

import json
import lzma
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from pxe_pack.console import Console
from pxe_pack.freeze.agent import MANIFEST
from pxe_pack.hashing import SizeAndDigest, copy_with_trailer
from pxe_pack.image.appended import Appended
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.inject import newc, updates
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.payload import Entry, Payload

TOOLS: tuple[str, ...] = ()
HOW = "an archive appended to the initrd, which the kernel unpacks over it"
RECORD = "initrd.json"  # beside the agent's manifest

_GZIP_LEVEL = 4  # the agent: 7.1 MB in 0.4 s; 6 takes twice as long for 3 % less, 9 eight times
_ZSTD_LEVEL, _XZ_PRESET = 6, 1
_MARGIN = 1 << 20  # bytes


def objection(image: LiveImage) -> str | None:
    """Why this way is not right for `image`; None when it is."""
    if image.live is None:
        return None  # where SELinux enforces, its other files come out of a cpio without labels too
    if image.selinux_enforcing:
        return "SELinux enforces, and files copied at boot get no labels"
    return updates.no_hook(image)


def room(image: LiveImage, payload: Payload) -> int:
    """Bytes of disk it takes at most."""
    iso = image.iso.size if image.iso else 0
    return iso + len(_targets(image)) * payload.size + _MARGIN


def inject(image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:  # noqa: ARG001  nothing temporary
    """Write the initrds with the payload behind what they have; see Injector."""
    entries = list(_laid(image, payload))
    program = next(entry for entry in entries if entry.path.endswith(f"/{MANIFEST}"))
    record, agent = f"{program.path.removesuffix(MANIFEST)}{RECORD}", _version(program)
    boot_files = image.boot_files()
    archives: dict[str, bytes] = {}
    files, inputs = {}, {}
    with console.step("Appending the payload to the initrd") as step:
        for path, name in _targets(image).items():
            compression = image.initrds[name].compression
            if compression not in archives:
                archives[compression] = _compressed(newc.archive(entries, mtime=image.mtime), compression)
            addition = _Addition(archive=archives[compression], record=record, agent=agent, mtime=image.mtime)
            inputs[name], files[path] = copy_with_trailer(
                boot_files[path].pieces(), target.place(path), trailer=addition
            )
            step.note(f"{inputs[name].size:,} → {files[path].size:,} bytes")
    return Injected(files=files, inputs=inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Addition:
    """What comes behind an initrd: the payload, and a record of what was before it."""

    archive: bytes
    record: str  # its path
    agent: str
    mtime: int

    def __call__(self, before: SizeAndDigest) -> bytes:
        text = Appended(before=before, agent=self.agent).pack()
        entry = Entry(path=self.record, mode=stat.S_IFREG | 0o644, content=text)
        # archives that are not compressed begin at multiples of 4
        added = bytes(-before.size % 4) + self.archive + bytes(-len(self.archive) % 4)
        return added + b"".join(newc.archive([entry], mtime=self.mtime))


def _targets(image: LiveImage) -> dict[str, str]:
    """Path in the layout -> path on the medium, of the initrds that get the payload."""
    names = [name for name, facts in image.initrds.items() if image.live or facts.full_os]
    return {path: name for path, name in image.network.files.items() if name in names}


def _laid(image: LiveImage, payload: Payload) -> Iterator[Entry]:
    """The payload's entries as the kernel is to make them, parents first."""
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
    """`pieces` in one frame of a format that the kernel of an initrd with this `compression` knows."""
    data = b"".join(pieces)
    if compression == "gzip":
        packer = zlib.compressobj(_GZIP_LEVEL, wbits=31)
        return packer.compress(data) + packer.flush()
    if compression == "zstd":
        stream = zstd.ZstdCompressor(level=_ZSTD_LEVEL)  # a window of the level's, not of the data's size
        return stream.compress(data) + stream.flush()
    if compression == "xz":  # of its checks the kernel knows CRC32 alone (lib/xz)
        return lzma.compress(data, check=lzma.CHECK_CRC32, preset=_XZ_PRESET)
    return data
