"""One cell of the fault matrix tried: a real run of the agent, and what must hold whatever happens.

Each destination is absent or right, and nothing else is left there but part files to be resumed; what came twice is no
more than fakes.cells allows; the exit code is that of the cause. Whatever a failed run left, the next one finishes
with it.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from fakes.cells import CHUNK, Case, Cell
from fakes.exchange import PIECE
from fakes.node import Entry, FakeNode, Ran
from fakes.server import Script, Server
from fakes.transfers import cut

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


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A node, and a server that does to it what the case says, perhaps beside a healthy one."""

    case: Case
    cell: Cell
    node: FakeNode
    tls: ssl.SSLContext | None = None  # the faulty server's
    ca_file: Path | None = None

    @property
    def names(self) -> Sequence[str]:
        return [f"m{number}" for number in range(self.cell.files)]

    def run(self) -> None:
        """The run, and where it failed the run after it; the judgement of both."""
        case, cell = self.case, self.cell
        lasts = cell.lasts == "lasting"
        faults = case.before if lasts else (*case.before, *case.passing)
        healthy = {f"/{name}": Script(body=cell.body) for name in self.names}
        faulty = {path: Script(body=cell.body, faults=faults, then=case.then if lasts else None) for path in healthy}
        self._begin()
        with Server(faulty, tls=self.tls, watches=True) as bad, Server(healthy, watches=True) as good:
            mirrors = [bad, good] if cell.mirror == "mirrored" else [bad]
            with case.befall(bad) if case.befall else nullcontext():
                gives_up = cell.is_left_alone() and case.cause is not None
                runs = [self._fetch(mirrors, timeouts=QUICK if case.slow else PATIENT, gives_up=gives_up)]
            self._judge(runs[0])
            if runs[0].code:
                bad.scripts |= healthy
                runs.append(self._fetch([bad], timeouts=PATIENT, gives_up=False))
                assert runs[1].code == 0, runs[1].err
                self._check_files()
        for name in self.names:
            self._weigh(name, runs, mirrors)

    def _begin(self) -> None:
        """What an earlier run has left."""
        if here := self.cell.here(self.case):
            self.node.out.mkdir()
            for name in self.names:
                (self.node.out / f".{name}.pxe-fetch-part").write_bytes(self.cell.body[:here])

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
        body = self.cell.body
        urls = [server.url(f"/{name}") for server in servers]
        entry = dict(self.node.entry(name, "", body, urls=urls))
        del entry["url"]
        if self.cell.digests != "whole":
            entry["size"] = len(body)
        if self.cell.digests == "chunks":
            del entry["sha256"]
            digests = cut(body, chunk=CHUNK).digests
            listed = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
            entry["chunks"] = {"size": CHUNK, "sha256": listed}
        return entry

    def _judge(self, ran: Ran) -> None:
        cause = self.cell.cause(self.case)
        assert (ran.code, ran.state["cause"]) == (EXITS[cause], cause), ran.err
        assert "Traceback" not in ran.err
        self._check_files()
        for name in self.names:
            told = ran.artifact(name)
            assert told["cause"] == cause
            assert told["phase"] == ("failed" if cause else "placed")

    def _check_files(self) -> None:
        """Each destination is absent or right; beside them only the parts of those that are absent."""
        body = self.cell.body
        for file in self.node.files():
            name = file.removeprefix(".").removesuffix(".pxe-fetch-part")
            assert name in self.names
            if name == file:
                assert (self.node.out / file).read_bytes() == body
            else:
                assert not (self.node.out / name).exists()
                assert (self.node.out / file).stat().st_size <= len(body)

    def _weigh(self, name: str, runs: Sequence[Ran], servers: Sequence[Server]) -> None:
        """What came for one file: as the agent told it, and as those saw it who sent it."""
        asked = [one for server in servers for one in server.asked_for(f"/{name}")]
        for one in asked:
            first, _, last = (one.range or "").removeprefix("bytes=").partition("-")
            assert not last or int(first) <= int(last), f"{one.range} has no bytes"
        taken, sent = sum(one.taken for one in asked), sum(one.sent for one in asked)
        received = sum(_received(ran, name) for ran in runs)
        assert taken <= received <= sent, f"{received} bytes of {name} counted, of {sent} at least {taken} read"
        missing = len(self.cell.body) - self.cell.here(self.case)
        may = self.cell.twice(self.case, asked, failed=len(runs) > 1)
        assert received - missing <= may, f"{received - missing} bytes of {name} came twice, and {may} may"
        # Who goes away in the middle of an answer leaves what was on its way to it.
        left = PIECE * sum(one.taken < one.sent for one in asked)
        assert sent - missing <= may + left, (
            f"{sent - missing} bytes of {name} were sent twice, and {may + left} may be"
        )


def _received(ran: Ran, name: str) -> int:
    count = ran.artifact(name)["bytes_received"]
    assert isinstance(count, int)
    return count
