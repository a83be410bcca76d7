"""Processes that work off one queue together: an interpreter has one processor, a crew has several.

The members are forked, so they have all that there was, and go their own ways from then on. What they find out they
tell in messages. What one has not told when it is gone, for whatever cause, is as if it had not been: it is for the
caller to see what is left.
"""

from __future__ import annotations

import fcntl
import gc
import marshal
import os
import signal
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from termios import FIONREAD
from threading import Thread
from typing import Any, BinaryIO, Generic, NoReturn, Self, TypeVar

STOPPING = 2.0  # seconds for a member to let go when the run is stopped
_NUMBER = struct.Struct("=I")
_LEAST = 4096  # bytes
_MOST = 1 << 20  # bytes that a pipe may be made to hold (pipe(7), pipe-max-size)

T = TypeVar("T")
Tell = Callable[[Any], None]


class Pool(Generic[T]):
    """A queue of things that all members have: a pipe of their numbers, from which each may take the next."""

    def __init__(self, things: Sequence[T]) -> None:
        """As many of `things` as a pipe holds, from the first on. Raises OSError."""
        self._things = things
        self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # a user may have too much in pipes already: then it holds what it does
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, min(max(len(things) * _NUMBER.size, _LEAST), _MOST))
            held = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) // _NUMBER.size
            os.write(writer, b"".join(map(_NUMBER.pack, range(min(len(things), held)))))
        finally:
            os.close(writer)

    def get_nowait(self) -> T:
        """The next. Raises Empty."""
        data = os.read(self._reader, _NUMBER.size)
        if not data:
            raise Empty
        (number,) = _NUMBER.unpack(data)
        return self._things[int(number)]

    def qsize(self) -> int:
        """How many there are."""
        (held,) = _NUMBER.unpack(fcntl.ioctl(self._reader, FIONREAD, bytes(_NUMBER.size)))
        return int(held) // _NUMBER.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)


class Crew:
    """The members that were forked. A context: in the end none is left, and all that they told was heard."""

    def __init__(self, *, hear: Callable[[Any], None]) -> None:
        """`hear` gets each message, in a thread for each member. Raises OSError where there are no descriptors left."""
        self._hear = hear
        self._members: list[int] = []
        self._ended: SimpleQueue[None] = SimpleQueue()  # has one for each member that tells nothing more
        self._lifeline, self._end = os.pipe2(os.O_CLOEXEC)  # the end is this process's: with it the members end too

    def fork(self, number: int, work: Callable[[Tell], None]) -> None:
        """Add `number` members, or as many as may be; each does `work(tell)` in its main thread, and ends.

        A message that is told is of what marshal can take. No other thread may hold a lock that `work` needs.
        """
        gc.freeze()  # else each member's collector would write to every page that they share
        readers = [reader for _ in range(number) if (reader := self._fork(work)) is not None]
        for reader in readers:
            try:
                Thread(target=self._listen, args=(reader,), name="crew", daemon=True).start()
            except RuntimeError:  # the unit's TasksMax= allows no more: the member finds nobody to tell, and ends
                os.close(reader)
                self._ended.put(None)

    def _fork(self, work: Callable[[Tell], None]) -> int | None:
        """One more member: where its messages can be read. None where there cannot be one more."""
        try:
            reader, writer = os.pipe2(os.O_CLOEXEC)
        except OSError:
            return None
        # Until the member has its own `try`, a signal's exception would have it go on as if it were this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            member = os.fork()
            if member == 0:
                self._be_one(work, writer, before)
            self._members.append(member)
        except OSError:
            os.close(reader)
            return None
        finally:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return reader

    def _be_one(self, work: Callable[[Tell], None], writer: int, mask: set[int]) -> NoReturn:
        """A member's whole life."""
        try:
            os.close(self._end)
            Thread(target=self._end_with_the_first, name="lifeline", daemon=True).start()
            with open(writer, "wb", closefd=False) as stream:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                work(partial(_tell, stream))
        finally:
            try:
                os._exit(0)
            finally:  # a signal came even there; there is no second
                os._exit(0)

    def _end_with_the_first(self) -> None:
        os.read(self._lifeline, 1)
        os._exit(0)

    def _listen(self, reader: int) -> None:
        try:
            with open(reader, "rb") as stream:
                while True:
                    self._hear(marshal.load(stream))  # noqa: S302  of our own process
        except (EOFError, ValueError, TypeError):  # it has ended, in the middle of a message perhaps
            return
        finally:
            self._ended.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Wait for the members; where something was raised they are told to stop, and those that do not are ended."""
        left = len(self._members)
        try:
            while kind is None and left:
                self._ended.get()
                left -= 1
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL) if left else ():
                for member in self._members:
                    os.kill(member, sign)  # it is not waited for yet, so the number is nobody else's
                with suppress(Empty):
                    until = time.monotonic() + STOPPING
                    while left:
                        self._ended.get(timeout=max(until - time.monotonic(), 0))
                        left -= 1
            for member in self._members:
                os.waitpid(member, 0)
            os.close(self._lifeline)
            os.close(self._end)


def _tell(stream: BinaryIO, message: object) -> None:
    marshal.dump(message, stream)  # type: ignore[arg-type]  # the caller knows what it can take
    stream.flush()
