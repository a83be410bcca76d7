"""What one GRUB configuration has used of its limits, and the error that says which was exceeded.

They are far above what producers write (a grub-mkconfig file for 20 kernels has 20 KB), and keep a hostile image from
taking gigabytes or hours: every loop, inclusion and expansion below counts against one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pxe_pack.image.limits import Limit


class GrubSyntaxError(ValueError):
    """A script that GRUB would reject too; the text says why, and `line` (from 1) where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class GrubLimitError(GrubSyntaxError):
    """A script that exceeds a limit; the text says which."""

    def __init__(self, limit: Limit, line: int) -> None:
        super().__init__(f"it has more than {limit.most:,} {limit.of}", line)
        self.limit = limit


def check(limit: Limit, count: int, *, line: int = 1) -> None:
    """Raise GrubLimitError if `count` exceeds the limit."""
    if count > limit.most:
        raise GrubLimitError(limit, line)


@dataclass(slots=True)
class Usage:
    """What one configuration has used of its limits. The methods raise GrubLimitError."""

    steps: int = 0
    text: int = 0
    bytes: int = 0
    includes: int = 0
    entries: int = 0

    def step(self, words: Iterable[str] = (), *, line: int = 1) -> None:
        """Count a command with its words."""
        self.steps += 1
        self.text += sum(map(len, words))
        check(Limit.GRUB_STEPS, self.steps, line=line)
        check(Limit.GRUB_TEXT, self.text, line=line)

    def read(self, text: str) -> None:
        """Count the text of a configuration."""
        self.bytes += len(text)
        check(Limit.GRUB_BYTES, self.bytes)

    def include(self, *, line: int = 1) -> None:
        """Count an included file."""
        self.includes += 1
        check(Limit.GRUB_INCLUDES, self.includes, line=line)

    def entry(self, *, line: int = 1) -> None:
        """Count a menu entry."""
        self.entries += 1
        check(Limit.GRUB_ENTRIES, self.entries, line=line)
