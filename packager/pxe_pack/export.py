"""Writes the layout: boot loaders, GRUB's files, kernels, the ISO and artifacts, with a manifest and checksums."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pxe_fetch.contract.chunks import listed
from pxe_fetch.contract.model import Chunks, Digest
from pxe_pack import folder_archive
from pxe_pack.artifacts import FOLDER, Exported, LocalFile
from pxe_pack.chunks import ChunkDigests, chunk_size
from pxe_pack.hashing import Advance, SizeAndDigest, copy_hashed, copy_whole
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_CFG, GRUB_DIR
from pxe_pack.image.liveos import LiveImage
from pxe_pack.layout.ipxe import IPXE_SCRIPT, script
from pxe_pack.output import MANIFEST, SUMS
from pxe_pack.payload import Entry, Payload

GRUBENV = "# GRUB Environment Block\n".ljust(1024, "#")  # GRUB manual, 15 "The GRUB environment block"


@dataclass(slots=True)
class LayoutWriter:
    """A layout being written: its folder, and the files in it so far."""

    root: Path
    files: dict[str, SizeAndDigest] = field(default_factory=dict)  # by path
    urls: dict[str, str] = field(default_factory=dict)  # path -> URL of the files HTTP serves

    def write(self, path: str, pieces: Iterable[bytes], *, url: str | None = None) -> SizeAndDigest:
        """Write a file and hash it in the same pass."""
        counted = copy_hashed(pieces, self.place(path))
        self.record(path, counted, url=url)
        return counted

    def place(self, path: str) -> Path:
        """The path on disk for the file `path`. Creates its parent folders."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def record(self, path: str, counted: SizeAndDigest, *, url: str | None = None) -> None:
        """Add a file that has been written already."""
        self.files[path] = counted
        if url:
            self.urls[path] = url

    def text(self, path: str) -> str:
        """The content of a text file; empty if it does not exist."""
        file = self.root / path.lstrip("/")
        return file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else ""

    @property
    def size(self) -> int:
        return sum(counted.size for counted in self.files.values())


def export_artifacts(
    layout: LayoutWriter, files: Iterable[LocalFile], *, base: str, advance: Advance
) -> dict[LocalFile, Exported]:
    """Copy the local artifacts into the layout and write their lists of chunk digests.

    Raises OSError, and WorkError if a folder changes while it is packed.
    """
    return {file: _export_artifact(layout, file, base=base, advance=advance) for file in files}


def _export_artifact(layout: LayoutWriter, file: LocalFile, *, base: str, advance: Advance) -> Exported:
    path = f"{FOLDER}/{file.name}"
    digests = ChunkDigests(file.chunk) if file.chunk else None
    consumers = [digests.update] if digests else []
    target = layout.place(path)
    if file.folder:
        pieces = folder_archive.archive(file.source, planned=file.folder, advance=advance)
        content = copy_hashed(pieces, target, consumers=consumers)
    else:
        with file.source.open("rb", buffering=0) as source:
            content = copy_whole(source, target, advance=advance, consumers=consumers)
    layout.record(path, content, url=file.url(base))
    # only now is it known whether an archive is large enough for a list
    is_listed = digests and chunk_size(content.size, file.requested_chunks)
    chunks = _export_list(layout, file, digests, base=base) if digests and is_listed else None
    return Exported(path=target, content=content, chunks=chunks)


def _export_list(layout: LayoutWriter, file: LocalFile, digests: ChunkDigests, *, base: str) -> Chunks:
    url = file.list_url(base)
    written = layout.write(f"{FOLDER}/{file.list_name}", [listed(digests.finish()).encode()], url=url)
    return Chunks(size=digests.size, urls=(url,), digest=Digest(algorithm="sha256", hex=written.sha256))


def export_boot_files(layout: LayoutWriter, image: LiveImage, loaders: BootLoaders) -> None:
    """Write the boot loaders, kernels, initrds and GRUB's files into the layout. Raises OSError."""
    for name, file in {**loaders.files, **image.boot_files()}.items():
        if name not in layout.files:
            layout.write(name, file.pieces())
    for name, text in loaders.redirector.items():
        layout.write(name, [text.encode()])
    if f"{GRUB_DIR}/grubenv" not in layout.files:
        layout.write(f"{GRUB_DIR}/grubenv", [GRUBENV.encode()])
    export_scripts(layout, image.network.text)


def export_scripts(layout: LayoutWriter, grub_cfg: str) -> None:
    """Write the boot configuration: grub.cfg, and the same entries as an iPXE script.

    The text files that `grub_cfg` loads must already be in the layout. Raises OSError.
    """
    layout.write(GRUB_CFG, [grub_cfg.encode(errors="surrogateescape")])
    layout.write(IPXE_SCRIPT, [script(grub_cfg, read=layout.text).encode(errors="surrogateescape")])


def payload_document(payload: Payload) -> list[dict[str, object]]:
    """The files added to the image, for the manifest."""
    return [_entry_document(entry) for entry in payload.entries]


def _entry_document(entry: Entry) -> dict[str, object]:
    mode = f"{stat.S_IMODE(entry.mode):04o}"
    if stat.S_ISDIR(entry.mode):
        return {"path": f"/{entry.path}", "type": "directory", "mode": mode}
    if stat.S_ISLNK(entry.mode):
        return {"path": f"/{entry.path}", "type": "link", "target": entry.target}
    return {"path": f"/{entry.path}", "type": "file", "mode": mode, "size": entry.size}


def finish(layout: LayoutWriter, facts: Mapping[str, object]) -> None:
    """Write the manifest (`facts` and the list of files) and the checksums, and make every file world-readable."""
    outputs = [
        {"path": path, "size": counted.size, "sha256": counted.sha256, **_url(layout, path)}
        for path, counted in sorted(layout.files.items())
    ]
    text = json.dumps({**facts, "outputs": outputs}, indent=2, ensure_ascii=False) + "\n"
    manifest = copy_hashed([text.encode()], layout.root / MANIFEST)
    lines = [_sum_line(path, counted) for path, counted in sorted({**layout.files, MANIFEST: manifest}.items())]
    (layout.root / SUMS).write_text("".join(lines), encoding="utf-8")
    for path in layout.root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # independent of the umask


def _url(layout: LayoutWriter, path: str) -> dict[str, str]:
    return {"url": layout.urls[path]} if path in layout.urls else {}


def _sum_line(path: str, counted: SizeAndDigest) -> str:
    """A line of SHA256SUMS. As in coreutils, a line starts with a backslash if the name needed escaping."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{counted.sha256}  {escaped}\n"
