"""What happens between the first attempt and the last: which mirror, from which byte on, and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pxe_fetch.contract.model import Digest, RetryPolicy, Timeouts
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.copy import copy_body
from pxe_fetch.download.events import Events
from pxe_fetch.download.mirrors import Mirror, Mirrors
from pxe_fetch.download.partfile import FilePart, Part
from pxe_fetch.download.retry import RANGE_ATTEMPTS, retry_loop
from pxe_fetch.download.verify import check_size
from pxe_fetch.errors import (
    CannotCreateError,
    DeadlineError,
    DiskError,
    FetchError,
    IntegrityError,
    NetworkError,
    NoRoomError,
    PolicyError,
    RangeError,
    StoppedError,
)
from pxe_fetch.humanize import tried
from pxe_fetch.redact import redact
from pxe_fetch.transport import Body, Request, Transports

_EARLIER = "an earlier run"
_OURS = (CannotCreateError, DiskError, NoRoomError)  # no mirror can help


class SequentialDownload:
    """The state of one transfer between its attempts."""

    def __init__(
        self,
        *,
        name: str,
        urls: Sequence[str],
        digest: Digest | None,
        size: int | None,
        headers: Mapping[str, str],
        retry: RetryPolicy,
        timeouts: Timeouts,
        part: Part,
        transports: Transports,
        events: Events,
        deadline: Deadline,
        claim: Callable[[int], None] | None = None,
    ) -> None:
        self._name = name
        self._claim = claim
        self._digest = digest
        self._size = size
        self._headers = headers
        self._retry = retry
        self._timeouts = timeouts
        self._part = part
        self._transports = transports
        self._events = events
        self._deadline = deadline
        self._mirrors = Mirrors([Mirror(url=url) for url in urls], policy=retry)
        self._began = deadline.clock.now()
        self._mirror: Mirror | None = None  # whose turn it is, or was
        self._last: FetchError | None = None
        self.attempts = 0
        self._idle = 0  # attempts in a row that brought nothing new
        self._farthest = 0  # how long the part has been; only bytes beyond are progress
        self._progressed = False  # in the last attempt
        self._sources: set[str] = set()  # who gave the bytes of the part
        self._blamed = False  # wrong bytes are the last mirror's own
        self._one_source = False  # after wrong bytes of unclear origin: no more mixing
        self.bytes_received = 0  # over the wire in this run, those fetched twice counted twice
        self.resumed_from = 0  # bytes that an earlier run had left

    def resume(self, part: FilePart) -> None:
        """Begin with what an earlier run left, unless that cannot be the beginning."""
        left = part.resumable_size()
        if self._size is not None and left > self._size:
            part.clear()
            return
        self._events.verifying(self._name, total=left)
        part.rehash(deadline=self._deadline)
        if part.length == self._size and not part.digester.matches():
            part.clear()
            return
        self.resumed_from = self._farthest = part.length
        self._sources = {_EARLIER}

    def run(self) -> None:
        """Attempt after attempt until the part is whole and right. Raises FetchError, as transfer.receive says."""
        if not self._is_whole():
            try:
                retry_loop(self._attempt, after=self._after, clock=self._deadline.clock, stop=self._deadline.stop)
            except FetchError as error:
                error.attempts, error.bytes_received = self.attempts, self.bytes_received
                error.url = error.url or self.last_url()
                raise
        digest = self._part.digester.digest()
        self._events.verified(self._name, digest=str(digest), total=self._part.length)

    def last_url(self) -> str | None:
        """The mirror asked last, redacted; None when nobody was asked."""
        return redact(self._mirror.url) if self._mirror else None

    def _is_whole(self) -> bool:
        """Whether nothing needs to be asked for; the digest alone says so."""
        return self._size in {None, self._part.length} and self._part.digester.matches()

    def _attempt(self) -> None:
        self._deadline.check()
        mirror = self._mirror = self._mirror or self._next()
        mirror.asked += 1
        self.attempts += 1
        self._blamed = False
        farthest = self._farthest
        try:
            self._fetch(mirror, farthest=farthest)
        except NetworkError:
            # A server may declare too much, or break the connection after the last byte: the digest decides.
            if not self._is_whole():
                raise
        finally:
            self._progressed = self._part.length > farthest
            if self._progressed:
                mirror.odd = 0
            self._farthest = max(self._farthest, self._part.length)

    def _next(self) -> Mirror:
        mirror = self._mirrors.next(self._deadline.clock.now(), resuming=self._part.length > 0)
        if mirror is None:
            raise PolicyError("there is no url to fetch it from")
        return mirror

    def _fetch(self, mirror: Mirror, *, farthest: int) -> None:
        """One request and its body. Raises FetchError for whatever kept the part from being whole and right."""
        offset = self._part.length if self._may_resume(mirror) else 0
        request = Request(
            url=mirror.url,
            offset=offset,
            validator=mirror.validator if offset else None,
            headers=self._headers,
            timeouts=self._timeouts,
            deadline=self._deadline,
        )
        body = self._transports.of(mirror.url).open(request)
        try:
            self._begin(mirror, body, request)
            try:
                self._take_in(body)
            except IntegrityError:
                self._blamed = True  # it goes on beyond the size
                self._drop()
                raise
            self._judge(mirror, body, farthest=farthest)
        finally:
            body.close()

    def _take_in(self, body: Body) -> None:
        before = self._part.length
        try:
            copy_body(
                body,
                self._part,
                size=self._size,
                timeouts=self._timeouts,
                deadline=self._deadline,
                told=lambda received: self._events.progress(
                    self._name, received=received, total=self._size or body.total
                ),
            )
        finally:
            self.bytes_received += self._part.length - before

    def _may_resume(self, mirror: Mirror) -> bool:
        if not self._part.length or not mirror.ranges or self._digest is None:
            return False
        return not self._one_source or self._sources == {mirror.url}

    def _begin(self, mirror: Mirror, body: Body, request: Request) -> None:
        """Make the part ready for `body`, which may begin at its end or at 0."""
        if body.total is not None:
            self._blamed = True
            check_size(body.total, expected=self._size)
            self._blamed = False
            if self._claim and self._size is None:
                self._claim(body.total)
        if body.start not in {0, request.offset}:
            raise RangeError(f"bytes from {body.start} on, when those from {request.offset} were asked for")
        if body.start != self._part.length:
            if request.offset:
                self._begin_again(mirror, body, request)
            self._forget()
        mirror.validator = body.validator
        self._sources.add(mirror.url)
        self._events.started(self._name, url=redact(mirror.url), offset=body.start, total=self._size or body.total)
        if body.start:
            self._events.resumed(self._name, url=redact(mirror.url), offset=body.start)

    def _begin_again(self, mirror: Mirror, body: Body, request: Request) -> None:
        """All of it came in answer to a range. Raises RangeError where the range may yet be had, here or elsewhere."""
        changed = request.validator is not None and body.validator != request.validator
        why = "the file has changed on the server" if changed else "the server ignores ranges"
        if mirror.odd + 1 < RANGE_ATTEMPTS:
            raise RangeError(f"{why}, or this answer of it is odd")
        if self._mirrors.another_may_resume(mirror, now=self._deadline.clock.now()):
            raise RangeError(f"{why}; another may resume")
        mirror.ranges = changed

    def _judge(self, mirror: Mirror, body: Body, *, farthest: int) -> None:
        """The body has ended. Raises NetworkError if the part is not whole, IntegrityError if it is not right."""
        length = self._part.length
        expected = self._size if self._size is not None else body.total
        if expected is not None and length < expected:
            raise NetworkError(f"the body ended {expected - length} bytes early")
        if expected is None and self._digest and length > farthest and not self._part.digester.matches():
            # Its end was told by the end of the connection alone, so it may have been cut. If it has no more bytes
            # the next time either, it is wrong, not short.
            raise NetworkError("the body has no declared end, and what came is not all")
        try:
            check_size(length, expected=expected)
            self._part.digester.check(remark=body.remark)
        except IntegrityError:
            self._blamed = self._sources == {mirror.url}
            self._one_source = True
            self._drop()
            raise

    def _forget(self) -> None:
        """Begin again; only what goes beyond where we had been is progress."""
        self._part.clear()
        self._sources.clear()

    def _drop(self) -> None:
        """Begin again, since what we had was wrong."""
        self._forget()
        self._farthest = 0

    def _after(self, error: FetchError) -> float:
        """Seconds to wait after `error` before the next attempt, whose mirror is chosen here. Raises what ends it."""
        mirror = self._mirror
        if isinstance(error, (StoppedError, *_OURS)) or mirror is None:
            raise error
        if isinstance(error, DeadlineError):
            raise self._too_late(str(error)) from error
        clock = self._deadline.clock
        now = clock.now()
        self._last = error
        if self._progressed:
            self._idle = 0
        elif error.transient and error.is_counted and not (mirror.ranges and isinstance(error, RangeError)):
            self._idle += 1  # that it gave no range is news: it is yet to be asked again, or for all of it
        self._mirrors.failed(mirror, error, now=now, progressed=self._progressed, blamed=self._blamed)
        if mirror.out:
            self._events.mirror_dropped(self._name, url=redact(mirror.url), reason=str(error))
        following = self._mirrors.next(now, resuming=self._part.length > 0)
        if following is None or (self._idle >= self._retry.attempts_without_progress and not self._mirrors.untried()):
            raise self._exhausted() from error
        wait = max(0.0, following.not_before - now)
        if now + wait >= self._deadline.at:
            left = max(0.0, self._deadline.at - now)
            raise self._too_late(f"the next attempt is due in {wait:.0f} s, but {left:.0f} s are left") from error
        self._mirror = following
        self._events.retrying(
            self._name,
            url=redact(mirror.url),
            attempt=self.attempts,
            error=str(error),
            status=getattr(error, "status", None),
            wait_seconds=wait,
            next_url=redact(following.url),
        )
        return wait

    def _exhausted(self) -> FetchError:
        """The error that names the cause, with what was tried in its message."""
        error = self._mirrors.verdict()
        error.args = (f"{error} ({self._tried()})",)
        return error

    def _too_late(self, why: str) -> DeadlineError:
        cause = f"; the last error: {self._last}" if self._last else ""
        return DeadlineError(f"{why} ({self._tried()}){cause}")

    def _tried(self) -> str:
        return tried(
            self.attempts,
            mirrors=self._mirrors.asked(),
            seconds=self._deadline.clock.now() - self._began,
            here=self._part.length,
            total=self._size,
        )
