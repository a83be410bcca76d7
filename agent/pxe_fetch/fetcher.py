"""The artifacts of a run, several at once: each checked, downloaded, installed, and its units started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Protocol, TypeVar

from pxe_fetch.chunkmap import Check
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.record import record
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.chunked import ChunkedDownload
from pxe_fetch.download.context import Context
from pxe_fetch.download.partfile import ChunkedPart, PartLock, SequentialPart
from pxe_fetch.download.retry import Attempts
from pxe_fetch.download.sequential import SequentialDownload
from pxe_fetch.errors import (
    CannotCreateError,
    FetchError,
    NoRoomError,
    PartInUseError,
    PolicyError,
    Result,
    StoppedError,
    error_result,
)
from pxe_fetch.filesystem import AllowedRoots, Folder, translate_error
from pxe_fetch.install import file
from pxe_fetch.install.disk_space import DiskSpace
from pxe_fetch.plan import Transfer
from pxe_fetch.reporting.event_log import EventLog
from pxe_fetch.resolve import resolved
from pxe_fetch.systemctl import Units

_LOCK_POLL = 0.25  # seconds between two tries to get a part file that another process has
_STOP_GRACE = 0.4  # seconds for the threads to return after SIGTERM; slower ones end with the process
# Seconds of one wait. A signal that comes just before a wait for a lock, or to another thread, does not end that wait:
# its handler runs when the main thread runs Python again.
_WAIT = 0.1

T = TypeVar("T")


class Installer(Protocol):
    """A way to put verified bytes in place: a module with these two functions."""

    def is_current(self, transfer: Transfer, folder: Folder, check: Check, /) -> bool:
        """Whether the destination, in the open `folder`, is what it should be already."""

    def install(self, transfer: Transfer, folder: Folder, part: int, check: Check, /) -> None:
        """Make the open part file the destination in `folder`, all or nothing. Raises FetchError and OSError."""


@record
class Fetcher:
    """Everything that fetching one artifact needs beside the artifact."""

    event_log: EventLog
    context: Context
    roots: AllowedRoots
    disk_space: DiskSpace
    units: Units
    is_unpinned_allowed: bool  # for `pxe-pack lock`, which finds the digests out
    failures: dict[str, Result] = field(default_factory=dict)  # by name
    _in_place: dict[object, Path] = field(default_factory=dict)  # destinations that are right, by device and inode

    def fetch_all(self, transfers: Iterable[Transfer], *, parallel: int) -> None:
        """Fetch `transfers` in their order, up to `parallel` at a time; those that fail are in `failures` afterwards.

        Raises StoppedError when a signal arrives in the calling thread.
        """
        run_all(transfers, self._fetch, threads=parallel, stop=self.context.stop, on_idle=self.context.streams.give)

    def failed(self, name: str, error: Exception) -> None:
        """Record that the artifact `name` cannot be fetched in this run."""
        result = self.failures[name] = error_result(error)
        self.event_log.failed(name, result)
        if result.exit_code == Exit.BUG:
            self.event_log.log_details(error)

    def _fetch(self, transfer: Transfer) -> None:
        """Fetch and install one artifact, or record why that failed. Raises StoppedError."""
        try:
            self.event_log.checking(transfer.name)
            if not transfer.is_resolved:
                transfer = resolved(transfer, self.context, is_unpinned_allowed=self.is_unpinned_allowed)
            with closing(self.roots.open(transfer.dest)) as folder:
                self._fetch_into(folder, transfer)
            if transfer.start:
                self.units.start(transfer)
        except StoppedError:
            raise  # not a failure of the artifact: the run says why it ended
        except OSError as error:  # the transports and downloads raise FetchError: this is about the destination
            what = f"{transfer.dest} cannot be put in place"
            self.failed(transfer.name, translate_error(error, what, where=transfer.dest.parent))
        except Exception as error:  # a bug in one artifact must not leave the others unfinished
            self.failed(transfer.name, error)
        finally:
            self.disk_space.release(transfer.name)

    def _fetch_into(self, folder: Folder, transfer: Transfer) -> None:
        """Have the destination right in the open folder that it is in. Raises FetchError and OSError."""
        installer = _installer(transfer)
        try:
            lock = self._lock(folder, transfer)
        except (PartInUseError, StoppedError):
            raise
        except FetchError:
            # What is right already may be in a read-only place.
            if not installer.is_current(transfer, folder, self.context.check_stop):
                raise
            self.event_log.up_to_date(transfer)
        else:
            with closing(lock):
                self._install(transfer, folder, installer=installer, lock=lock)
                self._in_place[folder.identity(transfer.dest.name)] = transfer.dest

    def _install(self, transfer: Transfer, folder: Folder, *, installer: Installer, lock: PartLock) -> None:
        """Download and install what is not there already. Raises FetchError and OSError."""
        check = self.context.check_stop
        try:
            self._check_own(transfer, folder)
            if installer.is_current(transfer, folder, check):
                lock.remove()
                self.event_log.up_to_date(transfer)
                return
            reserve = partial(self.disk_space.reserve, transfer)
            attempts = download(transfer, self.context, lock=lock, reserve=reserve)
            self.disk_space.release(transfer.name)  # the bytes are on the disk now
            self.event_log.downloaded(transfer.name, attempts)
            try:
                installer.install(transfer, folder, lock.fd, check)
            except (OSError, PolicyError, NoRoomError) as error:
                what = f"cannot install {transfer.dest}"
                cause = translate_error(error, what, where=folder.path) if isinstance(error, OSError) else error
                if isinstance(cause, (PolicyError, NoRoomError)):
                    lock.remove()  # another try would fail too, or it is what takes the space
                raise cause from error
            folder.check_in_place()
            lock.remove()  # what was unpacked
            self.event_log.installed(transfer)
        except BaseException:
            lock.remove(if_empty=True)  # nothing could be resumed from it
            raise

    def _check_own(self, transfer: Transfer, folder: Folder) -> None:
        """Raise CannotCreateError if the destination is another artifact's of this run, under another name.

        The lock of the part file makes one wait for the other: its names lead to one file as well.
        """
        other = self._in_place.get(identity := folder.identity(transfer.dest.name), transfer.dest)
        if identity and other != transfer.dest:
            raise CannotCreateError(
                f"{transfer.dest} and {other}, which is in place, are one file: their file system ignores case, or is "
                "mounted at both: choose another dest"
            )

    def _lock(self, folder: Folder, transfer: Transfer) -> PartLock:
        """Lock the destination's part file, once no other run on this node has it. Raises FetchError."""
        deadline: Deadline | None = None
        while True:
            try:
                return PartLock(folder, transfer.part.name)
            except PartInUseError:
                if deadline is None:
                    deadline = self.context.deadline(transfer.retry.deadline)
                    self.event_log.log(f"{transfer.name}: waiting for another run of pxe-fetch, which is writing it")
                if deadline.left() <= 0:
                    raise
            deadline.check()
            self.context.clock.sleep(_LOCK_POLL, stop=self.context.stop)


def download(
    transfer: Transfer, context: Context, *, lock: PartLock, reserve: Callable[[int], None] = lambda _: None
) -> Attempts:
    """Download `transfer` completely to its part file, which `lock` locks, and verify it; what that took.

    Several threads may share one `context`. The artifact's own deadline starts now. Once `context.stop` is set, it ends
    within a second, unless a connection is being made (`timeouts.connect`). If the transfer has a chunk map, ranges of
    it are downloaded in as many further streams as `context.streams` has free. `reserve` is called with the size of the
    whole, if known, before the first byte is written; it may raise NoRoomError.

    Raises only FetchError, of the class that names the cause: NetworkError, IntegrityError, RefusedError, PolicyError
    or TrustError when every mirror and attempt is used up; DeadlineError; StoppedError; NoRoomError (the part file is
    then removed), DiskError, CannotCreateError. Otherwise the part file stays for a later run to resume. The error's
    `attempts`, `bytes_received` and `url` say what was tried.
    """
    try:
        if transfer.size is not None:
            reserve(transfer.size)
        if transfer.chunk_map:
            chunked = ChunkedPart(lock, transfer.chunk_map)
            return ChunkedDownload(transfer, part=chunked, context=context).run()
        part = SequentialPart(lock.fd, lock.path, digest=transfer.digest)
        return SequentialDownload(transfer, part=part, context=context, reserve=reserve).run()
    except NoRoomError:
        lock.remove()
        raise


def run_all(
    items: Iterable[T], work: Callable[[T], None], *, threads: int, stop: Event, on_idle: Callable[[], None]
) -> None:
    """Call `work` for each of `items`, in their order, in up to `threads` threads; return when all have ended.

    Once `stop` is set no further item is begun. `on_idle` is called once for each of the `threads`, as soon as no item
    is left for it. The threads are daemons, so they never outlive the process.

    Raises StoppedError when a signal handler raises it in the calling thread, RuntimeError when not even one thread can
    be started.
    """
    queue: SimpleQueue[T] = SimpleQueue()
    for item in items:
        queue.put(item)
    # Not Thread.join: an exception that a signal handler raises inside it makes it take a running thread for one that
    # has ended (CPython 3.11, Thread._wait_for_tstate_lock).
    ended: SimpleQueue[None] = SimpleQueue()

    def loop() -> None:
        try:
            while not stop.is_set():
                work(queue.get_nowait())
        except (Empty, StoppedError):
            return
        finally:
            on_idle()
            ended.put(None)

    wanted = min(threads, queue.qsize())
    for _ in range(threads - wanted):
        on_idle()
    running = 0
    try:
        running = _start(loop, threads=wanted)
        for _ in range(wanted - running):
            on_idle()
        while running:
            with suppress(Empty):
                ended.get(timeout=_WAIT)
                running -= 1
    except StoppedError:
        until = time.monotonic() + _STOP_GRACE
        with suppress(Empty):
            for _ in range(running):
                ended.get(timeout=max(until - time.monotonic(), 0))
        raise


def _start(loop: Callable[[], None], *, threads: int) -> int:
    """Start `threads` threads; how many of them could be. Raises RuntimeError when it was none."""
    for number in range(threads):
        try:
            Thread(target=loop, name=f"fetch-{number}", daemon=True).start()
        except RuntimeError:  # the unit's TasksMax= is reached; the threads that run do the rest
            if not number:
                raise
            return number
    return threads


def _installer(transfer: Transfer) -> Installer:
    """How `transfer` is put in place. Most runs need no tarfile and no decompressor, and do not import them."""
    match transfer.extract:
        case "tar":
            from pxe_fetch.install import tree

            return tree
        case "decompress":
            from pxe_fetch.install import decompress

            return decompress
    return file
