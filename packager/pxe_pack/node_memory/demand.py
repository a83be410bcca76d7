"""How many bytes the artifacts of a configuration take, and in which file system of a node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pxe_fetch.contract.model import Artifact, When
from pxe_pack.image.mounts import Mount

_EVERY_NODE = When()


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What an artifact takes once it is installed."""

    name: str
    dest: str
    size: int  # bytes; 0 if unknown. Of an archive that only nodes unpack, its own: a lower limit
    sure: bool  # every node needs it: it is required, and for all of them
    packed: bool  # `size` is that of something packed, which takes more when it is unpacked


def demands(artifacts: Iterable[Artifact], local_sizes: Mapping[str, int]) -> Iterator[Demand]:
    """The demand of each artifact; `local_sizes` has the bytes of local ones by name, unpacked where that is known.

    Of several for the same destination a node gets one, the largest counts.
    """
    largest: dict[str, Demand] = {}
    for artifact in artifacts:
        local = local_sizes.get(artifact.name)
        one = Demand(
            name=artifact.name,
            dest=artifact.dest,
            size=local or artifact.size or 0,
            sure=artifact.required and artifact.when == _EVERY_NODE,
            packed=local is None and artifact.extract not in (None, "none"),
        )
        if one.dest not in largest or largest[one.dest].size < one.size:
            largest[one.dest] = one
    yield from largest.values()


def mount_for(dest: str, mounts: Mapping[str, Mount]) -> Mount | None:
    """The mount of the image that `dest` is on; None for the root filesystem. Facts in `dest` end what is known."""
    known = dest.partition("${")[0]
    points = [point for point in mounts if point != "/" and f"{known}/".startswith(f"{point}/")]
    return mounts[max(points, key=len)] if points else None
