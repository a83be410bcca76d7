"""What a GRUB configuration may cost: one table of limits, and the error that says which was exceeded.

They are far above what producers write (a grub-mkconfig file for 20 kernels has 20 KB), and keep a hostile image from
taking gigabytes or hours: every loop, inclusion and expansion below counts against one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class GrubSyntaxError(ValueError):
    """A script that GRUB would reject too; the text says why, and `line` (from 1) where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Limit(Enum):
    """How much is allowed, and what to say of more."""

    BYTES = 1 << 20, "it has more than {most:,} bytes, with the files that it includes"
    TOKENS = 200_000, "it has more than {most:,} words, separators and gaps"
    DEPTH = 64, "its blocks, conditions or included files are nested too deeply: more than {most} levels"
    INCLUDES = 64, "it includes more than {most} files"
    ENTRIES = 256, "it has more than {most} menu entries"
    STEPS = 50_000, "it runs more than {most:,} commands"
    TEXT = 8 << 20, "the commands that it runs have more than {most:,} characters"
    VALUE = 1 << 14, "a command or a variable in it has more than {most:,} characters"

    def __init__(self, most: int, message: str) -> None:
        self.most = most
        self.message = message

    def check(self, count: int, *, line: int = 1) -> None:
        """Raise GrubLimitError if `count` exceeds the limit."""
        if count > self.most:
            raise GrubLimitError(self, line)


class GrubLimitError(GrubSyntaxError):
    """A script that exceeds a limit; the text says which."""

    def __init__(self, limit: Limit, line: int) -> None:
        super().__init__(limit.message.format(most=limit.most), line)
        self.limit = limit


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
        Limit.STEPS.check(self.steps, line=line)
        Limit.TEXT.check(self.text, line=line)

    def read(self, text: str) -> None:
        """Count the text of a configuration."""
        self.bytes += len(text)
        Limit.BYTES.check(self.bytes)

    def include(self, *, line: int = 1) -> None:
        """Count an included file."""
        self.includes += 1
        Limit.INCLUDES.check(self.includes, line=line)

    def entry(self, *, line: int = 1) -> None:
        """Count a menu entry."""
        self.entries += 1
        Limit.ENTRIES.check(self.entries, line=line)
