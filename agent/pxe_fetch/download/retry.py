"""When to ask again and how long to wait before: tenacity owns the loop, nothing below it retries."""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.deadline import Clock
from pxe_fetch.errors import FetchError, NetworkError

NOT_FOUND_ATTEMPTS = 4  # of one mirror: it may not be in sync yet, but mostly the name is wrong
CORRUPT_ATTEMPTS = 2  # of one mirror: once may be the wire, twice is the file
RANGE_ATTEMPTS = 2  # of one mirror: once it may have answered something else than the range, twice it has none

T = TypeVar("T")


def pause(error: FetchError, *, failures: int, policy: RetryPolicy) -> float:
    """Seconds to leave a mirror alone after its `failures`-th failure in a row (from 1).

    Full jitter: anything up to base * 2^(failures-1), at most `policy.max`, so that a fleet that failed together does
    not come back together. What a server asks for with Retry-After, up to `policy.retry_after_max`, comes on top.
    """
    asked = error.retry_after if isinstance(error, NetworkError) and error.retry_after else 0.0
    most = min(policy.max, policy.base * 2.0 ** min(failures - 1, 60))
    return min(asked, policy.retry_after_max) + random.uniform(0.0, most)  # noqa: S311  spreads a load, keeps no secret


def retry_loop(attempt: Callable[[], T], *, after: Callable[[FetchError], float], clock: Clock, stop: Event) -> T:
    """What `attempt` returns, as often as it takes.

    After each FetchError `after` gives the seconds to wait before the next attempt, or raises what ends it all.
    """
    try:
        return attempt()
    except FetchError as error:
        first = error

    # Only now: most artifacts come at the first attempt, and a run pays for every import.
    from tenacity import RetryCallState, Retrying, retry_if_exception_type

    pending: list[FetchError] = [first]

    def again() -> T:
        if pending:
            raise pending.pop()
        return attempt()

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return after(error) if isinstance(error, FetchError) else 0.0

    retrying = Retrying(
        retry=retry_if_exception_type(FetchError),
        wait=wait,
        sleep=lambda seconds: clock.sleep(float(seconds), stop=stop),
        reraise=True,
    )
    return retrying(again)
