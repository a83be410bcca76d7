"""Disk space and memory: how much is free where a destination is, and which artifact reserved it.

Space is checked before the first byte is fetched, and reserved for one artifact at a time.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from pxe_fetch.contract.quantity import amount, show_share
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.errors import NoRoomError
from pxe_fetch.filesystem import free_bytes, is_in_memory, mount_of, no_room, read_mounts, storage_of
from pxe_fetch.plan import Transfer

KiB = 1024
OWN_MEMORY = 32 * 1024 * KiB  # bytes of memory that the agent keeps for itself

_CLOSE = 0.9  # of the size asked for: the kernel counts a share by the pages that it had at that moment
_MEMORY = -1  # stands for memory among device numbers; no device has it
_BLOCK = 512  # bytes of one of st_blocks, whatever the file system's block size (stat(2))


@mutable_record
class Reservation:
    """The space of one artifact: `declared` bytes until its download starts, then what is still missing of `size`."""

    transfer: Transfer
    directory: str  # the destination's, or its nearest parent that exists
    pools: tuple[int, ...]  # what its bytes are taken from: the device, and _MEMORY if the file system is in memory
    declared: int = 0
    size: int | None = None  # None: its download has not started

    def outstanding(self) -> int:
        """Bytes that have not been written yet."""
        return self.declared if self.size is None else max(self.size - _allocated(self.transfer.part), 0)


class DiskSpace:
    """The node's free space, and which artifact it is reserved for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._mounts = read_mounts()
        self._locations: dict[Path, tuple[str, tuple[int, ...]]] = {}  # directory and pools
        self._reserved: dict[str, Reservation] = {}
        self._lock = Lock()

    def preflight(self, transfers: Iterable[Transfer]) -> dict[str, NoRoomError]:
        """Reserve the declared size of each artifact, less what an earlier run has left of it.

        Returns the optional artifacts that do not fit beside the required ones: by name, the error. Raises NoRoomError
        if the required artifacts alone do not fit.
        """
        refused: dict[str, NoRoomError] = {}
        free: dict[int, float] = {}
        reserved: Counter[int] = Counter()
        for transfer in sorted(transfers, key=lambda transfer: not transfer.required):  # stable: then as configured
            directory, pools = self._location(transfer.dest.parent)
            one = Reservation(transfer=transfer, directory=directory, pools=pools, declared=_declared(transfer))
            try:
                _check(one, one.declared, reserved=reserved, free=free)
            except NoRoomError as error:
                if transfer.required:
                    raise NoRoomError(f"{transfer.name}: {error}") from None
                refused[transfer.name] = error
            else:
                if one.declared:
                    self._reserved[transfer.name] = one
                    reserved.update(dict.fromkeys(pools, one.declared))
        return refused

    def reserve(self, transfer: Transfer, size: int) -> None:
        """Reserve `size` bytes for an artifact whose download starts. Raises NoRoomError if they do not fit.

        Space reserved for others is not available to it, except that a required artifact may take the space of optional
        ones that have not started.
        """
        with self._lock:
            before = self._reserved.pop(transfer.name, None)
            declared = before.declared if before and before.size is None else 0
            directory, pools = self._location(transfer.dest.parent)
            one = Reservation(transfer=transfer, directory=directory, pools=pools, size=size)
            if size > declared and (missing := one.outstanding()) > declared:
                others = [
                    (other.pools, other.outstanding())
                    for other in self._reserved.values()
                    if other.size is not None or other.transfer.required or not transfer.required
                ]
                reserved = Counter({pool: sum(count for found, count in others if pool in found) for pool in pools})
                _check(one, missing, reserved=reserved, free={})
            self._reserved[transfer.name] = one

    def release(self, name: str) -> None:
        """Give up the reservation of the artifact `name`, if it has one."""
        with self._lock:
            self._reserved.pop(name, None)

    def _location(self, directory: Path) -> tuple[str, tuple[int, ...]]:
        found, existing = self._locations.get(directory), directory
        while found is None:
            try:
                # A live system's overlay takes its space from the file system of its upper directory.
                device = os.stat(storage_of(str(existing), self._mounts)).st_dev  # noqa: PTH116
            except OSError:  # missing, or another program has just moved it
                existing = existing.parent
                continue
            pools = (device, _MEMORY) if is_in_memory(str(existing), self._mounts) else (device,)
            found = self._locations[directory] = str(existing), pools
        return found


def _check(one: Reservation, needed: int, *, reserved: Counter[int], free: dict[int, float]) -> None:
    """Raise NoRoomError unless there are `needed` bytes beside those reserved for others, by pool.

    `free` has the free bytes of each pool, and gets those that it lacks.
    """
    for pool in one.pools:
        if pool not in free:
            free[pool] = memory_left() if pool == _MEMORY else free_bytes(one.directory)
        left = max(free[pool] - reserved[pool], 0)
        if needed <= left:
            continue
        what = "memory" if _MEMORY in one.pools else "disk space"
        others = f", besides {amount(reserved[pool])} reserved for other artifacts" if reserved[pool] else ""
        remedy = "give the node more memory, or choose a dest on a disk"
        if pool != _MEMORY:
            remedy = no_room(one.directory, wanted=needed + reserved[pool])
        message = f"{amount(needed)} needed, {amount(int(left))} available{others}; {remedy}"
        raise NoRoomError(f"not enough {what} in {one.directory}: {message}")


def available(fd: int, path: str) -> float:
    """The bytes that fit in the open directory `path`: free on its file system, and in memory if it is there."""
    free = free_bytes(fd)
    return min(free, memory_left()) if is_in_memory(path) else free


def memory_left() -> float:
    """The bytes of memory that files may take; infinite if that is unknown."""
    memory = memory_available()
    return math.inf if memory is None else max(memory - OWN_MEMORY, 0)


def check_live_space(wanted: str) -> tuple[bool, str]:
    """Whether what is written to the root filesystem has the space that `live_space` asks for, and a sentence."""
    mounts = read_mounts()
    mount = mount_of(storage_of("/", mounts), mounts)
    place, key = f"{mount.point} ({mount.fs_type})", f"`live_space: {show_share(wanted)}`"
    if not is_in_memory(mount.point, mounts):
        return False, f"{key} changes nothing: {place} is not in memory"
    status = os.statvfs(mount.point)
    size = status.f_blocks * status.f_frsize
    share = (memory_available(b"MemTotal:") or 0) * int(wanted.removesuffix("%")) // 100
    if size < _CLOSE * (share if wanted.endswith("%") else int(wanted)):
        return False, f"{place} has {amount(size)}, less than {key}: the key takes effect when packed"
    return True, f"{place} has {amount(size)}, as {key} asks for"


def memory_available(field: bytes = b"MemAvailable:") -> int | None:
    """MemAvailable, or another `field`, of /proc/meminfo (proc_meminfo(5)) in bytes; None if it is missing."""
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/meminfo", "rb", buffering=0) as file:  # noqa: PTH123  read for thousands of files
            _, _, rest = file.read(KiB).partition(field)
        return int(rest.split(maxsplit=1)[0]) * KiB
    return None


def _declared(transfer: Transfer) -> int:
    """The bytes that `transfer` still needs; 0 if it declares no size, or a file of that size is at its destination."""
    if transfer.size is None:
        return 0
    with suppress(OSError):
        if transfer.dest.lstat().st_size == transfer.size:
            return 0  # most likely up to date; if not, `reserve` checks it
    return max(transfer.size - _allocated(transfer.part), 0)


def _allocated(part: Path) -> int:
    """The bytes that a part file takes on disk; holes take none."""
    with suppress(OSError):
        return part.lstat().st_blocks * _BLOCK
    return 0
