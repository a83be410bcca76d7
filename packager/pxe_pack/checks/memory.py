"""Checks that a node has enough memory for the image and its artifacts, and its file systems in memory enough room."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.quantity import show_size
from pxe_pack.checks.subject import Subject
from pxe_pack.node_memory import NodeMemory, Space
from pxe_pack.node_memory.table import mebibytes
from pxe_pack.node_memory.tmpfs import total
from pxe_pack.node_memory.writable_layer import ROOT, RUN

_MOST = 90  # percent that live_space may be; see contract.quantity
_STEP = 5  # percent


def memory(subject: Subject) -> Iterator[Problem]:
    """Errors where every node has too little memory, warnings where some have; a note if `node_memory` is not given."""
    model = subject.memory
    if model.given is None:
        yield Problem(
            reference="node-memory",
            message=f"a node needs at least {mebibytes(model.needed)} of memory: {_breakdown(model)}",
            hint="to check it against your nodes, pass for example --node-memory 4GiB",
            severity="note",
        )
        return
    if model.wanted > model.given:
        sure = model.needed > model.given
        yield Problem(
            reference="node-memory",
            message=f"{'a node' if sure else 'a node that gets all artifacts'} needs at least "
            f"{mebibytes(model.needed if sure else model.wanted)} of memory, but has {show_size(model.given)}: "
            f"{_breakdown(model)}",
            hint="make the image smaller, put artifacts on a disk, or give nodes more memory",
            severity="error" if sure else "warning",
        )
    if (check := model.layer.check) and total(model.given) - check.image < check.left:
        yield Problem(
            reference="node-memory",
            message=f"dracut copies {mebibytes(check.image)} into memory and wants {mebibytes(check.left)} left "
            f"(rd.minmem), which a node with {show_size(model.given)} does not have: it opens an emergency shell",
            hint="remove rd.live.ram and rd.writable.fsimg, set rd.minmem (MiB), or give nodes more memory",
        )
    for space in model.spaces:
        yield from _room(space, model, model.given)
    if subject.packed and subject.packed.live_space and model.layer.space not in (RUN, ROOT):
        yield Problem(
            reference="live-space-unused",
            message=f"live_space enlarges {RUN}, but {model.layer.space} of this image's writable layer is not there",
            hint="boot with rd.live.overlay.overlayfs, or leave live_space out",
            severity="warning",
        )


def _room(space: Space, model: NodeMemory, given: int) -> Iterator[Problem]:
    size = space.size(given)
    if size is None or space.possible <= size:
        return
    sure = space.sure > size and not (model.layer.persistent and space.point == model.layer.space)
    needed = space.sure if space.sure > size else space.possible
    limit = space.limit or "rd.live.overlay.size"
    whose = "" if sure else " on a node that gets all artifacts"
    yield Problem(
        # the reference is older than the model: it once meant half of the memory
        reference="node-memory-half",
        message=f"{space.point} has to hold {mebibytes(needed)}{whose}, but on a node with {show_size(given)} it "
        f"holds {mebibytes(size)} ({limit})",
        hint=_remedy(space, model, given, needed=needed),
        severity="error" if sure else "warning",
    )


def _remedy(space: Space, model: NodeMemory, given: int, *, needed: int) -> str:
    """What makes room: the share that live_space needs, if the memory is enough for it."""
    others = "put artifacts on a disk, or give nodes more memory"
    share = -(-needed * 100 // total(given) // _STEP) * _STEP + _STEP
    if space.point in (RUN, ROOT) and share <= _MOST and model.wanted <= given:
        return f"set `live_space: {share}%` in fetch.yaml, which enlarges it before the agent starts; or {others}"
    return f"make the image smaller, {others}"


def _breakdown(model: NodeMemory) -> str:
    """What is in memory in the phase that needs most."""
    sums = model.sums(optional=True)
    phase = sums.index(max(sums))
    taken = ((part.what, part.sizes[phase]) for part in model.parts if part.sizes[phase])
    return "; ".join(f"{what}: {mebibytes(size)}" for what, size in taken)
