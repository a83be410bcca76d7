"""Durations, sizes and times: the rules by which they are read, and how they are written, exactly or for messages.

Durations are `500ms 30s 5m 1h`, sizes `512 KiB 4MiB 1GB`.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress

from pxe_fetch.contract.problem import RuleError

DURATION_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}  # in milliseconds
_SIZE_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    "KB": 1000,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
LONGEST = 500 * 3600  # seconds; sockets take no timeout of more than 2^31 ms (poll(2))
LARGEST = 2**63 - 1  # bytes; off_t of Linux
_LARGEST_RATE = 1 << 30  # bytes a second; one stream of a fast network has no more
_LEAST_LIVE_SPACE = 64 << 20  # bytes; the system's own files in /run need some of it
_KiB = 1024
_MINUTE = 60
_HOUR = 3600
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|m|h)", re.ASCII)
SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})", re.ASCII)
# Compiled when they are first used: few configurations have such values.
SHARE = r"([0-9]{1,3})%"
MOMENT = r"[2-9][0-9]{3}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z)?"


def duration(text: str) -> float:
    """`text` in seconds. Raises RuleError."""
    match = DURATION.fullmatch(text)
    if not match:
        label = "expected a number and one of ms, s, m, h, as in 500ms or 5m"
        raise RuleError("is not a duration", reference="duration-invalid", label=label)
    milliseconds = float(match[1]) * DURATION_UNITS[match[2]]
    if not milliseconds.is_integer():
        raise RuleError("is not a duration", reference="duration-invalid", label="expected whole milliseconds")
    if milliseconds > LONGEST * 1000:
        label = f"at most {LONGEST // 3600}h"
        raise RuleError("is too long a time", reference="duration-out-of-range", label=label)
    return milliseconds / 1000


def positive_duration(text: str) -> float:
    """A duration in seconds, more than none."""
    seconds = duration(text)
    if not seconds:
        raise RuleError("must be at least 1ms", reference="duration-out-of-range")
    return seconds


def size(text: str) -> int:
    """`text` in bytes; a bare number is bytes. Raises RuleError."""
    match = SIZE.fullmatch(text)
    if not match or match[2] not in _SIZE_UNITS:
        label = "expected a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, as in 512KiB"
        raise RuleError("is not a size", reference="size-invalid", label=label)
    number, unit = match[1], _SIZE_UNITS[match[2]]
    product = float(number) * unit if "." in number else int(number) * unit
    if product != int(product):
        raise RuleError("is not a size", reference="size-invalid", label="expected a whole number of bytes")
    if product > LARGEST:
        raise RuleError("is too large", reference="size-invalid", label="no file has more than 8388607TiB")
    return int(product)


def rate(text: str) -> int:
    """Bytes a second that a mirror may be asked for."""
    least = size(text)
    if least > _LARGEST_RATE:
        label = f"at most {show_size(_LARGEST_RATE)} a second"
        raise RuleError("is more than any mirror sends", reference="rate-out-of-range", label=label)
    return least


def live_space(text: str) -> str:
    """The size of a tmpfs as mount(8) takes it (tmpfs(5), `size`): a share of the memory, or bytes."""
    match = re.fullmatch(SHARE, text)
    try:
        found = text if match else str(size(text))
    except RuleError as error:
        label = "a share of the memory or a size, as in 60% or 2GiB"
        raise RuleError(error.message, reference="live-space-invalid", label=label) from None
    if not (10 <= int(match[1]) <= 90 if match else int(found) >= _LEAST_LIVE_SPACE):  # noqa: PLR2004
        hint = "from 10% to 90% of the memory, or 64MiB and more: the rest of it is for programs and for the image"
        raise RuleError("is out of range", reference="live-space-invalid", hint=hint)
    return found


def moment(text: str) -> int:
    """A time in UTC, or the last second of a day in UTC (ISO 8601), in seconds since 1970."""
    from datetime import datetime

    with suppress(ValueError):  # of the 31st of February
        if re.fullmatch(MOMENT, text):
            return int(datetime.fromisoformat(text if "T" in text else f"{text}T23:59:59Z").timestamp())
    label = "a day or a time in UTC, as in 2027-01-31 or 2027-01-31T12:00:00Z"
    raise RuleError("is not a time", reference="time-invalid", label=label)


def show_size(count: int) -> str:
    """`count` bytes in the largest unit that is exact; `size` reads it back."""
    unit = next(unit for unit in ("TiB", "GiB", "MiB", "KiB", "") if count % _SIZE_UNITS[unit] == 0)
    return f"{count // _SIZE_UNITS[unit]}{unit}" if count else "0"


def show_share(text: str) -> str:
    """A share of the memory or a number of bytes, as `live_space` holds it, in the shortest spelling: 60%, 2GiB."""
    return show_size(int(text)) if text.isdigit() else text


def show_moment(seconds: float) -> str:
    """A time in seconds since 1970, in UTC: 2027-01-31T23:59:59Z, as ISO 8601 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def amount(count: int) -> str:
    """A number of bytes to three digits: 0 bytes, 512 bytes, 1.00 KiB, 23.4 MiB, 512 MiB."""
    if count < _KiB:
        return "1 byte" if count == 1 else f"{count} bytes"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= _KiB
        if value < 999.5 or unit == "TiB":  # noqa: PLR2004  beyond it, it would round to four digits
            break
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"  # noqa: PLR2004


def span(seconds: float) -> str:
    """A duration to about three digits: 0.25 s, 12.3 s, 2 min 5 s, 1 h 3 min."""
    if seconds < 9.995:  # noqa: PLR2004
        return f"{seconds:.2f} s"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 artifact, 2 artifacts."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
