"""The subject of the checks: an image as nodes will get it, or a layout as it is served, and its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pxe_fetch.contract.model import FetchConfig
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_CFG, GRUB_DIR
from pxe_pack.image.initrd.reader import InitrdFacts
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.programs import Programs, programs
from pxe_pack.layout.entries import BootEntry, Menu, menu
from pxe_pack.layout.read import Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What to check. `menu` has the entries a node's GRUB gets: for an image, those that packing would write."""

    image: LiveImage
    layout: Layout | None  # None: an image that has yet to be packed
    grub_cfg: str  # the current text in the layout or in the image
    menu: Menu
    loaders: BootLoaders | None  # for the nodes; None if there are none
    programs: Programs
    boot_url: str  # the ISO's URL; empty if unknown, or if there is no ISO
    config: FetchConfig | None
    local_sizes: Mapping[str, int]  # bytes of local files, by artifact name
    node_memory: int | None  # bytes; None if not given

    def initrds(self, entry: BootEntry) -> Iterator[tuple[str, InitrdFacts]]:
        """The initrds that an entry loads, with their paths on the medium."""
        for path in entry.initrds:
            name = self.on_medium(path)
            if facts := self.image.initrds.get(name):
                yield name, facts

    def on_medium(self, path: str) -> str:
        """The path on the medium of the file at `path` in the layout."""
        return self.image.network.files.get(path.lstrip("/"), path.lstrip("/"))

    @property
    def has_modules(self) -> bool:
        """True if the layout has modules that GRUB may load, so that it has more commands than are built in."""
        below = f"{GRUB_DIR}/"
        names = self.layout.files if self.layout else self.image.boot_files()
        return any(name.startswith(below) and name.endswith(".mod") for name in names)

    def has(self, path: str) -> bool:
        """True if TFTP will serve the file `path`."""
        name = path.lstrip("/")
        if self.layout:
            return (self.layout.root / name).is_file()
        redirector = self.loaders.redirector if self.loaders else {}
        return name == GRUB_CFG or name in redirector or name in self.image.boot_files()


def subject(
    image: LiveImage,
    *,
    layout: Layout | None = None,
    loaders: BootLoaders | None,
    boot_url: str = "",
    config: FetchConfig | None = None,
    local_sizes: Mapping[str, int] | None = None,
    node_memory: int | None = None,
) -> Subject:
    """The subject for `image`, or for `layout` if given. Raises GrubSyntaxError, OSError."""

    def text(path: str) -> str:
        entry = image.media.find(path)
        return image.media.read(entry).decode(errors="surrogateescape") if entry and entry.is_file else ""

    grub = loaders.grub if loaders else None
    now = text(GRUB_CFG if layout else image.grub_source)
    return Subject(
        image=image,
        layout=layout,
        grub_cfg=now,
        menu=menu(now if layout else image.grub_cfg(grub), read=text, grub=grub),
        loaders=loaders,
        programs=programs(image, loaders),
        boot_url=(layout.boot_url or "") if layout else boot_url,
        config=config,
        local_sizes=local_sizes or {},
        node_memory=node_memory,
    )
