"""One artifact: mirrors, attempts and ranges, until its bytes are here and verified."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from pxe_fetch.clock import Clock, Patience, SystemClock
from pxe_fetch.contract.model import Digest, RetryPolicy, Timeouts
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
from pxe_fetch.events import Events
from pxe_fetch.intake import take_in
from pxe_fetch.mirrors import Mirror, Mirrors
from pxe_fetch.part import FilePart, MemoryPart, Part
from pxe_fetch.redact import redact
from pxe_fetch.retry import persist
from pxe_fetch.transport import Body, Request, Transports
from pxe_fetch.verify import Digester, check_size

TYPE_CHECKING = False  # what is only named in a signature need not be imported at boot
if TYPE_CHECKING:
    from pxe_fetch.plan import Transfer

_EARLIER = "an earlier run"
_OURS = (CannotCreateError, DiskError, NoRoomError)  # no mirror can help


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """An artifact that is here and verified. Sizes in bytes."""

    bytes: int  # of the whole
    bytes_received: int  # over the wire in this run, those fetched twice counted twice
    attempts: int  # requests for it, redirects not counted; 0 when an earlier run had left all of it
    url: str | None  # the mirror that finished it, redacted; None when nobody was asked
    seconds: float
    resumed_from: int  # what an earlier run had left of it


def receive(
    transfer: Transfer,
    *,
    transports: Transports,
    events: Events,
    stop: Event,
    clock: Clock | None = None,
    deadline: float = math.inf,
) -> Received:
    """Bring the bytes of `transfer` into `transfer.part`: whole, verified, fsync'ed, not yet placed.

    May run in several threads at once, with the same `transports`, `events` and `stop`. `deadline` (on `clock.now()`)
    is the run's; the artifact's own is counted from now. When `stop` is set it ends within a second, a connection that
    is just being made excepted (`timeouts.connect`).

    Raises only FetchError, of the class that names the cause: NetworkError, IntegrityError, RefusedError, PolicyError
    or TrustError when every mirror and attempt is used up; DeadlineError; StoppedError; NoRoomError (the part is gone
    then), DiskError, CannotCreateError. But for NoRoomError the part stays, to be resumed by a later run. The error's
    `attempts`, `bytes_received` and `url` tell what had happened.
    """
    clock = clock or SystemClock()
    with _nothing_else_escapes():
        patience = Patience(clock=clock, stop=stop, deadline=min(deadline, clock.now() + transfer.retry.deadline))
        patience.check()
        part = FilePart(transfer.part, digester=lambda: Digester(transfer.digest))
        try:
            reception = _Reception(
                name=transfer.name,
                urls=transfer.urls,
                digest=transfer.digest,
                size=transfer.size,
                headers=transfer.headers,
                retry=transfer.retry,
                timeouts=transfer.timeouts,
                part=part,
                transports=transports,
                events=events,
                patience=patience,
            )
            if part.left_over():
                reception.take_over(part)
            received = reception.run()
            part.sync()
        except NoRoomError:
            part.discard()
            raise
        finally:
            part.close()
        return received


def fetch_text(
    url: str,
    *,
    name: str,
    digest: Digest | None,
    limit: int,
    transports: Transports,
    events: Events,
    stop: Event,
    retry: RetryPolicy,
    timeouts: Timeouts,
    headers: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    deadline: float = math.inf,
) -> bytes:
    """The bytes at `url` (a configuration, a list of digests), at most `limit` of them, with the same persistence.

    `name` is what the events call it. Raises what `receive` raises, and PolicyError when there are more bytes.
    """
    clock = clock or SystemClock()
    with _nothing_else_escapes():
        patience = Patience(clock=clock, stop=stop, deadline=min(deadline, clock.now() + retry.deadline))
        part = MemoryPart(limit=limit, digester=lambda: Digester(digest))
        reception = _Reception(
            name=name,
            urls=(url,),
            digest=digest,
            size=None,
            headers=headers or {},
            retry=retry,
            timeouts=timeouts,
            part=part,
            transports=transports,
            events=events,
            patience=patience,
        )
        reception.run()
        return part.value()


@contextmanager
def _nothing_else_escapes() -> Iterator[None]:
    try:
        yield
    except FetchError:
        raise
    except Exception as error:
        raise FetchError(f"a fault of pxe-fetch itself: {type(error).__name__}: {error}") from error


class _Reception:
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
        patience: Patience,
    ) -> None:
        self._name = name
        self._digest = digest
        self._size = size
        self._headers = headers
        self._retry = retry
        self._timeouts = timeouts
        self._part = part
        self._transports = transports
        self._events = events
        self._patience = patience
        self._mirrors = Mirrors(urls, policy=retry)
        self._began = patience.clock.now()
        self._mirror: Mirror | None = None  # whose turn it is, or was
        self._last: FetchError | None = None
        self._attempts = 0
        self._idle = 0  # attempts in a row that brought nothing new
        self._farthest = 0  # how long the part has been; only bytes beyond are progress
        self._progressed = False  # in the last attempt
        self._sources: set[str] = set()  # who gave the bytes of the part
        self._blamed = False  # wrong bytes are the last mirror's own
        self._one_source = False  # after wrong bytes of unclear origin: no more mixing
        self._received = 0
        self._resumed_from = 0

    def take_over(self, part: FilePart) -> None:
        """Begin with what an earlier run left, unless that cannot be the beginning."""
        left = part.left_over()
        if self._size is not None and left > self._size:
            part.clear()
            return
        self._events.verifying(self._name, total=left)
        part.rehash(patience=self._patience)
        if part.length == self._size and not part.digester.matches():
            part.clear()
            return
        self._resumed_from = self._farthest = part.length
        self._sources = {_EARLIER}

    def run(self) -> Received:
        """Attempt after attempt until the part is whole and right."""
        if not self._is_whole():
            try:
                persist(self._attempt, after=self._after, clock=self._patience.clock, stop=self._patience.stop)
            except FetchError as error:
                error.attempts, error.bytes_received, error.url = self._attempts, self._received, self._last_url()
                raise
        digest = self._part.digester.digest()
        self._events.verified(self._name, digest=str(digest), total=self._part.length)
        return Received(
            bytes=self._part.length,
            bytes_received=self._received,
            attempts=self._attempts,
            url=self._last_url(),
            seconds=self._patience.clock.now() - self._began,
            resumed_from=self._resumed_from,
        )

    def _last_url(self) -> str | None:
        return redact(self._mirror.url) if self._mirror else None

    def _is_whole(self) -> bool:
        """Whether nothing needs to be asked for; the digest alone says so."""
        return self._size in {None, self._part.length} and self._part.digester.matches()

    def _attempt(self) -> None:
        self._patience.check()
        mirror = self._mirror = self._mirror or self._next()
        mirror.asked += 1
        self._attempts += 1
        self._blamed = False
        farthest = self._farthest
        try:
            self._fetch(mirror, farthest=farthest)
        except NetworkError:
            # A server may declare too much, or break the connection after the last byte: the digest decides.
            if not self._is_whole():
                raise
        finally:
            self._farthest = max(farthest, self._part.length)
            self._progressed = self._farthest > farthest

    def _next(self) -> Mirror:
        mirror = self._mirrors.next(self._patience.clock.now(), resuming=self._part.length > 0)
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
            patience=self._patience,
        )
        body = self._transports.of(mirror.url).open(request)
        try:
            self._begin(mirror, body, request)
            before = self._part.length
            try:
                take_in(
                    body,
                    self._part,
                    size=self._size,
                    timeouts=self._timeouts,
                    patience=self._patience,
                    told=lambda received: self._events.progress(
                        self._name, received=received, total=self._size or body.total
                    ),
                )
            except IntegrityError:
                self._blamed = True  # it goes on beyond the size
                self._forget()
                raise
            finally:
                self._received += max(0, self._part.length - before)
            self._judge(mirror, body, farthest=farthest)
        finally:
            body.close()

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
        if body.start != self._part.length:
            changed = request.validator is not None and body.validator != request.validator
            if request.offset and not changed:
                mirror.ranges = False
                if self._mirrors.another_may_resume(mirror, now=self._patience.clock.now()):
                    raise RangeError("the server ignores ranges; another may resume")
            self._forget()
        mirror.validator = body.validator
        self._sources.add(mirror.url)
        self._events.started(self._name, url=redact(mirror.url), offset=body.start, total=self._size or body.total)
        if body.start:
            self._events.resumed(self._name, url=redact(mirror.url), offset=body.start)

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
            self._forget()
            self._farthest = 0
            raise

    def _forget(self) -> None:
        self._part.clear()
        self._sources.clear()

    def _after(self, error: FetchError) -> float:
        """Seconds to wait after `error` before the next attempt, whose mirror is chosen here. Raises what ends it."""
        mirror = self._mirror
        if isinstance(error, (StoppedError, *_OURS)) or mirror is None:
            raise error
        if isinstance(error, DeadlineError):
            raise self._too_late("the time for it is over") from error
        clock = self._patience.clock
        now = clock.now()
        self._last = error
        if self._progressed:
            self._idle = 0
        elif error.transient:
            self._idle += 1
        self._mirrors.failed(mirror, error, now=now, progressed=self._progressed, blamed=self._blamed)
        if mirror.out:
            self._events.mirror_dropped(self._name, url=redact(mirror.url), reason=str(error))
        following = self._mirrors.next(now, resuming=self._part.length > 0)
        if following is None or (self._idle >= self._retry.attempts_without_progress and not self._mirrors.untried()):
            raise self._exhausted() from error
        wait = max(0.0, following.not_before - now)
        if now + wait >= self._patience.deadline:
            left = max(0.0, self._patience.deadline - now)
            raise self._too_late(f"the next attempt is due in {wait:.0f} s, but {left:.0f} s are left") from error
        self._mirror = following
        self._events.retrying(
            self._name,
            url=redact(mirror.url),
            attempt=self._attempts,
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
        attempts = f"{self._attempts} attempt" + ("s" if self._attempts != 1 else "")
        seconds = self._patience.clock.now() - self._began
        return f"{attempts} in {seconds:.0f} s, {self._part.length} bytes here" + (
            f" of {self._size}" if self._size else ""
        )
