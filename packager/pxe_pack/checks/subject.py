"""What is checked: an image as nodes will get it, or a layout as it is served; and what is to be fetched there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pxe_fetch.contract.model import FetchConfig
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.initrd.reader import InitrdFacts
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.programs import Programs, programs
from pxe_pack.layout.entries import BootEntry, Menu, menu
from pxe_pack.layout.read import Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is checked. `menu` is what a node's GRUB gets: of an image, what packing makes of its configuration."""

    image: LiveImage
    layout: Layout | None  # None: an image that has yet to be packed
    grub_cfg: str  # as it is now: in the layout, or in the image
    menu: Menu
    loaders: BootLoaders | None  # those that nodes get; None: there are none that could be given
    programs: Programs
    boot_url: str  # where nodes find the ISO; empty when that is not known, or there is none
    config: FetchConfig | None
    local_sizes: Mapping[str, int]  # artifact -> bytes of its local file
    node_memory: int | None  # bytes of a node's memory, where that was given

    def initrds(self, entry: BootEntry) -> Iterator[tuple[str, InitrdFacts]]:
        """The initrds that an entry loads, by their paths on the medium."""
        for path in entry.initrds:
            name = self.on_medium(path)
            if facts := self.image.initrds.get(name):
                yield name, facts

    def on_medium(self, path: str) -> str:
        """The path on the medium of what GRUB finds at `path` in the layout."""
        return self.image.network.files.get(path.lstrip("/"), path.lstrip("/"))

    def has(self, path: str) -> bool:
        """Whether TFTP will serve the file `path`."""
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
    """`image` to be checked; `layout` is given when it is one. Raises GrubSyntaxError, OSError."""

    def text(path: str) -> str:
        entry = image.media.find(path)
        return image.media.read(entry).decode(errors="surrogateescape") if entry and entry.is_file else ""

    now = text(GRUB_CFG if layout else image.grub_source)
    return Subject(
        image=image,
        layout=layout,
        grub_cfg=now,
        menu=menu(now if layout else image.network.text, read=text),
        loaders=loaders,
        programs=programs(image, loaders),
        boot_url=(layout.boot_url or "") if layout else boot_url,
        config=config,
        local_sizes=local_sizes or {},
        node_memory=node_memory,
    )
