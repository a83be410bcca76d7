"""The pool: as many threads as asked for, each item begun once and in order, none after a stop."""

from __future__ import annotations

import signal
import time
from threading import Barrier, Event, get_ident
from types import FrameType

import pytest

from pxe_fetch.errors import StoppedError
from pxe_fetch.fetcher import run_all

FOUR = 4


def test_items_are_worked_on_by_as_many_threads_as_asked_for() -> None:
    meet = Barrier(FOUR, timeout=10)
    idle: list[None] = []

    def work(_item: int) -> None:
        meet.wait()

    run_all(range(2 * FOUR), work, threads=FOUR, stop=Event(), on_idle=lambda: idle.append(None))
    assert len(idle) == FOUR


def test_each_item_is_begun_once_and_in_order() -> None:
    begun: list[int] = []
    run_all(range(10_000), begun.append, threads=1, stop=Event(), on_idle=lambda: None)
    assert begun == list(range(10_000))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_threads_without_an_item_are_idle_before_any_item_is_begun(number: int) -> None:
    idle: list[None] = []
    seen: list[int] = []
    run_all(
        range(number), lambda _: seen.append(len(idle)), threads=FOUR, stop=Event(), on_idle=lambda: idle.append(None)
    )
    assert seen[:1] == [FOUR - number][:number]
    assert len(idle) == FOUR


def test_no_item_is_begun_after_a_stop() -> None:
    stop, begun = Event(), []

    def work(item: int) -> None:
        begun.append(item)
        stop.set()
        raise StoppedError("told to stop")

    began = time.monotonic()
    run_all(range(100), work, threads=1, stop=stop, on_idle=lambda: None)
    assert begun == [0]
    assert time.monotonic() - began < 5


def test_a_signal_that_does_not_wake_the_calling_thread_stops_it_nevertheless() -> None:
    # As one does that arrives a moment before the thread begins to wait.
    stop = Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        raise StoppedError("told to stop")

    def work(_item: int) -> None:
        time.sleep(0.1)
        signal.pthread_kill(get_ident(), signal.SIGUSR1)
        stop.wait(10)

    before = signal.signal(signal.SIGUSR1, handle)
    began = time.monotonic()
    try:
        with pytest.raises(StoppedError):
            run_all([1], work, threads=1, stop=stop, on_idle=lambda: None)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 5
