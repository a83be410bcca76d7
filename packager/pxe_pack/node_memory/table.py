"""The model of a node's memory as a table, and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.quantity import show_size
from pxe_pack.node_memory.model import PHASES, NodeMemory, Space

_MIB = 1 << 20


def lines(memory: NodeMemory) -> Iterator[str]:
    """The table: a row for each thing in memory, a column for each phase; then what each file system holds."""
    columns = [[mebibytes(size) if size else "" for size in part.sizes] for part in memory.parts]
    sums = [mebibytes(size) for size in memory.sums(optional=True)]
    widths = [max(map(len, column)) for column in zip(PHASES, sums, *columns, strict=True)]
    last = f"sum{f', of {show_size(memory.given)}' if memory.given is not None else ''}"
    titles = [part.what for part in memory.parts]
    left = max(map(len, [*titles, last]))
    rows = [("", PHASES), *zip(titles, columns, strict=True), (last, sums)]
    for number, (title, cells) in enumerate(rows):
        row = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        yield f"{'memory' if not number else '':10}{title:{left}}  {row}".rstrip()
    for space in memory.spaces:
        yield f"{'':10}{describe(space, memory.given)}"
    if memory.unknown:
        yield f"{'':10}not counted, as it is unknown: what {', '.join(memory.unknown)} takes (unpacked)"


def describe(space: Space, given: int | None) -> str:
    """What a file system has to hold, and how much it can: `/run: 740 MiB of 371 MiB (20% of the memory, …)`."""
    limit = f" ({space.limit})" if space.limit else " (no limit but the memory)"
    size = space.size(given) if given is not None else None
    if given is not None and space.limit and space.least > space.limit.on(given):
        limit = " (dracut enlarges it before it copies the image)"
    of = f" of {mebibytes(size)}" if size is not None else ""
    return f"{space.point}: {mebibytes(space.possible)}{of}{limit}"


def document(memory: NodeMemory) -> dict[str, object]:
    """The model as JSON values (docs/json.md), sizes in bytes."""
    return {
        "given": memory.given,
        "needed": memory.needed,
        "parts": [
            {"what": part.what, **dict(zip(PHASES, part.sizes, strict=True)), "optional": part.optional}
            for part in memory.parts
        ],
        "file_systems": [
            {
                "mount_point": space.point,
                "size": space.size(memory.given) if memory.given is not None else None,
                "limit": space.limit.size if space.limit else None,
                "why": space.limit.why if space.limit else None,
                "needed": space.sure,
                "possible": space.possible,
            }
            for space in memory.spaces
        ],
        "unknown": list(memory.unknown),
    }


def mebibytes(size: int) -> str:
    """A number of bytes in MiB, rounded up."""
    return f"{-(-size // _MIB):,} MiB"
