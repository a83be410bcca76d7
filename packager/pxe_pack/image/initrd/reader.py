"""Examine an initrd for dracut's modules and hooks, or for a whole root filesystem. Streamed, not unpacked.

Sources: dracut's modules.d/90dmsquash-live and 90livenet (file names); os-release(5) on /etc/initrd-release; Linux,
init/main.c (without rdinit= the kernel starts /init).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pxe_fetch.contract.problem import Problem
from pxe_pack.image import ca_bundles
from pxe_pack.image.decompress import DAMAGED
from pxe_pack.image.initrd import download
from pxe_pack.image.initrd.appended import Appended
from pxe_pack.image.initrd.cpio import KEPT_LIMIT, Archives, Member, Segment, Source
from pxe_pack.image.initrd.squashed import Form, SquashedContent
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.rootfs import OS_RELEASE
from pxe_pack.image.tree import Inode, ListedTree
from pxe_pack.squashfs.errors import SquashfsError
from pxe_pack.tools import InputError, WorkError

_SYSTEMD = re.compile(r"(?:^|/)libsystemd-(?:shared|core)-(\d+)[^/]*\.so$")
_MODULES = re.compile(r"(?:^|/)lib/dracut/modules\.txt$")
_LIVENETROOT = re.compile(r"(?:^|/)s?bin/livenetroot$")
_UPDATES_HOOK = re.compile(r"(?:^|/)pre-pivot/\d+-apply-live-updates\.sh$")
_KERNEL = re.compile(r"^(?:usr/)?lib/modules/([^/]+)$")
# dracut modules that configure the network; `network` itself only selects one of them
_NETWORK = ("network-legacy", "network-manager", "systemd-networkd", "connman")
_INITRD_RELEASES = ("etc/initrd-release", "usr/lib/initrd-release")


@dataclass(frozen=True, kw_only=True, slots=True)
class InitrdFacts:
    """What an initrd contains and can do."""

    compression: str  # of its main archive: none, gzip, xz, lzma, zstd; if unsupported, its name or "unknown"
    readable: bool
    modules: frozenset[str] = frozenset()  # dracut's; empty if it does not list them
    livenet: bool = False  # it downloads root=live:http://…
    dmsquash_live: bool = False  # it mounts a LiveOS
    applies_updates: bool = False  # it copies the medium's updates/ onto the new root (dracut's apply-live-updates)
    systemd: int | None = None  # version
    full_os: bool = False  # a whole root filesystem, which never switches to another
    kernels: frozenset[str] = frozenset()  # releases (`uname -r`) that it has modules for
    network: tuple[str, ...] = ()  # dracut modules that configure the network
    url_lib: bool = False  # it has dracut's download functions
    curl: bool = False  # it has curl, which those functions use
    nfs: bool = False  # it has dracut's functions for NFS
    ignores_curl_errors: bool = False  # those functions take half a file for a whole one
    ca_bundle: bool = False  # it has CA certificates, for https
    unpacked: int = field(default=0, compare=False)  # size of its files once unpacked, in bytes
    mtime: int = field(default=0, compare=False)  # of its newest file, seconds since the epoch
    segments: tuple[Segment, ...] = field(default=(), compare=False)
    appended: Appended | None = None  # what pxe-pack appended; of these fields only `unpacked` includes it
    squashed: Form | None = None  # the form of the image in it that has its content (dracut's squash module)
    tree: ListedTree = field(default_factory=lambda: ListedTree(inodes={}, read=_nothing), compare=False, repr=False)

    @property
    def unread_reason(self) -> str:
        """Why its content is unknown, as in "it is compressed with lz4"; empty if it could be read."""
        if self.readable:
            return ""
        return (
            f"its content is in an {self.squashed} image"
            if self.squashed
            else f"it is compressed with {self.compression}"
        )


def _nothing(path: str) -> bytes:
    raise WorkError(Problem(reference="initrd-lacks", message=f"the initrd has no file {path}"))


def read_initrd(source: Source, *, name: str, keep: Callable[[str], bool] = lambda _: False) -> InitrdFacts:
    """The facts of the initrd in `source`; `name` is its path, for messages.

    Files for which `keep` is true stay in memory; its tree reads others by streaming the initrd again. Raises
    InputError if it is not an initrd, or is damaged.
    """
    try:
        return _read(source, keep)
    except (*DAMAGED, SquashfsError) as error:
        raise InputError(
            Problem(
                reference="initrd-damaged",
                message=f"cannot read the initrd {name}: {str(error) or 'unexpected end of file'}",
                hint="build the image again; dracut's `lsinitrd` lists the content of an initrd",
            )
        ) from error


def _read(source: Source, keep: Callable[[str], bool]) -> InitrdFacts:
    archives, content = Archives(source), _Content(source=source, keep=keep)
    newest = unpacked = 0
    for member in archives.members(content.wanted, content.squashed.destination):
        newest = max(newest, member.mtime)
        unpacked += member.size
        content.add(member)
    if not archives.segments:
        raise EOFError("it is empty")
    content.look_inside()
    return _facts(archives.segments, content, mtime=newest, unpacked=unpacked)


@dataclass(kw_only=True)
class _Content:
    """The names in an initrd, and the files of it that are needed."""

    source: Source
    keep: Callable[[str], bool]
    inodes: dict[str, Inode] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    squashed: SquashedContent = field(default_factory=SquashedContent)

    def wanted(self, path: str) -> bool:
        facts = bool(_MODULES.search(path)) or path in download.URL_LIBS or ca_bundles.is_ca_bundle(path)
        return facts or bool(_LIVENETROOT.search(path)) or self.keep(path)

    def add(self, member: Member) -> None:
        self.inodes[member.path] = _inode(member)
        if member.content is not None and stat.S_ISREG(member.mode):
            self.files[member.path] = member.content

    def look_inside(self) -> None:
        """Add what is in the squashfs inside, if there is one. Raises SquashfsError."""
        if inside := self.squashed.tree:
            inodes: dict[str, Inode] = {}
            count, names, kept = Usage(Limit.INITRD_FILES), Usage(Limit.INITRD_NAMES), Usage(Limit.INITRD_KEPT)
            for inode in inside.walk():
                count.add()
                names.add(len(inode.path) + len(inode.target))
                inodes[inode.path] = inode
            self.inodes |= inodes
            for path, inode in inodes.items():
                if stat.S_ISREG(inode.mode) and int(inode.size) <= KEPT_LIMIT and self.wanted(path):
                    kept.add(int(inode.size))
                    self.files[path] = inside.cat(path)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises WorkError if there is no such file."""
        if path not in self.files and stat.S_ISREG(self.inodes[path].mode if path in self.inodes else 0):
            for member in Archives(self.source).members(lambda one: one == path):
                if member.path == path and member.content is not None:
                    self.files[path] = member.content
            if path not in self.files and (inside := self.squashed.tree):
                self.files[path] = inside.cat(path)
        return self.files[path] if path in self.files else _nothing(path)


def _inode(member: Member) -> Inode:
    return Inode(
        path=member.path,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        size=str(member.size),
        mtime=datetime.fromtimestamp(member.mtime, tz=UTC).strftime("%Y-%m-%d %H:%M"),
        target=os.fsdecode(member.content) if stat.S_ISLNK(member.mode) and member.content else "",
    )


def _facts(segments: list[Segment], content: _Content, *, mtime: int, unpacked: int) -> InitrdFacts:
    names, squashed = content.inodes, content.squashed.form
    tree = ListedTree(inodes=names, read=content.read)
    bases = {name.rsplit("/", 1)[-1].removesuffix(".sh") for name in names}
    listed = b"\n".join(data for name, data in content.files.items() if _MODULES.search(name))
    scripts = [content.files[name].decode(errors="replace") for name in download.URL_LIBS if name in content.files]
    modules = frozenset(listed.decode(errors="replace").split())
    systemd = [int(found[1]) for name in names if (found := _SYSTEMD.search(name))]
    # microcode comes first, in separate uncompressed archives; additions come after the main archive
    main = next((one for one in segments if one.compression != "none"), segments[0] if segments else None)
    return InitrdFacts(
        compression=main.compression if main else "unknown",
        readable=bool(main and main.end > main.offset) and squashed != "EROFS",
        modules=modules,
        livenet="livenetroot" in bases or "livenet" in modules,
        dmsquash_live="dmsquash-live-root" in bases or "dmsquash-live" in modules,
        applies_updates=any(_UPDATES_HOOK.search(name) for name in names),
        systemd=systemd[-1] if systemd else None,
        full_os="init" in names and _has(names, OS_RELEASE) and not _has(names, _INITRD_RELEASES),
        kernels=frozenset(found[1] for name in names if (found := _KERNEL.match(name))),
        network=tuple(name for name in _NETWORK if name in modules),
        url_lib=_has(names, download.URL_LIBS) or "url-lib" in modules,
        curl=_has(names, download.CURL),
        nfs=_has(names, download.NFS_LIBS),
        ignores_curl_errors=any(map(download.ignores_curl_errors, scripts)),
        ca_bundle=any(not ca_bundles.flaw(tree, path) for path in ca_bundles.OF_CURL),
        unpacked=unpacked,
        mtime=mtime,
        segments=tuple(segments),
        squashed=squashed,
        tree=tree,
    )


def _has(names: Container[str], paths: tuple[str, ...]) -> bool:
    return any(path in names for path in paths)
