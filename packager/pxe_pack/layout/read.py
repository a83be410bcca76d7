"""Reads an exported layout from disk, using its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.output import MANIFEST, SUMS
from pxe_pack.tools import InputError

GRUB_CFG = "boot/grub2/grub.cfg"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A file that the manifest lists."""

    size: int
    sha256: str
    url: str | None  # None if HTTP does not serve it


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """An exported layout. Paths are relative to `root`; URLs are those that nodes use."""

    root: Path
    files: Mapping[str, Listed]  # without the manifest and the checksums
    manifest: Mapping[str, object]

    @property
    def boot_url(self) -> str | None:
        """The URL in `root=live:`; None for a full-os image."""
        return _text(self.manifest, "boot_url")

    @property
    def artifact_url(self) -> str | None:
        """The current base URL of the exported artifacts."""
        return _text(self.manifest, "artifact_url")

    @property
    def packed_artifact_url(self) -> str | None:
        """The base URL in the image's configuration; it differs from `artifact_url` after a relocation."""
        return _text(_part(self.manifest, "inject"), "artifact_url") or self.artifact_url

    @property
    def copied_payload(self) -> int:
        """The bytes of the payload that dracut copies onto a LiveOS's root at each boot; 0 if it is in the root."""
        inject = _part(self.manifest, "inject")
        size = inject.get("size")
        return size if inject.get("how") in ("updates", "initrd") and isinstance(size, int) else 0

    @property
    def machine(self) -> str:
        """The nodes' architecture, as in `uname -m`; empty if unknown."""
        return _text(_part(self.manifest, "image"), "machine") or ""

    @property
    def iso(self) -> str | None:
        """The path of the ISO that `root=live:` names; None if there is none."""
        return next((path for path, listed in self.files.items() if listed.url and listed.url == self.boot_url), None)

    def text(self, path: str) -> str:
        """The content of a text file; empty if it does not exist."""
        file = self.root / path.lstrip("/")
        return file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else ""

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


def read(root: Path) -> Layout:
    """Read the layout in `root`. Raises InputError if it was not exported by pxe-pack."""
    if not root.is_dir():
        raise _no_layout(f"{root} is not a directory")
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
        files = {
            str(entry["path"]): Listed(
                size=int(entry["size"]), sha256=str(entry.get("sha256", "")), url=_text(entry, "url")
            )
            for entry in manifest["outputs"]
        }
    except FileNotFoundError:
        raise _no_layout(f"{root} has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_layout(f"cannot read {root / MANIFEST}: {error!r}") from error
    return Layout(root=root, files=files, manifest=manifest)


def unlisted_files(layout: Layout) -> list[str]:
    """Paths of the files in the folder that the manifest does not list."""
    known = {MANIFEST, SUMS, *layout.files}
    there = (path for path in layout.root.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in there if (name := path.relative_to(layout.root).as_posix()) not in known)


def _text(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None


def _part(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _no_layout(message: str) -> InputError:
    hint = "a layout is the output folder of pxe-pack: `pxe-pack --agent-config fetch.yaml --output DIR`"
    return InputError(Problem(reference="layout-unreadable", message=message, hint=hint))


def _differs(message: str) -> Problem:
    hint = "nodes boot the files as they are now; pack again to restore the layout"
    return Problem(reference="layout-differs", message=message, hint=hint, severity="warning")
