"""What HTTP says about ranges and waiting, read strictly whatever a server sends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxe_fetch.transport.exchange import retry_after
from pxe_fetch.transport.http import ContentRange, content_range, strong_etag


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-0/1", ContentRange(start=0, end=0, total=1)),
        ("bytes 5-9/10", ContentRange(start=5, end=9, total=10)),
        ("Bytes 5-9/10", ContentRange(start=5, end=9, total=10)),
        ("bytes 5-9/*", ContentRange(start=5, end=9, total=None)),
        ("bytes */10", ContentRange(start=None, end=None, total=10)),
    ],
)
def test_reads_a_content_range(value: str, expected: ContentRange) -> None:
    assert content_range(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "bytes",
        "bytes 5-4/10",
        "bytes 5-10/10",
        "bytes -5/10",
        "bytes 5-/10",
        "bytes 5-9",
        "items 5-9/10",
        "bytes 5-9/10, bytes 11-12/20",
        "bytes 5 - 9/10",
        "bytes ٥-9/10",  # noqa: RUF001  a digit, but not one of HTTP's
        "bytes 5-9/99999999999999999999999",
    ],
)
def test_a_content_range_that_contradicts_itself_is_none(value: str | None) -> None:
    assert content_range(value) is None


@given(st.text())
def test_no_text_breaks_the_readers(value: str) -> None:
    content_range(value)
    strong_etag(value)
    wait = retry_after(value, date=value)
    assert wait is None or wait >= 0


@given(start=st.integers(0, 2**62), length=st.integers(1, 2**40), more=st.integers(0, 2**40))
def test_every_proper_range_is_read(start: int, length: int, more: int) -> None:
    end, total = start + length - 1, start + length + more
    assert content_range(f"bytes {start}-{end}/{total}") == ContentRange(start=start, end=end, total=total)


@given(st.datetimes(min_value=datetime(1980, 1, 1), max_value=datetime(2090, 1, 1)), st.integers(0, 10**9))  # noqa: DTZ001
def test_a_date_is_measured_from_the_servers_own(now: datetime, seconds: int) -> None:
    now = now.replace(tzinfo=UTC, microsecond=0)
    until = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
    assert retry_after(until, date=format_datetime(now, usegmt=True)) == seconds


def test_a_date_that_is_over_is_no_wait() -> None:
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT", date=None) == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [('"a"', '"a"'), ('""', '""'), ('W/"a"', None), ("a", None), ("", None), (None, None), ('"a"b"', None)],
)
def test_only_a_strong_etag_is_one(value: str | None, expected: str | None) -> None:
    assert strong_etag(value) == expected
