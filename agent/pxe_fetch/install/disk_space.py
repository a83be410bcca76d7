"""Disk space and memory: how much is free where a destination is, and which artifact reserved it.

Space is checked before the first byte is fetched, and reserved for one artifact at a time.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from pxe_fetch.contract.quantity import amount
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.errors import NoRoomError
from pxe_fetch.filesystem import free_bytes, is_in_memory, no_room, read_mounts, storage_of
from pxe_fetch.plan import Transfer

KiB = 1024
OWN_MEMORY = 32 * 1024 * KiB  # bytes of memory that the agent keeps for itself

# What was free so many seconds ago will do while it leaves so many bytes beside all that is reserved: nothing writes
# them in that time. With thousands of small files, a look for each would take a tenth of the run.
_RECENT = 0.1
_PLENTY = 256 * 1024 * KiB

_MEMORY = -1  # stands for memory among device numbers; no device has it
_BLOCK = 512  # bytes of one of st_blocks, whatever the file system's block size (stat(2))


@mutable_record
class Reservation:
    """The space of one artifact: `declared` bytes until its download starts, then what is still missing of `size`."""

    transfer: Transfer
    directory: str  # the destination's, or its nearest parent that exists
    pools: tuple[int, ...]  # what its bytes are taken from: the device, and _MEMORY if the file system is in memory
    declared: int
    size: int = 0
    started: bool = False

    def outstanding(self) -> int:
        """Bytes that have not been written yet."""
        return max(self.size - _allocated(self.transfer.part), 0) if self.started else self.declared


class DiskSpace:
    """The node's free space, and which artifact it is reserved for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._mounts = read_mounts()
        self._locations: dict[Path, tuple[str, tuple[int, ...]]] = {}  # directory and pools
        self._reservations: dict[str, Reservation] = {}
        self._started: dict[str, Reservation] = {}
        self._waiting: Counter[tuple[int, bool]] = Counter()  # (pool, required) -> bytes declared and not started
        self._free: dict[int, float] = {}  # pool -> bytes that were free at `_looked`
        self._looked = -math.inf  # on time.monotonic()
        self._lock = Lock()

    def preflight(self, transfers: Iterable[Transfer]) -> dict[str, NoRoomError]:
        """Reserve the declared size of each artifact, less what an earlier run has left of it.

        Returns the optional artifacts that do not fit beside the required ones: by name, the error. Raises NoRoomError
        if the required artifacts alone do not fit.
        """
        refused: dict[str, NoRoomError] = {}
        free: dict[int, float] = {}
        for transfer in sorted(transfers, key=lambda transfer: not transfer.required):  # stable: then as configured
            directory, pools = self._location(transfer.dest.parent)
            one = Reservation(transfer=transfer, directory=directory, pools=pools, declared=_declared(transfer))
            try:
                self._check(one, needed=one.declared, free=free)
            except NoRoomError as error:
                if transfer.required:
                    raise NoRoomError(f"{transfer.name}: {error}") from None
                refused[transfer.name] = error
                continue
            self._reservations[transfer.name] = one
            self._add_waiting(one, one.declared)
        return refused

    def reserve(self, name: str, size: int) -> None:
        """Reserve `size` bytes for the artifact `name`, whose download starts. Raises NoRoomError if they do not fit.

        Space reserved for others is not available to it, except that a required artifact may take the space of optional
        ones that have not started.
        """
        with self._lock:
            one = self._reservations[name]
            declared = self._stop(one)
            one.started, one.size = True, size
            if size > declared and not self._has_plenty(one) and (missing := one.outstanding()) > declared:
                self._free, self._looked = {}, time.monotonic()
                self._check(one, needed=missing, free=self._free)
            self._started[name] = one

    def release(self, name: str) -> None:
        """Give up the reservation of the artifact `name`, if it has one."""
        with self._lock:
            if one := self._reservations.get(name):
                self._stop(one)
                one.started = False

    def _stop(self, one: Reservation) -> int:
        """Reserve nothing for the artifact any more; what it had declared, if it had not started."""
        declared, one.declared = one.declared, 0
        self._add_waiting(one, -declared)
        self._started.pop(one.transfer.name, None)
        return declared

    def _add_waiting(self, one: Reservation, count: int) -> None:
        for pool in one.pools:
            self._waiting[pool, one.transfer.required] += count

    def _has_plenty(self, one: Reservation) -> bool:
        """Whether all that is reserved, and `one`, were far from what was free a moment ago."""
        if time.monotonic() - self._looked > _RECENT:
            return False
        started = one.size + sum(other.size for other in self._started.values())
        return all(
            self._free.get(pool, 0) - started - self._waiting[pool, True] - self._waiting[pool, False] >= _PLENTY
            for pool in one.pools
        )

    def _check(self, one: Reservation, *, needed: int, free: dict[int, float]) -> None:
        """Raise NoRoomError unless there are `needed` bytes beside those reserved for others.

        `free` has the free bytes of each pool, and gets those that it lacks.
        """
        directory, pools = one.directory, one.pools
        for pool in pools:
            if pool not in free:
                free[pool] = memory_left() if pool == _MEMORY else free_bytes(directory)
            reserved = self._reserved(pool, also_optional=not one.transfer.required)
            left = max(free[pool] - reserved, 0)
            if needed <= left:
                continue
            what = "memory" if _MEMORY in pools else "disk space"
            others = f", besides {amount(reserved)} reserved for other artifacts" if reserved else ""
            remedy = "give the node more memory, or choose a dest on a disk"
            if pool != _MEMORY:
                remedy = no_room(directory, wanted=needed + reserved)
            message = f"{amount(needed)} needed, {amount(int(left))} available{others}; {remedy}"
            raise NoRoomError(f"not enough {what} in {directory}: {message}")

    def _reserved(self, pool: int, *, also_optional: bool) -> int:
        waiting = self._waiting[pool, True] + (self._waiting[pool, False] if also_optional else 0)
        return waiting + sum(one.outstanding() for one in self._started.values() if pool in one.pools)

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


def available(fd: int, path: str) -> float:
    """The bytes that fit in the open directory `path`: free on its file system, and in memory if it is there."""
    free = free_bytes(fd)
    return min(free, memory_left()) if is_in_memory(path) else free


def memory_left() -> float:
    """The bytes of memory that files may take; infinite if that is unknown."""
    memory = memory_available()
    return math.inf if memory is None else max(memory - OWN_MEMORY, 0)


def memory_available() -> int | None:
    """MemAvailable of /proc/meminfo (proc_meminfo(5)) in bytes; None if it is missing."""
    try:
        with open("/proc/meminfo", "rb", buffering=0) as file:  # noqa: PTH123  read for thousands of files
            _, _, rest = file.read(KiB).partition(b"MemAvailable:")
        return int(rest.split(maxsplit=1)[0]) * KiB
    except (OSError, ValueError, IndexError):
        return None


def _declared(transfer: Transfer) -> int:
    """The bytes that `transfer` still needs; 0 if it declares no size, or a file of that size is at its destination."""
    if transfer.size is None:
        return 0
    try:
        if transfer.dest.lstat().st_size == transfer.size:
            return 0  # most likely up to date; if not, `reserve` checks it
    except OSError:
        pass
    return max(transfer.size - _allocated(transfer.part), 0)


def _allocated(part: Path) -> int:
    """The bytes that a part file takes on disk; holes take none."""
    try:
        return part.lstat().st_blocks * _BLOCK
    except OSError:
        return 0
