"""The attempts at one artifact: tenacity runs the loop, and nothing below it retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_any

from pxe_fetch.contract.quantity import amount, count, span
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.contract.url import redact
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.context import Events
from pxe_fetch.download.mirrors import LimitedError, Mirror, Mirrors
from pxe_fetch.errors import OF_THE_NODE, DeadlineError, FetchError, NoRoomError, RangeError
from pxe_fetch.plan import Source

_RANGED_ATTEMPTS = 3  # at least so many come before one without a range


class ClaimedSizeError(NoRoomError):
    """The size that a mirror claims does not fit; another mirror may claim less."""


def is_final(error: BaseException) -> bool:
    """Whether `error` ends a download: it is about this node or a deadline, so no mirror can help."""
    return isinstance(error, OF_THE_NODE) and not isinstance(error, ClaimedSizeError)


def unforeseen(error: Exception) -> FetchError:
    """The unexpected `error` as a FetchError, which has an exit code."""
    found = FetchError(f"a fault of pxe-fetch itself: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found


@mutable_record
class Attempts:
    """Counts the attempts at one artifact, and decides when to give up."""

    source: Source
    mirrors: Mirrors
    events: Events
    deadline: Deadline
    here: Callable[[], int]  # bytes that need not be fetched again, for messages
    number: int = 0  # begun
    received: int = 0  # bytes over the wire in this run, those fetched twice counted twice
    resumed_from: int = 0  # bytes left by an earlier run
    last_mirror: Mirror | None = None  # that was asked; of several streams, the one that sent the last right chunk
    without_progress: int = 0  # in a row
    _began: float = 0.0  # on the clock
    _last_error: FetchError | None = None
    _next: Mirror | None = None  # the mirror of the next attempt

    def __post_init__(self) -> None:
        self._began = self.deadline.clock.now()

    def run(
        self,
        attempt: Callable[[], None],
        *,
        next_mirror: Callable[[], Mirror | None],
        on_failure: Callable[[FetchError], None] = lambda _: None,
        before_wait: Callable[[FetchError, Mirror, float], None] = lambda *_: None,
    ) -> None:
        """Call `attempt` until it returns. Raises FetchError if an error is final or no attempt is left.

        After each failure `on_failure` gets the error, `next_mirror` chooses the mirror of the next attempt (None: no
        mirror is left), and `before_wait` gets the error, that mirror, and the seconds until then.
        """

        def timed_attempt() -> None:
            try:
                attempt()
            except DeadlineError as error:
                raise self._too_late(str(error)) from error

        def wait(_: RetryCallState) -> float:
            self._next = next_mirror()
            return max(0.0, self._next.not_before - self.deadline.clock.now()) if self._next else 0.0

        def before_sleep(state: RetryCallState) -> None:
            if self._next:
                before_wait(_error(state), self._next, state.upcoming_sleep)

        Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, FetchError) and not is_final(error)),
            after=lambda state: on_failure(_error(state)),
            wait=wait,
            stop=stop_any(self._is_over, lambda state: state.upcoming_sleep >= self.deadline.left()),  # type: ignore[arg-type]  # functions will do
            retry_error_callback=self._give_up,
            before_sleep=before_sleep,
            sleep=lambda seconds: self.deadline.clock.sleep(seconds, stop=self.deadline.stop),
        )(timed_attempt)

    def failed(
        self, mirror: Mirror, error: FetchError, *, progressed: bool, by_mirror: bool | None = None, blamed: bool
    ) -> None:
        """Record that an attempt at `mirror` failed; after progress of the artifact, the count starts again.

        `by_mirror`: whether this mirror made it, if others are asked meanwhile; `blamed`: it sent all the wrong bytes.
        """
        self._last_error = error
        if isinstance(error, LimitedError):  # it only waited for its turn
            self.number -= 1
            return
        # A first answer without the range is not counted: the mirror is asked again, or for the whole.
        is_first_refusal = mirror.ranges and isinstance(error, RangeError)
        if progressed:
            self.progressed()
        elif error.transient and error.is_counted and not is_first_refusal:
            self.without_progress += 1
        if error is not mirror.error:  # as that of a wrong chunk is, which was recorded when it came
            by_mirror = progressed if by_mirror is None else by_mirror
            self.mirrors.failed(mirror, error, progressed=by_mirror, blamed=blamed)
        if mirror.out and not mirror.is_reported:
            mirror.is_reported = True
            self.events.mirror_dropped(self.source.name, url=redact(mirror.url), reason=str(error))

    def report_retry(self, error: FetchError, following: Mirror, wait: float, *, mirror: Mirror | None = None) -> None:
        """Report that, after `error` of `mirror` (the last one), `following` will be asked in `wait` seconds."""
        mirror = mirror or self.last_mirror
        if mirror and not isinstance(error, LimitedError):
            self.events.retrying(
                self.source.name,
                url=redact(mirror.url),
                attempt=self.number,
                error=str(error),
                status=error.status,
                wait_seconds=wait,
                next_url=redact(following.url),
            )

    def last_url(self) -> str | None:
        """The last mirror, redacted; None if none was asked."""
        return redact(self.last_mirror.url) if self.last_mirror else None

    def progressed(self) -> None:
        """Record that the artifact has made progress."""
        self.without_progress = 0
        self.mirrors.progressed()

    def may_ask_range(self, mirror: Mirror) -> bool:
        """Whether `mirror` has ranges. If all it answers is errors, the last attempt is without one."""
        is_last = self.without_progress >= self.source.retry.attempts_without_progress - 1
        is_refused = mirror.failures >= _RANGED_ATTEMPTS and getattr(mirror.error, "status", None)
        return mirror.ranges and not (is_last and is_refused)

    def is_exhausted(self) -> bool:
        """Whether too many attempts in a row made no progress, and every mirror was asked since the last progress."""
        return self.without_progress >= self.source.retry.attempts_without_progress and not self.mirrors.untried()

    def _is_over(self, _: RetryCallState) -> bool:
        return self._next is None or self.is_exhausted()

    def _give_up(self, state: RetryCallState) -> NoReturn:
        """Raise the error that names the cause; its message says what was tried."""
        if self._is_over(state):
            verdict = self.mirrors.verdict()
            verdict.args = (f"{verdict} ({self._tried()})",)
            raise verdict
        wait, left = state.upcoming_sleep, max(0.0, self.deadline.left())
        why = f"the next attempt is due in {wait:.0f} s, but {left:.0f} s are left"
        raise self._too_late(why) from _error(state)

    def _too_late(self, why: str) -> DeadlineError:
        cause = f"; the last error: {self._last_error}" if self._last_error else ""
        return DeadlineError(f"{why} ({self._tried()}){cause}")

    def _tried(self) -> str:
        """What was tried: 4 attempts at 2 mirrors in 12.3 s, 1.43 MiB of 2.86 MiB here."""
        mirrors, total = self.mirrors.asked(), self.source.size
        where = f" at {mirrors} mirrors" if mirrors > 1 else ""
        of = f" of {amount(total)}" if total else ""
        seconds = span(self.deadline.clock.now() - self._began)
        return f"{count(self.number, 'attempt')}{where} in {seconds}, {amount(self.here())}{of} here"


def _error(state: RetryCallState) -> FetchError:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, FetchError) else FetchError(str(error))
