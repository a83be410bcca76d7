"""The model: what takes a node's memory in each phase of its boot, and what each file system in memory has to hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.mounts import Mount
from pxe_pack.layout.entries import BootEntry
from pxe_pack.node_memory import tmpfs
from pxe_pack.node_memory.demand import Demand, mount_for
from pxe_pack.node_memory.tmpfs import Limit
from pxe_pack.node_memory.writable_layer import ROOT, RUN, WritableLayer, writable_layer

# The initrd is unpacked; it fetches and mounts the LiveOS; the system runs, and the agent fetches the artifacts.
PHASES = ("unpacking", "booting", "running")
_KERNEL, _SYSTEM = 128 << 20, 256 << 20  # bytes: the least for the kernel and the programs in an initrd, in a system
_OWN_OF_RUN = 16 << 20  # bytes that a running system has in /run: the journal (journald.conf(5)), udev, units
_SHM = "/dev/shm"  # noqa: S108


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Something in memory: bytes in each of PHASES. `optional`: only on some nodes, or an artifact not required."""

    what: str
    sizes: tuple[int, int, int]
    optional: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """A file system in memory that holds artifacts."""

    point: str  # its mount point
    limit: Limit | None  # None: as much as there is memory
    least: int = 0  # bytes that dracut enlarges it to
    most: int | None = None  # another limit in bytes, of the writable layer in it
    own: int = 0  # bytes in it that are no artifact's
    artifacts: tuple[Demand, ...] = ()

    @property
    def sure(self) -> int:
        """Bytes that every node has in it."""
        return self.own + sum_of(self.artifacts, sure=True)

    @property
    def possible(self) -> int:
        """Bytes that a node has in it that gets all artifacts."""
        return self.sure + sum_of(self.artifacts, sure=False)

    def size(self, memory: int) -> int | None:
        """Bytes that it holds on a node with so many bytes of memory; None if it has no limit."""
        limits = [max(self.limit.on(memory), self.least)] if self.limit else []
        return min([*limits, *([] if self.most is None else [self.most])], default=None)


@dataclass(frozen=True, kw_only=True)
class NodeMemory:
    """The memory of the nodes that boot an image's default entry."""

    given: int | None  # bytes that a node has; None if that was not said
    parts: tuple[Part, ...]
    spaces: tuple[Space, ...]
    layer: WritableLayer
    unknown: tuple[str, ...]  # artifacts that take more than is counted

    @cached_property
    def needed(self) -> int:
        """Bytes that every node needs, in the phase that needs most."""
        return max(self.sums(optional=False))

    @cached_property
    def wanted(self) -> int:
        """Bytes that a node needs that gets all artifacts."""
        return max(self.sums(optional=True))

    def sums(self, *, optional: bool) -> tuple[int, ...]:
        """Bytes needed in each of PHASES."""
        counted = [part for part in self.parts if optional or not part.optional]
        return tuple(sum(part.sizes[phase] for part in counted) for phase in range(len(PHASES)))


def node_memory(
    image: LiveImage,
    entry: BootEntry | None,
    *,
    artifacts: Iterable[Demand],
    mounted: Mapping[str, Mount],
    copied: int,
    live_space: str | None,
    given: int | None,
) -> NodeMemory:
    """The memory of nodes that boot `entry` of `image`.

    `mounted` is what the image mounts at boot, `copied` are the bytes that dracut copies onto the root filesystem
    (apply-live-updates), `live_space` is that of the packed configuration, `given` the bytes of memory that a node has.
    """
    layer = writable_layer(image, entry)
    inside: defaultdict[str, list[Demand]] = defaultdict(list)
    for one in artifacts:
        if point := _point_of(one, layer, mounted):
            inside[point].append(one)
    demands = [one for several in inside.values() for one in several]
    packed, unpacked = _initrd(image, entry)
    iso = image.iso.size if image.iso else 0
    stays = unpacked if image.live is None else 0  # switch_root removes what is in another initrd
    parts = [
        Part(what="kernel and programs", sizes=(_KERNEL, _KERNEL, _SYSTEM)),
        Part(what="initrd, as loaded", sizes=(packed, 0, 0)),
        Part(what="initrd, unpacked", sizes=(unpacked, unpacked, stays)),
        Part(what="ISO, as fetched", sizes=(0, iso, iso)),
        *(Part(what=what, sizes=(0, size, size)) for what, size in layer.copies),
        Part(what="pxe-fetch", sizes=(0, 0, copied)),
        Part(what="artifacts", sizes=(0, 0, sum_of(demands, sure=True))),
        Part(what="artifacts of some nodes", sizes=(0, 0, sum_of(demands, sure=False)), optional=True),
    ]
    own = Counter({RUN: _OWN_OF_RUN + sum(size for _, size in layer.copies)})
    own[layer.space] += copied + stays
    limits = _limits(image, entry, mounted)
    # live_space comes later, and sets another size
    least = layer.check.image + layer.check.left if layer.check and not live_space else 0
    if live_space:
        point = ROOT if image.live is None else RUN
        limits[point] = limits[point] and Limit(size=live_space, why="live_space")
    spaces = [
        Space(
            point=point,
            limit=limits.get(point),
            least=least if point == RUN else 0,
            most=layer.most if point == layer.space else None,
            own=own[point],
            artifacts=tuple(inside[point]),
        )
        for point in dict.fromkeys([layer.space, *([RUN] if layer.copies else []), *inside])
    ]
    return NodeMemory(
        given=given,
        parts=tuple(part for part in parts if any(part.sizes)),
        spaces=tuple(spaces),
        layer=layer,
        unknown=tuple(one.name for one in demands if one.packed or not one.size),
    )


def sum_of(demands: Iterable[Demand], *, sure: bool) -> int:
    """The bytes of those demands that are sure, or of those that are not, when they need most.

    An archive stays until its content is in place, which is about as large or larger: the largest counts twice.
    """
    counted = [one for one in demands if one.sure is sure]
    return sum(one.size for one in counted) + max((one.size for one in counted if one.packed), default=0)


def _initrd(image: LiveImage, entry: BootEntry | None) -> tuple[int, int]:
    """The bytes of the entry's initrds, as they are loaded and unpacked; of all if there is no entry."""
    packed = unpacked = 0
    for name in tmpfs.initrds_of(image, entry):
        file = image.media.find(name)
        size = file.size if file else 0
        packed += size
        unpacked += max(image.initrds[name].unpacked, size)
    return packed, unpacked


def _point_of(demand: Demand, layer: WritableLayer, mounted: Mapping[str, Mount]) -> str | None:
    """The mount point of the space that holds an artifact; None if it goes to a disk."""
    if mount := mount_for(demand.dest, mounted):
        return mount.point if mount.in_memory else None
    known = f"{demand.dest.partition('${')[0]}/"
    return next((point for point in (RUN, _SHM) if known.startswith(f"{point}/")), layer.space)


def _limits(image: LiveImage, entry: BootEntry | None, mounted: Mapping[str, Mount]) -> dict[str, Limit | None]:
    """The limit of each file system in memory, by its mount point."""
    limits: dict[str, Limit | None] = {_SHM: tmpfs.of_shm()}
    limits |= {point: tmpfs.of_mount(mount) for point, mount in mounted.items() if mount.in_memory}
    limits[RUN] = tmpfs.of_run(image, entry, mounted.get(RUN))
    if image.live is None:
        limits[ROOT] = tmpfs.of_root(entry)
    return limits
