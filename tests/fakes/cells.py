"""One cell of the fault matrix: a fault, a way to fetch, a real run of the agent, and what must hold whatever happens.

In every cell: each destination is absent or right, and nothing else is left there but part files to be resumed; what
was fetched twice is no more than a chunk (with a digest of the whole: nothing) for each fault, but where the case names
a reason; the exit code is that of the cause. And whatever a failed run left, the next one finishes with it.
"""

from __future__ import annotations

import itertools
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fakes.exchange import Fault
from fakes.node import Entry, FakeNode, Ran
from fakes.server import Script, Server
from fakes.transfers import cut

CHUNK = 64 * 1024
BODY = random.Random(2).randbytes(5 * CHUNK + 12_345)
EXITS = {
    None: 0,
    "network": 69,
    "not-found": 69,
    "range": 69,
    "deadline": 75,
    "integrity": 76,
    "policy": 77,
    "refused": 77,
}
PATIENT = {"connect": "5s", "read": "10s"}
QUICK = {"connect": "1s", "read": "100ms", "min_rate": "1KiB", "min_rate_window": "200ms"}

Digests = Literal["whole", "sized", "chunks"]  # a digest of the whole, the same and the size, a digest a chunk
Mirror = Literal["alone", "mirrored"]
Lasts = Literal["passing", "lasting"]
Befall = Callable[[Server], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the first requests for each file meet (`passing`), and what every one does where it lasts (`then`)."""

    name: str
    passing: Sequence[Fault] = ()
    then: Fault | None = None  # None: it would be no other fault if it lasted
    cause: str | None = None  # how it ends if it lasts, and nobody else has the file
    once: str | None = None  # how it ends if it passes: not None where even one such answer is final
    chunked: str | None = "same"  # `cause` where there are chunk digests
    sized: str | None = "same"  # `cause` where the size is known
    slow: bool = False  # it takes a timeout to notice
    again: float = 0.0  # part of the file that comes again because of it: what came before cannot be used, and why
    again_mirrored: float | None = None  # the same where a mirror is there that can go on; None: the same
    again_chunked: float = 0.0  # the same where there are chunk digests, beside a chunk for each fault
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

    def cause(self, case: Case) -> str | None:
        """How the run has to end."""
        if self.mirror == "mirrored":
            return None
        if self.lasts == "passing":
            return case.once
        if self.digests == "chunks" and case.chunked != "same":
            return case.chunked
        if self.digests != "whole" and case.sized != "same":
            return case.sized
        return case.cause

    def again(self, case: Case, *, asked: int) -> int:
        """Bytes of one file that may come twice, after so many requests for it that met the fault."""
        if self.digests == "chunks":
            return int(case.again_chunked * len(BODY)) + asked * CHUNK
        share = case.again
        if self.mirror == "mirrored" and case.again_mirrored is not None:
            share = case.again_mirrored
        return int(share * len(BODY)) + 1


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


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A node, and a server that does to it what the case says, perhaps beside a healthy one."""

    case: Case
    cell: Cell
    node: FakeNode
    tls: ssl.SSLContext | None = None  # the faulty server's
    ca_file: Path | None = None
    names: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", [f"m{number}" for number in range(self.cell.files)])

    def run(self) -> None:
        """The run, the judgement of it, and where it failed the run after it."""
        case, cell = self.case, self.cell
        then = case.then if cell.lasts == "lasting" else None
        faults = case.passing if cell.lasts == "passing" or case.again or not case.then else ()
        healthy = {f"/{name}": Script(body=BODY) for name in self.names}
        with (
            Server({path: Script(body=BODY, faults=faults, then=then) for path in healthy}, tls=self.tls) as bad,
            Server(healthy) as good,
        ):
            mirrors = [bad, good] if cell.mirror == "mirrored" else [bad]
            with case.befall(bad) if case.befall else nullcontext():
                gives_up = cell.lasts == "lasting" and cell.mirror == "alone" and case.cause is not None
                ran = self._fetch(mirrors, timeouts=QUICK if case.slow else PATIENT, gives_up=gives_up)
            self._judge(ran, bad)
            if ran.code:
                bad.scripts |= healthy
                again = self._fetch([bad], timeouts=PATIENT, gives_up=False)
                assert again.code == 0, again.err
                self._check_files()
                if not case.once and not case.again and not case.again_chunked:
                    for name in self.names:
                        both = _received(ran, name) + _received(again, name)
                        asked = len(bad.asked_for(f"/{name}"))
                        assert both <= len(BODY) + cell.again(case, asked=asked)

    def _fetch(self, servers: Sequence[Server], *, timeouts: Mapping[str, str], gives_up: bool) -> Ran:
        retry = {
            "attempts_without_progress": 2 if gives_up else 50,
            "base": "1ms",
            "max": "10ms",
            "retry_after_max": "5ms",
            "deadline": "400ms" if self.case.cause == "deadline" and gives_up else "60s",
        }
        defaults = {"mirror_order": "listed", "retry": retry, "timeouts": timeouts}
        tls = {"tls": {"ca_file": str(self.ca_file)}} if self.ca_file else {}
        entries = [self._entry(name, servers) for name in self.names]
        return self.node.run_config(*entries, defaults=defaults, parallel=6, **tls)

    def _entry(self, name: str, servers: Sequence[Server]) -> Entry:
        urls = [server.url(f"/{name}") for server in servers]
        entry = dict(self.node.entry(name, "", BODY, urls=urls))
        del entry["url"]
        if self.cell.digests != "whole":
            entry["size"] = len(BODY)
        if self.cell.digests == "chunks":
            del entry["sha256"]
            digests = cut(BODY, chunk=CHUNK).digests
            listed = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
            entry["chunks"] = {"size": CHUNK, "sha256": listed}
        return entry

    def _judge(self, ran: Ran, bad: Server) -> None:
        cause = self.cell.cause(self.case)
        assert (ran.code, ran.state["cause"]) == (EXITS[cause], cause), ran.err
        assert "Traceback" not in ran.err
        self._check_files()
        for name in self.names:
            told = ran.artifact(name)
            assert told["cause"] == cause
            assert told["phase"] == ("failed" if cause else "placed")
            asked = bad.asked_for(f"/{name}")
            here = told["bytes"]
            assert isinstance(here, int)
            twice = _received(ran, name) - here
            assert twice <= self.cell.again(self.case, asked=len(asked)), f"{twice} bytes of {name} came twice"

    def _check_files(self) -> None:
        """Each destination is absent or right; beside them only the parts of those that are absent."""
        for file in self.node.files():
            name = file.removeprefix(".").removesuffix(".pxe-fetch-part")
            assert name in self.names
            if name == file:
                assert (self.node.out / file).read_bytes() == BODY
            else:
                assert not (self.node.out / name).exists()
                assert (self.node.out / file).stat().st_size <= len(BODY)


def _received(ran: Ran, name: str) -> int:
    count = ran.artifact(name)["bytes_received"]
    assert isinstance(count, int)
    return count
