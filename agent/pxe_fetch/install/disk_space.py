"""Disk space and memory: what a directory takes its space from, how much is free, and which artifact reserved it.

Space is checked before the first byte is fetched, and reserved for one artifact at a time.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from pxe_fetch.errors import NoRoomError
from pxe_fetch.filesystem import free_bytes, is_in_memory, no_room, read_mounts, storage_of
from pxe_fetch.humanize import amount
from pxe_fetch.plan import Transfer

KiB = 1024
OWN_MEMORY = 32 * 1024 * KiB  # bytes of memory that the agent keeps for itself

_MEMORY = -1  # stands for memory among device numbers; no device has it
_BLOCK = 512  # bytes of one of st_blocks, whatever the file system's block size (stat(2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where the bytes of a destination go."""

    directory: Path  # the destination's, or its nearest parent that exists
    pools: tuple[int, ...]  # what they are taken from: the device, and _MEMORY if the file system is in memory

    @property
    def in_memory(self) -> bool:
        """Whether these bytes take memory."""
        return _MEMORY in self.pools


@dataclass(kw_only=True, slots=True)
class Reservation:
    """The space of one artifact: `declared` bytes until its download starts, then what is still missing of `size`."""

    transfer: Transfer
    location: Location
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
        self._locations: dict[Path, Location] = {}
        self._reservations: dict[str, Reservation] = {}
        self._started: dict[str, Reservation] = {}
        self._waiting: Counter[tuple[int, bool]] = Counter()  # (pool, required) -> bytes declared and not started
        self._lock = Lock()

    def preflight(self, transfers: Iterable[Transfer]) -> dict[str, NoRoomError]:
        """Reserve the declared size of each artifact, less what an earlier run has left of it.

        Returns the optional artifacts that do not fit beside the required ones: by name, the error. Raises NoRoomError
        if the required artifacts alone do not fit.
        """
        refused: dict[str, NoRoomError] = {}
        free: dict[int, float] = {}
        for transfer in sorted(transfers, key=lambda transfer: not transfer.required):  # stable: then as configured
            location = self._location(transfer.dest.parent)
            for pool in location.pools:
                if pool not in free:
                    free[pool] = _free_in(pool, location)
            reservation = Reservation(transfer=transfer, location=location, declared=_declared(transfer))
            try:
                self._check(reservation, bytes_needed=reservation.declared, free=free)
            except NoRoomError as error:
                if transfer.required:
                    raise NoRoomError(f"{transfer.name}: {error}") from None
                refused[transfer.name] = error
                continue
            self._reservations[transfer.name] = reservation
            self._add_waiting(reservation, reservation.declared)
        return refused

    def reserve(self, name: str, size: int) -> None:
        """Reserve `size` bytes for the artifact `name`, whose download starts. Raises NoRoomError if they do not fit.

        Space reserved for others is not available to it, except that a required artifact may take the space of optional
        ones that have not started.
        """
        with self._lock:
            reservation = self._reservations[name]
            self._started.pop(name, None)
            declared = 0 if reservation.started else reservation.declared
            if not reservation.started:
                self._add_waiting(reservation, -reservation.declared)
            reservation.started, reservation.size, reservation.declared = True, size, 0
            missing = reservation.outstanding()
            if missing > declared:
                location = reservation.location
                free = {pool: _free_in(pool, location) for pool in location.pools}
                self._check(reservation, bytes_needed=missing, free=free)
            self._started[name] = reservation

    def release(self, name: str) -> None:
        """Give up the reservation of the artifact `name`, if it has one."""
        with self._lock:
            reservation = self._reservations.get(name)
            if reservation is None:
                return
            if not reservation.started:
                self._add_waiting(reservation, -reservation.declared)
            self._started.pop(name, None)
            reservation.started, reservation.declared, reservation.size = False, 0, 0

    def _add_waiting(self, reservation: Reservation, count: int) -> None:
        for pool in reservation.location.pools:
            self._waiting[pool, reservation.transfer.required] += count

    def _check(self, reservation: Reservation, *, bytes_needed: int, free: dict[int, float]) -> None:
        """Raise NoRoomError unless there are that many bytes beside those reserved for others."""
        location = reservation.location
        for pool in location.pools:
            reserved = self._reserved(pool, also_optional=not reservation.transfer.required)
            left = max(free[pool] - reserved, 0)
            if bytes_needed > left:
                what = "memory" if location.in_memory else "disk space"
                others = f", besides {amount(reserved)} reserved for other artifacts" if reserved else ""
                remedy = "give the node more memory, or choose a dest on a disk"
                if pool != _MEMORY:
                    remedy = no_room(str(location.directory), wanted=bytes_needed + reserved)
                raise NoRoomError(
                    f"not enough {what} in {location.directory}: {amount(bytes_needed)} needed, "
                    f"{amount(int(left))} available{others}; {remedy}"
                )

    def _reserved(self, pool: int, *, also_optional: bool) -> int:
        waiting = self._waiting[pool, True] + (self._waiting[pool, False] if also_optional else 0)
        return waiting + sum(one.outstanding() for one in self._started.values() if pool in one.location.pools)

    def _location(self, directory: Path) -> Location:
        found = self._locations.get(directory)
        if found is None:
            found = self._locations[directory] = self._find_location(directory)
        return found

    def _find_location(self, directory: Path) -> Location:
        while True:
            try:
                # A live system's overlay takes its space from the file system of its upper directory.
                device = os.stat(storage_of(str(directory), self._mounts)).st_dev  # noqa: PTH116
                break
            except OSError:  # missing, or another program has just moved it
                directory = directory.parent
        in_memory = is_in_memory(str(directory), self._mounts)
        return Location(directory=directory, pools=(device, _MEMORY) if in_memory else (device,))


def available(fd: int, path: str) -> float:
    """The bytes that fit in the open directory `path`: free on its file system, and in memory if it is there."""
    free = free_bytes(fd)
    memory = memory_available()
    if memory is not None and is_in_memory(path, read_mounts()):
        return min(free, max(memory - OWN_MEMORY, 0))
    return free


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


def _free_in(pool: int, location: Location) -> float:
    """The free bytes of one of the pools of `location`; infinite if that is unknown."""
    if pool != _MEMORY:
        return free_bytes(str(location.directory))
    memory = memory_available()
    return math.inf if memory is None else max(memory - OWN_MEMORY, 0)
