"""Whether what a run is to bring fits, asked before the first byte comes, and promised to one artifact at a time."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from pxe_fetch.errors import NoRoomError
from pxe_fetch.humanize import amount
from pxe_fetch.install.mounts import lies_in_memory, read_mounts, upper_of
from pxe_fetch.plan import Transfer

KiB = 1024
LOOK = 0.1  # seconds that a look at a store is good for while it has PLENTY: thousands of small files come so fast
PLENTY = 1024 * 1024 * KiB  # bytes
OWN_MEMORY = 32 * 1024 * KiB  # bytes that are not given away: the agent takes as much itself

_MEMORY = -1  # no device has this number
_BLOCK = 512  # bytes, whatever the file system's own are (stat(2), st_blocks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a destination's bytes go."""

    directory: Path  # that exists
    stores: tuple[int, ...]  # what is taken from: the file system's device, and memory where that is what it is

    @property
    def in_memory(self) -> bool:
        """Whether its bytes lie in memory."""
        return _MEMORY in self.stores


@dataclass(kw_only=True, slots=True)
class Claim:
    """What one artifact takes: `need` bytes as long as it waits, then what is still to come of `size`."""

    transfer: Transfer
    place: Place
    need: int
    size: int = 0
    begun: bool = False

    def outstanding(self) -> int:
        """Bytes that are not on the file system yet."""
        return max(self.size - _held(self.transfer.part), 0) if self.begun else self.need


class DiskSpace:
    """What of the node's disks and memory is promised to whom. Safe to use from several threads."""

    def __init__(self) -> None:
        self._mounts = read_mounts()
        self._places: dict[Path, Place] = {}
        self._claims: dict[str, Claim] = {}
        self._begun: dict[str, Claim] = {}
        self._waiting: Counter[tuple[int, bool]] = Counter()  # (store, is it for a required artifact) -> bytes
        self._free: dict[int, float] = {}  # bytes by store, as of `_looked`
        self._looked = 0.0  # monotonic
        self._lock = Lock()

    def preflight(self, transfers: Iterable[Transfer]) -> dict[str, NoRoomError]:
        """Promise each artifact its declared size, less what an earlier run has brought of it already.

        Gives the optional artifacts (by name) that do not fit beside the required ones, each with the error that says
        why. Raises NoRoomError when the required artifacts alone do not fit.
        """
        refused: dict[str, NoRoomError] = {}
        free: dict[int, float] = {}
        # Stable: in each half as the configuration has it.
        for transfer in sorted(transfers, key=lambda transfer: not transfer.required):
            place = self._place(transfer.dest.parent)
            for store in place.stores:
                if store not in free:
                    free[store] = _free_of(store, place)
            claim = Claim(transfer=transfer, place=place, need=_need(transfer))
            try:
                self._check(claim, need=claim.need, free=free)
            except NoRoomError as error:
                if transfer.required:
                    raise NoRoomError(f"{transfer.name}: {error}") from None
                refused[transfer.name] = error
                continue
            self._claims[transfer.name] = claim
            self._wait(claim, claim.need)
        return refused

    def claim(self, name: str, size: int) -> None:
        """The artifact `name` is about to come, and all of it is `size` bytes. Raises NoRoomError when they do not fit.

        What is promised to others is not there for it; but an optional artifact that still waits stands back behind a
        required one.
        """
        with self._lock:
            claim = self._claims[name]
            self._begun.pop(name, None)
            promised = 0 if claim.begun else claim.need
            if not claim.begun:
                self._wait(claim, -claim.need)
            claim.begun, claim.size, claim.need = True, size, 0
            if size > promised and not self._is_plenty(claim) and (missing := claim.outstanding()) > promised:
                self._check(claim, need=missing, free=self._free_for(claim))
            self._begun[name] = claim

    def release(self, name: str) -> None:
        """The artifact takes nothing more."""
        with self._lock:
            claim = self._claims.get(name)
            if claim is None:
                return
            if not claim.begun:
                self._wait(claim, -claim.need)
            self._begun.pop(name, None)
            claim.begun, claim.need, claim.size = False, 0, 0

    def _is_plenty(self, claim: Claim) -> bool:
        """Whether there is room for all of it and of what is promised to others, whatever has come of them by now."""
        free = self._free_for(claim)
        most = claim.size + sum(one.size for one in self._begun.values()) + self._waiting.total()
        return all(free[store] >= most for store in claim.place.stores)

    def _free_for(self, claim: Claim) -> dict[int, float]:
        """What is free of the stores that it takes from. Where there is plenty, the last look may be a moment old."""
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            self._free.clear()
        for store in claim.place.stores:
            if self._free.get(store, 0) < PLENTY:
                self._free[store] = _free_of(store, claim.place)
        return self._free

    def _wait(self, claim: Claim, amount_of_bytes: int) -> None:
        for store in claim.place.stores:
            self._waiting[store, claim.transfer.required] += amount_of_bytes

    def _check(self, claim: Claim, *, need: int, free: dict[int, float]) -> None:
        """Raises NoRoomError unless there are `need` bytes beside what is promised."""
        for store in claim.place.stores:
            promised = self._promised(store, to_all=not claim.transfer.required)
            left = max(free[store] - promised, 0)
            if need > left:
                what = "memory" if claim.place.in_memory else "the disk"
                others = f", beside {amount(promised)} for other artifacts" if promised else ""
                raise NoRoomError(
                    f"there is no room for it: it needs {amount(need)} below {claim.place.directory}, and "
                    f"{what} there has {amount(int(left))} left{others}"
                )

    def _promised(self, store: int, *, to_all: bool) -> int:
        waiting = self._waiting[store, True] + (self._waiting[store, False] if to_all else 0)
        return waiting + sum(one.outstanding() for one in self._begun.values() if store in one.place.stores)

    def _place(self, directory: Path) -> Place:
        found = self._places.get(directory)
        if found is None:
            found = self._places[directory] = self._place_of(directory)
        return found

    def _place_of(self, directory: Path) -> Place:
        while not os.path.isdir(directory) and directory != directory.parent:  # noqa: PTH112  Path.is_dir raises
            directory = directory.parent
        # A live system's overlay takes its room from the file system of its upper directory.
        device = os.stat(upper_of(str(directory), self._mounts) or directory).st_dev  # noqa: PTH116
        in_memory = lies_in_memory(str(directory), self._mounts)
        return Place(directory=directory, stores=(device, _MEMORY) if in_memory else (device,))


def available(directory: Path) -> float:
    """The bytes that may be written below `directory`: its file system's, and memory where that is what it is."""
    free = _free(directory)
    memory = memory_available()
    if memory is not None and lies_in_memory(str(directory), read_mounts()):
        return min(free, max(memory - OWN_MEMORY, 0))
    return free


def memory_available() -> int | None:
    """MemAvailable of /proc/meminfo in bytes, None where it is not told."""
    try:
        with open("/proc/meminfo", "rb", buffering=0) as file:  # noqa: PTH123  often asked
            _, _, rest = file.read(KiB).partition(b"MemAvailable:")
        return int(rest.split(maxsplit=1)[0]) * KiB
    except (OSError, ValueError, IndexError):
        return None


def _need(transfer: Transfer) -> int:
    """The bytes that `transfer` still takes; 0 when no size is declared, or a file of that size is there already."""
    if transfer.size is None:
        return 0
    try:
        if transfer.dest.lstat().st_size == transfer.size:
            return 0  # most likely kept; if not, its room is asked for when it comes
    except OSError:
        pass
    return max(transfer.size - _held(transfer.part), 0)


def _held(part: Path) -> int:
    """The bytes that a part file takes already; holes take none."""
    try:
        return os.lstat(part).st_blocks * _BLOCK
    except OSError:
        return 0


def _free_of(store: int, place: Place) -> float:
    """The bytes that are free of a store that `place` has."""
    if store != _MEMORY:
        return _free(place.directory)
    memory = memory_available()
    return math.inf if memory is None else max(memory - OWN_MEMORY, 0)


def _free(directory: Path) -> float:
    """The bytes that are free for everybody; infinite for a file system that has no bounds of its own (ramfs)."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize if status.f_blocks else math.inf
