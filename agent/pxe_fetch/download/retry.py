"""The attempts at one artifact: tenacity runs the loop, and nothing below it retries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import NoReturn, Self

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_any

from pxe_fetch.contract.quantity import amount, count, span
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.contract.url import redact
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.context import Context
from pxe_fetch.download.mirrors import Mirror, Mirrors
from pxe_fetch.errors import DeadlineError, FetchError, LimitedError, RangeError, SilentError, is_final, unforeseen
from pxe_fetch.plan import Source

_RANGED_ATTEMPTS = 3  # at least so many come before one without a range


@mutable_record
class Attempts:
    """Counts the attempts at one artifact, and decides what follows a failure: another mirror, a wait, or the end."""

    source: Source
    context: Context
    here: Callable[[], int]  # bytes that need not be fetched again, for messages
    choose: Callable[[], Mirror | None]  # the mirror to ask next, now or later; None if none is left
    mirrors: Mirrors = field(init=False)
    deadline: Deadline = field(init=False)
    received: int = 0  # bytes over the wire in this run, those fetched twice counted twice
    resumed_from: int = 0  # bytes left by an earlier run
    last_mirror: Mirror | None = None  # that was asked; of several streams, the one that sent the last right chunk
    last_error: FetchError | None = None
    _progressed_at: int = 0  # how many requests were begun before the artifact's last progress
    _without_progress: int = 0  # failures in a row
    _begun: int = 0
    _failed: int = 0
    _began: float = 0.0  # on the clock

    def __post_init__(self) -> None:
        self.mirrors = Mirrors(self.source, self.context)
        self.deadline = self.context.deadline(self.source.retry.deadline)
        self._began = self.context.clock.now()

    @property
    def number(self) -> int:
        """How many were begun, 0 if an earlier run left all of it.

        Streams side by side are one, and each that fails leads to another.
        """
        return self._failed + (self._begun > self._failed)

    def complete(self, download: Callable[[], None]) -> Self:
        """Call `download`, which does all of it. Raises FetchError, which says what was tried."""
        try:
            download()
        except FetchError as error:
            error.attempts, error.bytes_received = self.number, self.received
            error.url = error.url or self.last_url()
            raise
        except Exception as error:
            raise unforeseen(error) from error
        return self

    def run(self, attempt: Callable[[], None]) -> None:
        """Call `attempt` until it returns. Raises FetchError if an error is final or no attempt is left.

        Before it raises an error that is not final, it calls `failed`.
        """

        def timed_attempt() -> None:
            try:
                attempt()
            except DeadlineError as error:
                raise self._too_late(str(error)) from error

        Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, FetchError) and not is_final(error)),
            wait=lambda _: self._wait(self.choose()),
            stop=stop_any(self._is_over, lambda state: state.upcoming_sleep >= self.deadline.left()),  # type: ignore[arg-type]  # functions will do
            retry_error_callback=self._give_up,
            sleep=lambda seconds: self.deadline.clock.sleep(seconds, stop=self.deadline.stop),
        )(timed_attempt)

    def begin(self, mirror: Mirror) -> None:
        """Count a request to `mirror`."""
        self._begun += 1
        self.last_mirror = mirror
        mirror.turn = self._begun

    def failed(
        self,
        mirror: Mirror,
        error: FetchError,
        *,
        progressed: bool,
        by_mirror: bool,
        blamed: bool,
        others_run: bool = False,
    ) -> None:
        """Count and record that an attempt at `mirror` failed, and report what follows.

        `by_mirror`: this mirror made the progress; `blamed`: it sent all of the wrong bytes; `others_run`: other
        streams go on meanwhile.
        """
        if isinstance(error, LimitedError):  # it only waited for its turn
            self.last_error = error
            self._begun -= 1
            return
        self.count(mirror, error, progressed=progressed)
        if error is not mirror.error:  # else it was recorded when it was found
            self.mirrors.failed(mirror, error, progressed=by_mirror, blamed=blamed)
        if not others_run and self._without_progress >= self.source.retry.attempts_without_progress - 1:
            self._ask_for_the_whole()
        following = self.choose()
        wait = self._wait(following)
        if following and (others_run or not (self.is_exhausted() or wait >= self.deadline.left())):
            self.context.events.retrying(
                self.source.name,
                url=redact(mirror.url),
                attempt=self._failed,
                error=str(error),
                status=error.status,
                wait_seconds=wait,
                next_url=redact(following.url),
            )

    def count(self, mirror: Mirror, error: FetchError, *, progressed: bool) -> None:
        """Count an attempt at `mirror` that failed; after progress of the artifact, the count starts again."""
        self.last_error = error
        self._failed += 1
        # A first answer without the range is not counted: the mirror is asked again, or for the whole.
        is_first_refusal = mirror.ranges and isinstance(error, RangeError)
        if progressed:
            self.progressed()
        elif error.transient and error.is_counted and not is_first_refusal:
            self._without_progress += 1

    def last_url(self) -> str | None:
        """The last mirror, redacted; None if none was asked."""
        return redact(self.last_mirror.url) if self.last_mirror else None

    def progressed(self) -> None:
        """Record that the artifact has made progress."""
        self._without_progress = 0
        self._progressed_at = self._begun

    def _ask_for_the_whole(self) -> None:
        """Have mirrors that failed each range asked for the whole file, once, before the attempts are used up.

        What is here comes again then, so it is not done for a mirror whose answers are merely cut off.
        """
        most = self.source.retry.attempts_without_progress - 1
        for mirror in self.mirrors.all:
            error = mirror.error
            is_worth_it = error and (error.status or not (self.here() or isinstance(error, SilentError)))
            if mirror.ranges and is_worth_it and mirror.failures >= min(_RANGED_ATTEMPTS, most) > 0:
                mirror.ranges, mirror.turn = False, 0

    def is_exhausted(self) -> bool:
        """Whether too many attempts in a row made no progress, and every mirror was asked since the last progress."""
        if self._without_progress < self.source.retry.attempts_without_progress:
            return False
        return all(mirror.turn > self._progressed_at or mirror.out for mirror in self.mirrors.all)

    def _wait(self, following: Mirror | None) -> float:
        return max(0.0, following.not_before - self.deadline.clock.now()) if following else 0.0

    def _is_over(self, _: RetryCallState) -> bool:
        return self.choose() is None or self.is_exhausted()

    def _give_up(self, state: RetryCallState) -> NoReturn:
        """Raise the error that names the cause; its message says what was tried."""
        if self._is_over(state):
            verdict = self.mirrors.verdict()
            verdict.args = (f"{verdict} ({self._tried()})",)
            raise verdict
        why = f"the next attempt is due in {span(state.upcoming_sleep)}, after the deadline"
        raise self._too_late(why) from self.last_error

    def _too_late(self, why: str) -> DeadlineError:
        cause = f"; the last error: {self.last_error}" if self.last_error else ""
        return DeadlineError(f"{why} ({self._tried()}){cause}")

    def _tried(self) -> str:
        """What was tried: 4 attempts at 2 mirrors in 12.3 s, 1.43 MiB of 2.86 MiB here."""
        mirrors, total = sum(mirror.turn > 0 for mirror in self.mirrors.all), self.source.size
        where = f" at {mirrors} mirrors" if mirrors > 1 else ""
        of = f" of {amount(total)}" if total else ""
        seconds = span(self.deadline.clock.now() - self._began)
        return f"{count(self.number, 'attempt')}{where} in {seconds}, {amount(self.here())}{of} here"
