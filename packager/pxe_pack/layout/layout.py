"""A layout: the folder that TFTP and HTTP servers serve, with its manifest and its checksums.

There are two ways to get one: `Layout.read` reads one from disk, with all that its manifest claims checked; or an empty
one is filled file by file, and `finish` writes its manifest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pxe_fetch.contract.paths import parents
from pxe_fetch.contract.problem import Problem
from pxe_pack.hashing import SizeAndDigest, copy_hashed
from pxe_pack.image.bootloader import grub_in
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.layout import kernel_arguments
from pxe_pack.layout.files import found_below, link_or_copy, mode_of, sum_line
from pxe_pack.layout.ipxe import IPXE_SCRIPT, program_script, script
from pxe_pack.layout.manifest import (
    MANIFEST,
    MAX_SIZE,
    SUMS,
    Kind,
    LayoutFile,
    ManifestError,
    parse_manifest,
    path_problem,
)
from pxe_pack.layout.pinned import Pinned, parse_pinned, serial_in
from pxe_pack.layout.urls import Urls
from pxe_pack.tools import InputError, WorkError

# of a published folder (layout/published.py): the folder of its versions, and the link to the one that is served
VERSIONS, CURRENT = "versions", "current"

TEST_BOOT_LOADER = "bootx64.efi"  # what the virtual machine of `pxe-pack boot` starts


@dataclass(kw_only=True, slots=True)
class Layout:
    """A layout on disk. Paths are relative to `root`."""

    root: Path
    urls: Urls
    files: dict[str, LayoutFile] = field(default_factory=dict)  # by path; without the manifest and the checksums
    facts: Mapping[str, object] = field(default_factory=dict)  # the rest of the manifest
    digest: str = ""  # SHA-256, of the manifest as it was read; empty: it was not

    @classmethod
    def read(cls, root: Path) -> Layout:
        """Read the layout in `root`. Raises InputError if it has no manifest, or one that cannot be trusted.

        Then every file it lists is below `root`, without a link on the way; it may be missing.
        """
        if not root.is_dir():
            raise _unreadable(f"{root} is not a directory")
        data = _content(root / MANIFEST)
        if data is None:
            raise _unreadable(f"{root} has no {MANIFEST}", published=(root / CURRENT).is_symlink())
        try:
            manifest = parse_manifest(data)
        except ManifestError as error:
            raise _unreadable(f"{root / MANIFEST} {error}") from error
        facts = manifest.facts
        urls = Urls(boot_url=_text(facts, "boot_url"), artifact_url=_text(facts, "artifact_url"))
        digest = hashlib.sha256(data).hexdigest()
        layout = cls(root=root, urls=urls, files=dict(manifest.files), facts=facts, digest=digest)
        layout._refuse_links()
        return layout

    def _refuse_links(self) -> None:
        """Raise InputError if a listed file, or a folder above one, is a link or of another type."""
        for folder in sorted({parent for path in self.files for parent in parents(path)}):
            if (mode := mode_of(self.root / folder)) and not stat.S_ISDIR(mode):
                raise _unsafe(self.root / folder, "folder", mode)
        for path in self.files:
            if (mode := mode_of(self.root / path)) and not stat.S_ISREG(mode):
                raise _unsafe(self.root / path, "regular file", mode)

    def check_unchanged(self) -> None:
        """Raise WorkError if the manifest is not the one that was read: another run has changed the layout since."""
        data = _content(self.root / MANIFEST)
        if data is None or hashlib.sha256(data).hexdigest() != self.digest:
            message = f"the layout {self.root} was changed meanwhile"
            raise WorkError(Problem(reference="layout-changed", message=message, hint="run it again"))

    @property
    def is_ours(self) -> bool:
        """True if its manifest says that pxe-pack wrote it."""
        return "pxe_pack" in self.facts

    @property
    def packed_artifact_url(self) -> str | None:
        """The base URL in the image's configuration; it differs from the current one after a relocation."""
        return _text(section_of(self.facts, "inject"), "artifact_url") or self.urls.artifact_url

    @property
    def is_relocated(self) -> bool:
        """True if kernel arguments tell nodes another base URL of the artifacts than the image's configuration."""
        return self.packed_artifact_url != self.urls.artifact_url

    @property
    def verifies_iso(self) -> bool:
        """True if its initrds have what compares a downloaded ISO with the digest on the kernel command line."""
        return section_of(self.facts, "verify_iso").get("on") is True

    @property
    def left_behind(self) -> dict[str, str]:
        """The files of the image's medium that the layout has no use for: path -> why."""
        listed = self.facts.get("left_behind")
        entries = listed if isinstance(listed, list) else []
        pairs = ((one.get("path"), one.get("why")) for one in entries if isinstance(one, dict))
        return {path: why for path, why in pairs if isinstance(path, str) and isinstance(why, str)}

    @property
    def pinned(self) -> Pinned | None:
        """The configuration that its nodes fetch by URL; None if `pxe-pack pin` has named none."""
        document = self.facts.get("pinned")
        return parse_pinned(document) if document is not None else None

    @property
    def pinned_serial(self) -> int | None:
        """The highest serial of the configurations that were ever pinned; None if none had one."""
        return serial_in(self.facts)

    @property
    def added_arguments(self) -> tuple[str, ...]:
        """The names of the kernel arguments that were added after the pack."""
        relocated = (kernel_arguments.ARTIFACT_URL,) if self.is_relocated else ()
        return (*relocated, *(kernel_arguments.PIN if self.pinned else ()))

    @property
    def copied_payload(self) -> int:
        """The bytes of the payload that dracut copies onto a LiveOS's root at each boot; 0 if it is in the root."""
        inject = section_of(self.facts, "inject")
        size = inject.get("size")
        return size if inject.get("how") in ("updates", "initrd") and isinstance(size, int) else 0

    def fact(self, section: str, key: str) -> str:
        """A text of the manifest; empty if it has none there."""
        return _text(section_of(self.facts, section), key) or ""

    @property
    def is_bootable_here(self) -> bool:
        """Whether `pxe-pack boot` can boot it, which emulates x86_64 only."""
        return TEST_BOOT_LOADER in self.of_kind(Kind.BOOT)

    @property
    def report_url(self) -> str:
        """Where its nodes report to with a token in the image; empty if packing has put none there."""
        return self.fact("report", "url")

    @property
    def machine(self) -> str:
        """The nodes' architecture, as in `uname -m`; empty if unknown."""
        return self.fact("image", "machine")

    @property
    def iso(self) -> str | None:
        """The path of the ISO that `root=live:` names; None if there is none."""
        url = self.urls.boot_url
        return next((path for path, file in self.files.items() if url and file.url == url), None)

    @property
    def size(self) -> int:
        """Bytes in all its files."""
        return sum(file.size for file in self.files.values())

    def of_kind(self, kind: Kind) -> dict[str, LayoutFile]:
        """Its files of that kind, by path."""
        return {path: file for path, file in self.files.items() if file.kind is kind}

    def text(self, path: str) -> str:
        """The content of a text file by its GRUB path or its path here; empty if the layout has no such file."""
        name = path.lstrip("/")
        if name not in self.files or not (self.root / name).is_file():
            return ""
        return (self.root / name).read_text(encoding="utf-8", errors="surrogateescape")

    def missing(self) -> list[str]:
        """Paths that the manifest lists but that do not exist."""
        return [path for path in self.files if not (self.root / path).is_file()]

    def differing(self) -> list[Problem]:
        """A warning for each file that is missing or differs in size from the manifest."""
        found = []
        for path, listed in self.files.items():
            file = self.root / path
            if not file.is_file():
                found.append(_differs(f"{path} is listed in {MANIFEST} but does not exist"))
            elif (size := file.stat().st_size) != listed.size:
                found.append(_differs(f"{path} has {size:,} bytes, but {MANIFEST} says {listed.size:,}"))
        return found

    def unlisted(self) -> list[str]:
        """Paths in the folder that are not a layout's: of files, links, and folders (ending in /) without any."""
        known = {MANIFEST, SUMS, *self.files}
        return sorted(path for path in found_below(self.root) if path not in known)

    def place(self, path: str) -> Path:
        """The path on disk for the new file `path`. Creates its parent folders."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def write(self, path: str, pieces: Iterable[bytes], *, kind: Kind = Kind.BOOT) -> SizeAndDigest:
        """Write a file and hash it in the same pass. Raises OSError."""
        counted = copy_hashed(pieces, self.place(path))
        self.record(path, counted, kind=kind)
        return counted

    def record(self, path: str, counted: SizeAndDigest, *, kind: Kind = Kind.BOOT) -> None:
        """Add a file that has been written already. Raises WorkError if a layout cannot have a file of that name."""
        if reason := path_problem(path):
            message = f"the file {path!r} cannot be in a layout: it {reason}"
            raise WorkError(Problem(reference="layout-file-name", message=message))
        self.files[path] = LayoutFile(size=counted.size, sha256=counted.sha256, kind=kind, url=self.urls.of(path, kind))

    def take_over(self, path: str, other: Layout, *, name: str = "") -> None:
        """Add the file `path` of the layout `other`, as `name` if given: a hard link where the file system can."""
        known = other.files[path]
        link_or_copy(other.root / path, self.place(name or path))
        self.record(name or path, SizeAndDigest(size=known.size, sha256=known.sha256), kind=known.kind)

    def write_scripts(self, grub_cfg: str, *, program: str = "") -> None:
        """Write the boot configuration: grub.cfg, and the same entries as an iPXE script.

        If there is a signed `program` that has all in it, the script starts that. The boot loaders and the text files
        that `grub_cfg` loads must already be there. Raises OSError, and GrubSyntaxError.
        """
        self.write(GRUB_CFG, [grub_cfg.encode(errors="surrogateescape")])
        text = program_script(program) if program else script(grub_cfg, read=self.text, grub=grub_in(self.root))
        self.write(IPXE_SCRIPT, [text.encode(errors="surrogateescape")])

    def finish(self, facts: Mapping[str, object]) -> None:
        """Write the manifest (`facts`, the URLs, the files) and the checksums; make every file world-readable.

        Raises WorkError if the manifest would be too large to be read again, and OSError.
        """
        self.facts = {**facts, "boot_url": self.urls.boot_url, "artifact_url": self.urls.artifact_url}
        outputs = [_entry(path, file) for path, file in sorted(self.files.items())]
        text = json.dumps({**self.facts, "outputs": outputs}, indent=2, ensure_ascii=False) + "\n"
        # The name of an input need not be UTF-8, but JSON has to be (RFC 8259, 8.1).
        content = text.encode(errors="surrogateescape").decode(errors="replace").encode()
        if len(content) > MAX_SIZE:
            message = f"the manifest has {len(content):,} bytes, more than the {MAX_SIZE:,} that pxe-pack reads"
            hint = "leave files of the image out with --leave-out"
            raise WorkError(Problem(reference="layout-too-many-files", message=message, hint=hint))
        manifest = copy_hashed([content], self.root / MANIFEST)
        sums = {path: file.sha256 for path, file in self.files.items()} | {MANIFEST: manifest.sha256}
        (self.root / SUMS).write_text("".join(sum_line(path, sums[path]) for path in sorted(sums)), encoding="utf-8")
        for path in self.root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # independent of the umask


def find_layout(folder: Path) -> Layout | None:
    """The layout in `folder`; None if pxe-pack has not written one there. Raises InputError if it cannot be trusted."""
    try:
        if not (folder / MANIFEST).is_file():
            return None
    except OSError:  # reported when the folder is read
        return None
    data = _content(folder / MANIFEST)
    return Layout.read(folder) if data and b'"pxe_pack"' in data else None


def _content(path: Path) -> bytes | None:
    """The bytes of a manifest; None if it does not exist. Raises InputError if it is a link, no file, or too large."""
    try:
        # O_NONBLOCK: opening a pipe without a writer would block
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise _unreadable(f"cannot read {path}: {why}") from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _unreadable(f"{path} is not a regular file")
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise _unreadable(f"{path} has more than {MAX_SIZE:,} bytes")
    return data


def _entry(path: str, file: LayoutFile) -> dict[str, object]:
    url = {"url": file.url} if file.url else {}
    return {"path": path, "size": file.size, "sha256": file.sha256, "kind": file.kind.value, **url}


def _text(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None


def section_of(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A section of the manifest; empty if there is none."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _unreadable(message: str, *, published: bool = False) -> InputError:
    hint = "a layout is the output folder of pxe-pack: `pxe-pack --agent-config fetch.yaml --output DIR`"
    if published:
        hint = f"it has versions of a layout: give DIR/{CURRENT}, or one in DIR/{VERSIONS}"
    return InputError(Problem(reference="layout-unreadable", message=message, hint=hint))


def _unsafe(path: Path, wanted: str, mode: int) -> InputError:
    what = "a link" if stat.S_ISLNK(mode) else f"not a {wanted}"
    message = f"{path} is {what}; pxe-pack does not follow links out of a layout"
    return InputError(
        Problem(reference="layout-unreadable", message=message, hint="replace it with the file itself, or pack again")
    )


def _differs(message: str) -> Problem:
    hint = "nodes boot the files as they are now; pack again to restore the layout"
    return Problem(reference="layout-differs", message=message, hint=hint, severity="warning")
