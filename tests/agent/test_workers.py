"""Workers: as many threads as may be for what waits, one for what comes as quickly as Python can follow."""

from __future__ import annotations

import time
from queue import SimpleQueue
from threading import Barrier, Event, current_thread

import pytest

from pxe_fetch.errors import StoppedError
from pxe_fetch.workers import QUICK, Following, Workers

FOUR = 4
LONG = 4000  # pieces of work, longer than it takes to see that they are quick


def queue(number: int) -> SimpleQueue[int]:
    waiting: SimpleQueue[int] = SimpleQueue()
    for one in range(number):
        waiting.put(one)
    return waiting


def test_what_waits_is_done_by_as_many_as_may_be() -> None:
    meet = Barrier(FOUR, timeout=10)
    spare: list[None] = []

    def work(_one: int, _: Following[int]) -> None:
        meet.wait()

    Workers(queue(2 * FOUR), work, most=FOUR, stop=Event(), spare=lambda: spare.append(None)).run()
    assert len(spare) == FOUR


def test_those_that_what_is_quick_does_not_need_leave() -> None:
    meet = Barrier(FOUR, timeout=10)
    late: set[str] = set()

    def work(one: int, _: Following[int]) -> None:
        if one < FOUR:
            meet.wait()
        elif one > LONG // 2:
            late.add(current_thread().name)
        time.sleep(0.0001)

    Workers(queue(LONG), work, most=FOUR, stop=Event(), spare=lambda: None).run()
    assert late == {"bring-0"}


def test_what_is_quick_is_done_by_one() -> None:
    names: set[str] = set()
    done: list[int] = []

    def work(one: int, _: Following[int]) -> None:
        names.add(current_thread().name)
        done.append(one)

    Workers(queue(20_000), work, most=FOUR, stop=Event(), spare=lambda: None).run()
    assert done == list(range(20_000))
    assert len(names) == 1


@pytest.mark.parametrize("number", [0, 1, 3])
def test_those_that_never_have_anything_to_do_are_spare_before_any_begins(number: int) -> None:
    spare: list[None] = []
    seen: list[int] = []

    def work(_one: int, _: Following[int]) -> None:
        seen.append(len(spare))

    Workers(queue(number), work, most=FOUR, stop=Event(), spare=lambda: spare.append(None)).run()
    assert seen[:1] == [FOUR - number][:number]
    assert len(spare) == FOUR


def test_none_begins_anything_after_a_stop() -> None:
    stop, begun = Event(), []

    def work(one: int, _: Following[int]) -> None:
        begun.append(one)
        stop.set()
        raise StoppedError("told to stop")

    began = time.monotonic()
    Workers(queue(100), work, most=FOUR, stop=stop, spare=lambda: None).run()
    assert begun == [0]
    assert time.monotonic() - began < 5


def test_what_follows_a_quick_piece_of_work_is_known_and_nobody_elses() -> None:
    foretold: list[int | None] = []
    done: list[int] = []

    def work(one: int, following: Following[int]) -> None:
        first = following()
        assert following() == first
        foretold.append(first)
        done.append(one)

    Workers(queue(LONG), work, most=FOUR, stop=Event(), spare=lambda: None).run()
    assert done == list(range(LONG))
    assert foretold[0] is None  # how quick the first is, is not known yet
    assert foretold[-1] is None
    known = [(one, following) for one, following in enumerate(foretold) if following is not None]
    assert len(known) > LONG // 2
    assert all(following == one + 1 for one, following in known)


def test_nobody_holds_what_others_could_begin_sooner() -> None:
    foretold: list[int | None] = []

    def work(_one: int, following: Following[int]) -> None:
        time.sleep(2 * QUICK)
        foretold.append(following())

    Workers(queue(2 * FOUR), work, most=FOUR, stop=Event(), spare=lambda: None).run()
    assert foretold == [None] * 2 * FOUR
