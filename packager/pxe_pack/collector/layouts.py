"""What the collector knows of what is served: the tokens in the images, and the signed programs that boot nodes.

A published folder has these for each version. They are read again when versions come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from pxe_pack.image.liveos import opened
from pxe_pack.inject.packed_config import packed_token
from pxe_pack.layout.layout import VERSIONS, Layout
from pxe_pack.layout.manifest import MANIFEST
from pxe_pack.layout.published import find_published
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, WorkError
from pxe_pack.trust import signed_boot

INTERVAL = 2.0  # seconds between two looks at the versions

_Key = tuple[str, int, int]  # of one state of a layout: its version, and its manifest's inode and time


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    token: str  # empty if its nodes report with none that packing has made
    programs: frozenset[str]  # paths of its signed programs


class ServedLayouts:
    """The layout in `folder`, or the versions in it; None: nothing is known of what is served.

    Raises InputError if `folder` has neither.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[_Key, _Known] = {}
        self._programs: dict[str, frozenset[str]] = {}  # by version; "": of what is served now
        self.tokens: Mapping[str, str] = {}  # token -> the folder's name
        if folder:
            if not find_published(folder):
                Layout.read(real_path(folder))
            self._read(folder)

    def programs(self, version: str = "") -> frozenset[str]:
        """The paths of the signed programs of this version; by default, of what is served now."""
        return self._programs.get(version, self._programs.get("", frozenset()))

    def path_of(self, file: str) -> str:
        """The path within the layout of `file`, which is where the TFTP server has it; unchanged if it is elsewhere."""
        return file.removeprefix(f"{self._folder}/") if self._folder else file

    async def run(self) -> None:
        """Look for other versions until cancelled."""
        while self._folder:
            await asyncio.sleep(INTERVAL)
            with suppress(InputError, OSError):
                await run_in_threadpool(self._read, self._folder)

    def _read(self, folder: Path) -> None:
        published = find_published(folder)
        root = published.root if published else real_path(folder)
        names = published.versions() if published else [""]
        found = {
            key: known for name in names for key, known in self._of(root / VERSIONS / name if name else root, name)
        }
        programs = {version: known.programs for (version, _, _), known in found.items()}
        current = published.current if published else ""
        self._known = found
        self._programs = {**programs, "": programs.get(current or "", frozenset())}
        self.tokens = {known.token: root.name for known in found.values() if known.token}

    def _of(self, root: Path, version: str) -> Iterator[tuple[_Key, _Known]]:
        """What is known of the layout in `root`, which is read only if it has changed; nothing if it is damaged."""
        with suppress(InputError, WorkError, OSError):
            status = (root / MANIFEST).stat()
            key = (version, status.st_ino, status.st_mtime_ns)
            yield key, self._known.get(key) or _read(Layout.read(root))


def _read(layout: Layout) -> _Known:
    token = ""
    if layout.report_url:
        with opened(layout.root, boot_url=layout.urls.boot_url or "") as image:
            token = packed_token(image)
    return _Known(token=token, programs=frozenset(signed_boot.programs(layout)))
