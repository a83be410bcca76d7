"""Many small artifacts brought by a crew of processes, this one among them.

Each member brings artifacts as a run of one process does, with connections, threads and a journal of its own, and tells
the first what became of them. One whose end is not told stays in the queue and is brought afterwards as if there had
been no crew: that of a member which is gone, or one for which there seemed to be no room while nobody knew what the
others had taken by then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from pxe_fetch.bring import Bringer
from pxe_fetch.contract.exits import Exit
from pxe_fetch.crew import Crew, Pool
from pxe_fetch.errors import NoRoomError
from pxe_fetch.plan import Order
from pxe_fetch.reporting.outcome import Outcome
from pxe_fetch.transfer.streams import Streams
from pxe_fetch.transport import Transports
from pxe_fetch.workers import Following, Workers

TOLD_EVERY = 0.1  # seconds between two messages of a member: what the last one has is waited for

Message = tuple[list[tuple[Any, ...]], dict[str, dict[str, Any]]]  # facts of artifacts; how those that failed did


@dataclass(frozen=True, kw_only=True)
class Member(Bringer):
    """A Bringer beside others, which leaves to later what there is no room for now."""

    begun: set[str] = field(default_factory=set)  # artifacts whose end was not told yet

    def work(self, order: Order, following: Following[Order]) -> None:
        self.begun.add(order.name)
        super().work(order, following)

    def failed(self, name: str, error: Exception) -> None:
        if not isinstance(error, NoRoomError):
            super().failed(name, error)


def bring_together(first: Bringer, waiting: SimpleQueue[Order], *, parallel: int) -> None:
    """Bring what is `waiting` by a process for each processor, up to `parallel` artifacts at once in all.

    What waits afterwards is still to be brought. No thread of `first` may be at work. Where nothing can be forked this
    process does it alone. Raises StoppedError as Workers.run does.
    """
    processes = min(len(os.sched_getaffinity(0)), parallel)
    if processes == 1:
        return
    first.account.debug(f"{processes} processes bring what is left")
    orders = [waiting.get_nowait() for _ in range(waiting.qsize())]
    with suppress(OSError):  # there are no descriptors left: all that waits is brought as if nothing had been tried
        _bring(first, orders, processes=processes, parallel=parallel)
    for order in orders:
        if not first.account.has_ended(order.name):
            waiting.put(order)


def _bring(first: Bringer, orders: Sequence[Order], *, processes: int, parallel: int) -> None:
    pool = Pool([order for order in orders if not order.chunks])  # whose streams are shared out in one process

    def bring(member: Member) -> None:
        Workers(pool, member.work, most=max(parallel // processes, 1), stop=first.stop, spare=_nobody_waits).run()

    def be_member(tell: Callable[[Message], None]) -> None:
        first.account.detach()
        member = _member(first, transports=first.transports.anew(), failures={}, started={})
        teller = _Teller(member, tell)
        try:
            bring(member)
            member.look_at_units()
        finally:
            teller.finish()

    def hear(message: Message) -> None:
        known, failures = message
        for name, outcome in failures.items():
            first.failures[name] = Outcome(**outcome | {"exit_code": Exit(outcome["exit_code"])})
        for facts in known:
            name = first.account.heard(facts)
            if first.account.has_ended(name):
                first.room.release(name)

    with pool, Crew(hear=hear) as crew:
        with first.account.still():
            crew.fork(processes - 1, be_member)
        bring(_member(first, transports=first.transports, failures=first.failures, started=first.started))


def _member(first: Bringer, *, transports: Transports, failures: dict[str, Outcome], started: dict[str, str]) -> Member:
    return Member(
        account=first.account,
        transports=transports,
        roots=first.roots,
        deadline=first.deadline,
        stop=first.stop,
        room=first.room,
        streams=Streams(0),
        failures=failures,
        started=started,
    )


def _nobody_waits() -> None:
    """There are no streams to be had more of."""


class _Teller:
    """Has `tell` say how the artifacts of `member` stand, now and then and in the end."""

    def __init__(self, member: Member, tell: Callable[[Message], None]) -> None:
        self._member = member
        self._tell = tell
        self._over = Event()
        self._thread = Thread(target=self._keep_telling, name="tell", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Tell the last. Raises OSError where nobody listens."""
        self._over.set()
        self._thread.join()
        self._tell_all()

    def _keep_telling(self) -> None:
        with suppress(OSError):
            while not self._over.wait(TOLD_EVERY):
                self._tell_all()

    def _tell_all(self) -> None:
        account, begun = self._member.account, self._member.begun
        names = tuple(begun)
        ended = [name for name in names if account.has_ended(name)]
        known = [account.facts(name) for name in names]
        # After that: whatever is known to have failed has its outcome told with it.
        failures = {name: _plain(outcome) for name in names if (outcome := self._member.failures.get(name))}
        self._tell((known, failures))
        begun.difference_update(ended)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome) | {"exit_code": int(outcome.exit_code)}
