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
from pxe_pack.image.decompress import DAMAGED
from pxe_pack.image.initrd.appended import Appended
from pxe_pack.image.initrd.cpio import Archives, Member, Segment, Source
from pxe_pack.image.tree import Inode, ListedTree
from pxe_pack.tools import InputError, WorkError

_SYSTEMD = re.compile(r"(?:^|/)libsystemd-(?:shared|core)-(\d+)[^/]*\.so$")
_MODULES = re.compile(r"(?:^|/)lib/dracut/modules\.txt$")
_UPDATES_HOOK = re.compile(r"(?:^|/)pre-pivot/\d+-apply-live-updates\.sh$")
_KERNEL = re.compile(r"^(?:usr/)?lib/modules/([^/]+)$")
_CURL = ("usr/bin/curl", "bin/curl")
_CA_BUNDLES = ("etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-bundle.crt")
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_URL_LIBS = ("usr/lib/url-lib.sh", "lib/url-lib.sh")
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
    ca_bundle: bool = False  # it has CA certificates, for https
    unpacked: int = field(default=0, compare=False)  # size of its files once unpacked, in bytes
    mtime: int = field(default=0, compare=False)  # of its newest file, seconds since the epoch
    segments: tuple[Segment, ...] = field(default=(), compare=False)
    appended: Appended | None = None  # what pxe-pack appended; of these fields only `unpacked` includes it
    tree: ListedTree = field(default_factory=lambda: ListedTree(inodes={}, read=_nothing), compare=False, repr=False)


def _nothing(path: str) -> bytes:
    raise WorkError(Problem(reference="initrd-lacks", message=f"the initrd has no file {path}"))


def read_initrd(source: Source, *, name: str, keep: Callable[[str], bool] = lambda _: False) -> InitrdFacts:
    """The facts of the initrd in `source`; `name` is its path, for messages.

    Files for which `keep` is true stay in memory; its tree reads others by streaming the initrd again. Raises
    InputError if it is not an initrd, or is damaged.
    """
    archives = Archives(source)
    inodes: dict[str, Inode] = {}
    contents: dict[str, bytes] = {}
    newest = unpacked = 0
    try:
        for member in archives.members(lambda path: bool(_MODULES.search(path)) or keep(path)):
            inodes[member.path] = _inode(member)
            newest = max(newest, member.mtime)
            unpacked += member.size
            if member.content is not None and stat.S_ISREG(member.mode):
                contents[member.path] = member.content
        if not archives.segments:
            raise EOFError("it is empty")
    except DAMAGED as error:
        raise InputError(
            Problem(
                reference="initrd-damaged",
                message=f"cannot read the initrd {name}: {str(error) or 'unexpected end of file'}",
                hint="build the image again; dracut's `lsinitrd` lists the content of an initrd",
            )
        ) from error

    def read(path: str) -> bytes:
        if path not in contents:
            if not stat.S_ISREG(inodes[path].mode if path in inodes else 0):
                return _nothing(path)
            for member in Archives(source).members(lambda one: one == path):
                if member.path == path and member.content is not None:
                    contents[path] = member.content
        return contents[path] if path in contents else _nothing(path)

    return _facts(archives.segments, ListedTree(inodes=inodes, read=read), contents, mtime=newest, unpacked=unpacked)


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


def _facts(
    segments: list[Segment], tree: ListedTree, contents: dict[str, bytes], *, mtime: int, unpacked: int
) -> InitrdFacts:
    names = tree.inodes
    bases = {name.rsplit("/", 1)[-1].removesuffix(".sh") for name in names}
    listed = b"".join(content for name, content in contents.items() if _MODULES.search(name))
    modules = frozenset(listed.decode(errors="replace").split())
    systemd = [int(found[1]) for name in names if (found := _SYSTEMD.search(name))]
    # microcode comes first, in separate uncompressed archives; additions come after the main archive
    main = next((one for one in segments if one.compression != "none"), segments[0] if segments else None)
    return InitrdFacts(
        compression=main.compression if main else "unknown",
        readable=bool(main and main.end > main.offset),
        modules=modules,
        livenet="livenetroot" in bases or "livenet" in modules,
        dmsquash_live="dmsquash-live-root" in bases or "dmsquash-live" in modules,
        applies_updates=any(_UPDATES_HOOK.search(name) for name in names),
        systemd=systemd[-1] if systemd else None,
        full_os="init" in names and _has(names, _RELEASES) and not _has(names, _INITRD_RELEASES),
        kernels=frozenset(found[1] for name in names if (found := _KERNEL.match(name))),
        network=tuple(name for name in _NETWORK if name in modules),
        url_lib=_has(names, _URL_LIBS) or "url-lib" in modules,
        curl=_has(names, _CURL),
        ca_bundle=_has(names, _CA_BUNDLES),
        unpacked=unpacked,
        mtime=mtime,
        segments=tuple(segments),
        tree=tree,
    )


def _has(names: Container[str], paths: tuple[str, ...]) -> bool:
    return any(path in names for path in paths)
