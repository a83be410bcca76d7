"""The fault matrix: what can happen to requests, how files are fetched meanwhile, and what of them may come twice.

Nothing that came is to come again, but for what no engine could keep:

- of an answer with wrong bytes, what a digest covers: a chunk, or the whole where that alone has one;
- what was here when a server that is alone and stays as it is would not go on with it (`Restart`);
- after a run that failed, up to a block of each chunk it had begun: where a hole begins is known to the block alone.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from fakes.exchange import Asked, Fault
from fakes.server import Server
from pxe_fetch.download.copy import BUFFER

CHUNK = 64 * 1024
BLOCK = 4096  # of a file system, as st_blksize says
LARGE = random.Random(2).randbytes(3 * BUFFER + 12_345)
SMALL = random.Random(3).randbytes(5 * CHUNK + 12_345)

Digests = Literal["whole", "sized", "chunks"]  # a digest of the whole, the same and the size, a digest a chunk
Mirror = Literal["alone", "mirrored"]
Lasts = Literal["passing", "lasting"]
Befall = Callable[[Server], AbstractContextManager[None]]


class Restart(Enum):
    """Why the half that is here has to come again, and with which digests."""

    NO_RANGES = frozenset({"whole", "sized", "chunks"})  # the server has none, or none that could be believed
    OTHER_FILE = frozenset({"whole", "sized"})  # it says that its file is another now; chunks tell for themselves


@dataclass(frozen=True, kw_only=True)
class Case:
    """What requests for each file meet: the first ones `before`, then `passing`, or where it lasts `then` for ever."""

    name: str
    begun: bool = False  # an earlier run has left half of each file
    before: Sequence[Fault] = ()
    passing: Sequence[Fault] = ()
    then: Fault | None = None  # None: it would be no other fault if it lasted
    cause: str | None = None  # how it ends if it lasts, and nobody else has the file
    once: str | None = None  # how it ends if it passes: not None where even one such answer is final
    once_chunked: str | None = "same"  # `once` where there are chunk digests
    chunked: str | None = "same"  # `cause` where there are chunk digests
    sized: str | None = "same"  # `cause` where the size is known
    slow: bool = False  # it takes a timeout to notice
    restart: Restart | None = None  # what it costs if it lasts, and nobody else has the file
    befall: Befall | None = None  # what happens to the server itself

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """How the files are fetched while the fault is there."""

    files: int
    digests: Digests
    mirror: Mirror
    lasts: Lasts

    def __str__(self) -> str:
        return f"{self.files}-{self.digests}-{self.mirror}-{self.lasts}"

    @property
    def body(self) -> bytes:
        """What is in each file: one that is alone takes several of the agent's buffers."""
        return LARGE if self.files == 1 else SMALL

    def here(self, case: Case) -> int:
        """Bytes of each file that an earlier run has left."""
        return len(self.body) // 2 if case.begun else 0

    def is_left_alone(self) -> bool:
        """Whether nobody else has the files, ever."""
        return self.mirror == "alone" and self.lasts == "lasting"

    def cause(self, case: Case) -> str | None:
        """How the run has to end."""
        if self.mirror == "mirrored":
            return None
        if self.lasts == "passing":
            return case.once if self.digests != "chunks" or case.once_chunked == "same" else case.once_chunked
        if self.digests == "chunks" and case.chunked != "same":
            return case.chunked
        if self.digests != "whole" and case.sized != "same":
            return case.sized
        return case.cause

    def twice(self, case: Case, asked: Collection[Asked], *, failed: bool) -> int:
        """Bytes of one file that may have come twice, after the requests for it that were `asked`, and a failed run."""
        may = sum(self._wrong(one) for one in asked if one.wrong)
        if case.restart and self.is_left_alone() and self.digests in case.restart.value:
            may += len(self.body) // 2
        if failed and self.digests == "chunks":
            may += BLOCK * len(asked)
        return may

    def _wrong(self, one: Asked) -> int:
        if self.digests == "chunks":
            return CHUNK  # that it fell into, with what was here of it already
        return max(one.sent, len(self.body))


def cells(case: Case) -> Sequence[Cell]:
    """All of them that make sense for `case`."""
    lasts: Sequence[Lasts] = ("passing", "lasting") if case.then or case.befall else ("passing",)
    ways: Sequence[tuple[int, Digests]] = ((1, "whole"), (6, "sized"), (1, "chunks"), (6, "chunks"))
    mirrors: Sequence[Mirror] = ("alone", "mirrored")
    return [
        Cell(files=files, digests=digests, mirror=mirror, lasts=last)
        for (files, digests), mirror, last in itertools.product(ways, mirrors, lasts)
    ]


def matrix(cases: Sequence[Case]) -> Sequence[tuple[Case, Cell]]:
    """Every cell of every case, for parametrize."""
    return [(case, cell) for case in cases for cell in cells(case)]
