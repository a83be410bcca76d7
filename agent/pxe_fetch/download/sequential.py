"""Download an artifact with one stream at a time: choose the mirror and the offset, and verify the result."""

from __future__ import annotations

import os
from collections.abc import Callable

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.contract.url import redact
from pxe_fetch.download.context import Context
from pxe_fetch.download.copy import BUFFER, MinimumRate, copy_body
from pxe_fetch.download.mirrors import RANGE_ATTEMPTS, Mirror
from pxe_fetch.download.partfile import SequentialPart, check_size, noted
from pxe_fetch.download.retry import Attempts
from pxe_fetch.errors import (
    ClaimedSizeError,
    FetchError,
    IntegrityError,
    NetworkError,
    NoRoomError,
    RangeError,
    is_final,
    unforeseen,
)
from pxe_fetch.plan import Source, Transfer
from pxe_fetch.transport import Body, Request

_EARLIER_RUN = "an earlier run"
_ORIGIN_ATTEMPTS = 4  # failures in a row of the mirror that sent what is here, before another is asked instead
_STEP = 16 * 1024 * 1024  # bytes of space reserved in advance if no mirror declares the size


class SequentialDownload:
    """The state of one download between its attempts."""

    def __init__(
        self, source: Source, *, part: SequentialPart, context: Context, reserve: Callable[[int], None] = lambda _: None
    ) -> None:
        """`reserve` is called with the size that a mirror declares if the source has none; it may raise NoRoomError.

        If the mirror declares none either, it is called repeatedly while the part grows.
        """
        self._source = source
        self._part = part
        self._context = context
        self._events = context.events
        self._reserve = reserve
        self._reserved = 0  # bytes
        self._total: int | None = None  # bytes of the whole, as the answer declared that sent what is here
        self.attempts = Attempts(source=source, context=context, here=lambda: part.length, choose=self._choose_mirror)
        self._deadline, self._mirrors = self.attempts.deadline, self.attempts.mirrors
        self._farthest = 0  # the greatest length of the part so far: only bytes beyond it are progress
        self._origins: set[str] = set()  # where the bytes of the part came from
        self._is_mixed = False  # the wrong bytes of the last attempt came from several mirrors
        self._one_origin = False  # after wrong bytes: no more mixing

    def _resume(self) -> None:
        """Start from what an earlier run left in the part, unless it cannot be the beginning of the artifact."""
        part, size = self._part, self._source.size
        left = part.resumable
        if size is not None and left > size:
            part.clear()
            return
        self._events.verifying(self._source.name, total=left)
        part.rehash(deadline=self._deadline)
        if part.length == size and not part.digester.matches():
            part.clear()
            return
        self.attempts.resumed_from = self._farthest = part.length
        self._origins = {_EARLIER_RUN}

    def run(self) -> Attempts:
        """Download until the part is complete and verified. Raises FetchError as fetcher.download does."""
        return self.attempts.complete(self._download)

    def _download(self) -> None:
        if self._part.resumable:
            self._resume()
        if not self._is_whole():
            self.attempts.run(self._attempt)
        digest = self._part.digester.digest()
        self._events.verified(self._source.name, digest=str(digest), total=self._part.length)

    def _is_whole(self) -> bool:
        """Whether the part is complete, as far as a digest shows it."""
        return self._source.size in {None, self._part.length} and self._part.digester.matches()

    def _attempt(self) -> None:
        self._deadline.check()
        mirror = self._choose_mirror()
        if mirror is None:
            raise self._mirrors.verdict()
        self.attempts.begin(mirror)
        self._is_mixed = False
        farthest, failure = self._farthest, None
        try:
            self._fetch(mirror)
        except FetchError as error:
            # A server may declare too large a size, or cut the connection after the last byte: the digest decides.
            failure = None if isinstance(error, NetworkError) and self._is_whole() else error
        except Exception as error:  # a bug triggered by this mirror's answer: try another mirror
            failure = unforeseen(error)
        progressed = self._part.length > farthest
        if progressed:
            mirror.unranged = 0
        self._farthest = max(self._farthest, self._part.length)
        if failure is None:
            return
        if not is_final(failure):
            self.attempts.failed(
                mirror, failure, progressed=progressed, by_mirror=progressed, blamed=not self._is_mixed
            )
        raise failure

    def _choose_mirror(self) -> Mirror | None:
        # If bytes must not be mixed, what is here is worth a few attempts at the mirror that sent it.
        if self._one_origin:
            for mirror in self._mirrors.all:
                if self._origins == {mirror.url} and not mirror.out and mirror.failures < _ORIGIN_ATTEMPTS:
                    return mirror
        return self._mirrors.next(prefer_ranges=self._part.length > 0)

    def _fetch(self, mirror: Mirror) -> None:
        """Make one request and copy its body. Raises FetchError unless the part is then complete and verified."""
        offset = self._part.length if self._may_resume(mirror) else 0
        timeouts = self._mirrors.timeouts(mirror)
        request = Request(
            url=mirror.url,
            offset=offset,
            validator=mirror.validator if offset else None,
            headers=self._source.headers,
            login=self._source.login,
            credentials=self._source.credentials,
            timeouts=timeouts,
            deadline=self._deadline,
        )
        with mirror.answer(request, self._context) as body:
            self._begin(mirror, body, request)
            try:
                self._copy(mirror, body, timeouts)
            except (IntegrityError, ClaimedSizeError) as error:  # it goes beyond the size, or never ends
                if isinstance(error, ClaimedSizeError):
                    error.limit = 1  # all that came is more than a claim
                self._drop()
                raise
            self._check(mirror, body)

    def _copy(self, mirror: Mirror, body: Body, timeouts: Timeouts) -> None:
        part, before = self._part, self._part.length
        total = self._source.size or (body.total if body.is_exact else None)
        rate = MinimumRate(
            timeouts=timeouts,
            deadline=self._deadline,
            may_leave=lambda: self._mirrors.may_leave(mirror),
            on_fast=lambda: self._mirrors.had_minimum_rate(mirror),
        )

        def wanted() -> int:  # one byte more than there should be reveals a longer body
            return BUFFER if total is None else min(BUFFER, total - part.length + 1)

        def write(data: memoryview) -> None:
            if total is None:
                self._reserve_step(part.length + len(data))
            part.write(data)
            self._events.progress(self._source.name, received=part.length, total=total)
            if total is not None and part.length > total:  # a mirror that sends more than it claimed is at fault
                message = f"wrong size: expected {total} bytes, and more came"
                raise IntegrityError(message, expected=str(total), found=f">{total}")

        try:
            copy_body(body, wanted=wanted, check=rate.check, write=write, update=part.digester.update)
        finally:
            self.attempts.received += part.length - before
            mirror.has_delivered |= part.length > before

    def _may_resume(self, mirror: Mirror) -> bool:
        if not self._part.length or not mirror.ranges:
            return False
        if self._source.digest is None:  # only If-Range shows that the rest is of the same file; a text comes at once
            is_artifact = isinstance(self._source, Transfer)
            return is_artifact and mirror.validator is not None and self._origins == {mirror.url}
        if self._one_origin and self._origins != {mirror.url}:
            return False
        return self._mirrors.may_continue(mirror, length=self._part.length, origins=self._origins)

    def _begin(self, mirror: Mirror, body: Body, request: Request) -> None:
        """Prepare the part for `body`, which starts at the part's end or at 0.

        Raises IntegrityError if the mirror's file has the wrong size, ClaimedSizeError if it does not fit, RangeError.
        """
        if body.total is not None and body.is_exact:
            check_size(body.total, expected=self._source.size, remark=body.remark)
        if body.total is not None and self._source.size is None:
            self._reserve_size(body.total)
        if body.start not in {0, request.offset}:
            raise RangeError(f"bytes from {body.start} on, when those from {request.offset} were asked for")
        if body.start and body.total and self._total not in {None, body.total}:
            raise RangeError(f"the rest of a file of {body.total} bytes, when {self._total} were declared before")
        if body.start != self._part.length:
            if request.offset:
                self._check_restart(mirror, body, request)
            self._clear()
        self._total = body.total if body.is_exact else None
        mirror.validator, mirror.has_odd_bytes = body.validator, mirror.is_odd
        mirror.has_sent_range |= body.start > 0
        self._origins.add(mirror.url)
        url, name = redact(mirror.url), self._source.name
        total = self._source.size or body.total
        self._events.started(
            name, url=url, offset=body.start, total=total, final_url=body.final_url, remark=body.remark
        )
        if body.start:
            self._events.resumed(name, url=url, offset=body.start)

    def _reserve_size(self, size: int) -> None:
        try:
            self._reserve(size)
        except NoRoomError as error:
            raise ClaimedSizeError(f"the mirror sends, or claims to have, more than fits: {error}") from error
        self._reserved = size

    def _reserve_step(self, length: int) -> None:
        """Reserve space for a body of unknown length: some in advance, or if that does not fit, what has arrived."""
        if length <= self._reserved:
            return
        try:
            self._reserve_size(length + _STEP)
        except ClaimedSizeError:
            self._reserve_size(length)

    def _check_restart(self, mirror: Mirror, body: Body, request: Request) -> None:
        """Handle a full answer to a range request. Raises RangeError if some mirror may still send the range.

        Nothing is dropped for a web page that is shorter, or may last for a moment only: then it is an IntegrityError.
        """
        is_short = body.total is not None and body.total < self._part.length
        if body.is_page and (is_short or mirror.failures < _ORIGIN_ATTEMPTS):
            message = f"the rest of the file was asked for, and something else came{noted(body.remark)}"
            raise IntegrityError(message, expected=str(self._source.digest), found="a web page")
        changed = request.validator is not None and body.validator != request.validator
        why = "the file has changed on the server" if changed else "the server ignores ranges"
        if mirror.unranged + 1 < RANGE_ATTEMPTS:
            raise RangeError(f"{why}, or the answer was unusual this once")
        if self._mirrors.another_may_resume(mirror):
            raise RangeError(f"{why}; another mirror may resume")
        mirror.ranges = changed

    def _check(self, mirror: Mirror, body: Body) -> None:
        """Check the part at the end of the body. Raises NetworkError if it is incomplete, IntegrityError if wrong."""
        length = self._part.length
        expected = self._source.size if self._source.size is not None else body.total
        if expected is not None and length < expected and length != body.total:
            raise NetworkError(f"the body ended {expected - length} bytes early{noted(body.remark)}")
        is_new = length > self._farthest
        is_cut = expected is None and is_new and not body.is_page
        if is_cut and self._source.digest and not self._part.digester.matches():
            # Only the end of the connection marked its end, so it may have been cut. If the next attempt gets no more
            # bytes, it is wrong, not short.
            raise NetworkError("the body has no declared end, and is incomplete")
        try:
            check_size(length, expected=expected, remark=body.remark)
            self._part.check(remark=body.remark)
        except IntegrityError:
            self._is_mixed = self._origins != {mirror.url}
            self._one_origin = True
            self._drop()
            raise

    def _clear(self) -> None:
        """Start again. Bytes that were present before do not count as progress."""
        self._part.clear()
        self._origins.clear()
        self._reserved, self._total = 0, None

    def _drop(self) -> None:
        """Start again after wrong bytes."""
        self._clear()
        self._farthest = 0


def fetch_text(
    source: Source, context: Context, *, limit: int, accept: Callable[[bytes], object] = lambda _: None
) -> bytes:
    """Download something small (a configuration, a list of digests), with the same retries, into memory.

    `accept` is called with all that a mirror sent, and raises IntegrityError if that cannot be it: then that mirror
    has failed. Raises what fetcher.download raises, and PolicyError if it has more than `limit` bytes.
    """
    with open(os.memfd_create("pxe-fetch"), "rb", buffering=0) as memory:  # noqa: PTH123
        part = SequentialPart(memory.fileno(), source.name, digest=source.digest, limit=limit, accept=accept)
        SequentialDownload(source, part=part, context=context).run()
        return memory.read()
