"""The subject of the checks: an image as nodes will get it, or a layout as it is served, and its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from pxe_fetch.contract.chunks import SUFFIX
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import RuleError
from pxe_fetch.contract.validators import base_url
from pxe_pack.image import units
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_CFG, GRUB_DIR
from pxe_pack.image.initrd.reader import InitrdFacts
from pxe_pack.image.limits import Limit
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.mounts import Mount, mounts
from pxe_pack.image.programs import Programs, programs
from pxe_pack.inject.packed_config import packed_config, packed_trust
from pxe_pack.layout.entries import BootEntry, Menu, menu
from pxe_pack.layout.kernel_arguments import BASE_URL, CONFIG
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import Kind
from pxe_pack.node_memory import NodeMemory
from pxe_pack.node_memory import node_memory as node_memory_of
from pxe_pack.node_memory.demand import Demand, demands
from pxe_pack.trust.keys import TrustKey

_AGENT_SIZE = 20 << 20  # bytes, about: of the agent that a pack adds


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
    artifact_url: str  # the base URL of local artifacts; empty if unknown
    injector: str  # the name of the one that packing would use; empty if unknown, or for a layout
    verifies_iso: bool  # nodes verify the ISO that they download
    config: FetchConfig | None  # what nodes will have: the given one, else the packed one unless GRUB names another
    local_sizes: Mapping[str, int]  # bytes of local files, by artifact name
    memory: NodeMemory  # of the nodes that boot the default entry
    enabled: frozenset[str]  # units of the root filesystem that others start; empty if it cannot be read
    mounts: Mapping[str, Mount]  # what the root filesystem mounts at boot, by mount point
    trust: tuple[TrustKey, ...]  # the public keys in a layout's image
    packed: FetchConfig | None  # what is in the image: for an image, `config`; None if there is none

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
    artifact_url: str = "",
    injector: str = "",
    verifies_iso: bool = False,
    config: FetchConfig | None = None,
    local_sizes: Mapping[str, int] | None = None,
    node_memory: int | None = None,
) -> Subject:
    """The subject for `image`, or for `layout` if given. Raises GrubSyntaxError, OSError."""
    packed = packed_config(image) if layout else config

    def text(path: str) -> str:
        entry = image.media.find(path)
        return (
            image.media.read(entry, size=Limit.GRUB_BYTES.most).decode(errors="surrogateescape")
            if entry and entry.is_file
            else ""
        )

    grub = loaders.grub if loaders else None
    now = text(GRUB_CFG if layout else image.grub_source)
    shown = menu(now if layout else image.grub_cfg(grub), read=text, grub=grub)
    entry = shown.entries[shown.default or 0] if shown.entries else None
    enabled = units.enabled(image.tree) if image.tree else frozenset[str]()
    mounted = mounts(image.tree, enabled) if image.tree else {}
    return Subject(
        image=image,
        layout=layout,
        grub_cfg=now,
        menu=shown,
        loaders=loaders,
        programs=programs(image, loaders),
        boot_url=(layout.urls.boot_url or "") if layout else boot_url,
        artifact_url=(layout.urls.artifact_url or "") if layout else artifact_url,
        injector=injector,
        verifies_iso=layout.verifies_iso if layout else verifies_iso,
        config=_based(config or (None if any(one.agent_values(CONFIG) for one in shown.entries) else packed), entry),
        local_sizes=local_sizes or {},
        enabled=enabled,
        mounts=mounted,
        packed=packed,
        trust=packed_trust(image) if layout else (),
        memory=node_memory_of(
            image,
            entry,
            artifacts=_demands(config or packed, layout, local_sizes or {}),
            mounted=mounted,
            copied=_copied(image, layout, injector=injector),
            live_space=packed.live_space if packed else None,
            given=node_memory,
        ),
    )


def _based(config: FetchConfig | None, entry: BootEntry | None) -> FetchConfig | None:
    """`config` with the base URL that the kernel arguments of `entry` have, which replaces its own (pxe_fetch.plan)."""
    given = entry.agent_values(BASE_URL) if entry else []
    if not config or not given or not given[-1]:
        return config
    with suppress(RuleError):  # the agent refuses it
        return replace(config, base_url=base_url(given[-1]))
    return config


def _demands(config: FetchConfig | None, layout: Layout | None, local_sizes: Mapping[str, int]) -> Iterator[Demand]:
    """What the artifacts take; those that a layout serves, if its configuration cannot be read."""
    if config:
        yield from demands(config.artifacts, local_sizes)
    elif layout:
        for path, file in layout.of_kind(Kind.ARTIFACT).items():
            if not path.endswith(SUFFIX):
                yield Demand(name=path, dest="/", size=file.size, sure=True, packed=False)


def _copied(image: LiveImage, layout: Layout | None, *, injector: str) -> int:
    """The bytes of the payload that dracut copies onto the root at each boot."""
    if layout:
        return layout.copied_payload if image.live else 0
    return 0 if injector == "rootfs" or image.rootfs_source or image.live is None else _AGENT_SIZE
