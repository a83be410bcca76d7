"""Parse and format durations and sizes: `500ms 30s 5m 1h`, `512 KiB 4MiB 1GB`."""

from __future__ import annotations

import re

from pxe_fetch.contract.problem import RuleError

DURATION_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}  # in milliseconds
_SIZE_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    "KB": 1000,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|m|h)", re.ASCII)
SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})", re.ASCII)


def duration(text: str) -> float:
    """`text` in seconds. Raises RuleError."""
    match = DURATION.fullmatch(text)
    if not match:
        label = "expected a number and one of ms, s, m, h, as in 500ms or 5m"
        raise RuleError("is not a duration", reference="duration-invalid", label=label)
    milliseconds = float(match[1]) * DURATION_UNITS[match[2]]
    if not milliseconds.is_integer():
        raise RuleError("is not a duration", reference="duration-invalid", label="expected whole milliseconds")
    return milliseconds / 1000


def size(text: str) -> int:
    """`text` in bytes; a bare number is bytes. Raises RuleError."""
    match = SIZE.fullmatch(text)
    if not match or match[2] not in _SIZE_UNITS:
        label = "expected a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, as in 512KiB"
        raise RuleError("is not a size", reference="size-invalid", label=label)
    number, unit = match[1], _SIZE_UNITS[match[2]]
    if "." not in number:
        return int(number) * unit
    amount = float(number) * unit
    if not amount.is_integer():
        raise RuleError("is not a size", reference="size-invalid", label="expected a whole number of bytes")
    return int(amount)


def show_size(count: int) -> str:
    """`count` bytes in the largest unit that is exact; `size` reads it back."""
    unit = next(unit for unit in ("TiB", "GiB", "MiB", "KiB", "") if count % _SIZE_UNITS[unit] == 0)
    return f"{count // _SIZE_UNITS[unit]}{unit}" if count else "0"
