"""An exported layout as `boot` needs it: what TFTP serves, what HTTP serves under which URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.layout.read import read as read_layout
from pxe_pack.tools import InputError

BOOT_LOADER = "bootx64.efi"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedLayout:
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


def read_served_layout(root: Path) -> ServedLayout:
    """The layout in `root`. Raises InputError when pxe-pack did not export it, or it is not for x86_64."""
    layout = read_layout(root)
    tftp = tuple(path for path, listed in layout.files.items() if listed.url is None)
    http = {listed.url: path for path, listed in layout.files.items() if listed.url is not None}
    if BOOT_LOADER not in tftp:
        raise InputError(
            Problem(
                reference="layout-architecture",
                message=f"{root} is not a layout for x86_64 machines: it has no {BOOT_LOADER}",
                hint="`pxe-pack boot` has firmware for x86_64 only; try other layouts on a machine of their kind",
            )
        )
    return ServedLayout(root=root, tftp=tftp, http=http, iso=layout.boot_url, findings=tuple(layout.differing()))
