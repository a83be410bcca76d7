"""An exported layout as `boot` needs it: what TFTP serves, what HTTP serves under which URL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError

MANIFEST = "manifest.json"
BOOT_LOADER = "bootx64.efi"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A layout on disk. Paths are relative to `root`; URLs are those that the node will use."""

    root: Path
    tftp: tuple[str, ...]
    http: Mapping[str, str]  # URL -> path
    iso: str | None  # the URL of what `root=live:` names; None for an image that is all in its initrd
    findings: tuple[Problem, ...]  # what differs from the manifest: warnings, for a node would boot it as it is

    def size(self, path: str) -> int:
        """Bytes of a file of the layout; 0 when it is not there."""
        file = self.root / path
        return file.stat().st_size if file.is_file() else 0


def read(root: Path) -> Layout:
    """The layout in `root`. Raises InputError when pxe-pack did not export it, or it is not for x86_64."""
    tftp: list[str] = []
    http: dict[str, str] = {}
    findings: list[Problem] = []
    for path, size, url in _outputs(root):
        if url is None:
            tftp.append(path)
        else:
            http[url] = path
        file = root / path
        if not file.is_file():
            findings.append(_differs(f"{path} is in {MANIFEST} and is not there"))
        elif file.stat().st_size != size:
            findings.append(_differs(f"{path} has {file.stat().st_size:,} bytes, {MANIFEST} says {size:,}"))
    if BOOT_LOADER not in tftp:
        raise InputError(
            Problem(
                reference="layout-architecture",
                message=f"{root} is not a layout for x86_64 machines: it has no {BOOT_LOADER}",
                hint="`pxe-pack boot` has firmware for x86_64 only; try other layouts on a machine of their kind",
            )
        )
    iso = next((url for url, path in http.items() if path.lower().endswith(".iso")), None)
    return Layout(root=root, tftp=tuple(tftp), http=http, iso=iso, findings=tuple(findings))


def _outputs(root: Path) -> list[tuple[str, int, str | None]]:
    """(path, size, URL) of each file that the manifest lists."""
    if not root.is_dir():
        raise _no_layout(f"{root} is not a directory")
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
        return [(str(entry["path"]), int(entry["size"]), entry.get("url")) for entry in manifest["outputs"]]
    except FileNotFoundError:
        raise _no_layout(f"{root} has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_layout(f"{root / MANIFEST} cannot be read: {error!r}") from error


def _no_layout(message: str) -> InputError:
    hint = "`pxe-pack boot` takes the output folder of pxe-pack: `pxe-pack --agent-config fetch.yaml --output DIR`"
    return InputError(Problem(reference="layout-unreadable", message=message, hint=hint))


def _differs(message: str) -> Problem:
    hint = "the node boots what is there; export the layout again to have it whole"
    return Problem(reference="layout-differs", message=message, hint=hint, severity="warning")
