"""Sizes, durations and counts in words, for messages."""

from __future__ import annotations

KiB = 1024
MINUTE = 60
HOUR = 3600


def amount(count: int) -> str:
    """A number of bytes to three digits: 0 bytes, 512 bytes, 1.00 KiB, 23.4 MiB, 512 MiB."""
    if count < KiB:
        return "1 byte" if count == 1 else f"{count} bytes"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= KiB
        if value < 999.5 or unit == "TiB":  # noqa: PLR2004  beyond it, it would round to four digits
            break
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"  # noqa: PLR2004


def span(seconds: float) -> str:
    """A duration to about three digits: 0.25 s, 12.3 s, 2 min 5 s, 1 h 3 min."""
    if seconds < 9.995:  # noqa: PLR2004
        return f"{seconds:.2f} s"
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 artifact, 2 artifacts."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def soon(seconds: float) -> str:
    """When something will happen: now, in 0.25 s, in 2 min 5 s."""
    return "now" if seconds < 0.05 else f"in {span(seconds)}"  # noqa: PLR2004


def tried(attempts: int, *, mirrors: int, seconds: float, here: int, total: int | None) -> str:
    """What was tried: 4 attempts at 2 mirrors in 12.3 s, 1.43 MiB of 2.86 MiB here."""
    where = f" at {mirrors} mirrors" if mirrors > 1 else ""
    of = f" of {amount(total)}" if total else ""
    return f"{count(attempts, 'attempt')}{where} in {span(seconds)}, {amount(here)}{of} here"
