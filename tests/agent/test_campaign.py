"""Runs against mirrors with many faults at once, by chance: each ends with the right bytes, without long waits.

`pytest --full tests/agent/test_campaign.py` has a hundred seeds and prints what became of each.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.chance import Mirrors, mirrors
from fakes.node import FakeNode
from fakes.transfers import cut
from pxe_fetch.contract.commands import Exit

MiB = 1 << 20
CHUNK = MiB // 2
BODY = random.Random(81).randbytes(16 * MiB)
DIGEST = hashlib.sha256(BODY).digest()
FEW, ALL = (0, 2, 3, 4), range(100)  # the few have one, two and three mirrors
AT_ONCE = 8  # runs side by side: they wait for most of their time
READ = 3.0  # seconds of `timeouts.read`
STALLED = 64 * 1024  # bytes: time in which fewer come is a stall, though a line of 1 KiB/s is not silent
STARTS = 6  # StartLimitBurst of units/pxe-fetch.service
RESTARTED = {Exit.NETWORK, Exit.BUG, Exit.IO, Exit.DEADLINE, Exit.INTEGRITY}  # all but its RestartPreventExitStatus
LONGEST = 300  # seconds of one run: it hangs


@dataclass(frozen=True, kw_only=True)
class Told:
    """What became of one seed."""

    seed: int
    way: str
    mirrors: int
    codes: Sequence[int]  # of each run
    right: bool
    wrong: bool  # bytes at the destination that are not the file's
    seconds: float
    stall: float  # seconds, the longest of all its runs
    received: int  # bytes that the mirrors have sent
    faults: Mapping[str, int]

    def __str__(self) -> str:
        faults = ", ".join(f"{number} {what}" for what, number in sorted(self.faults.items()))
        codes = " ".join(str(int(code)) for code in self.codes)
        return (
            f"{self.seed:4} {self.way:6} {self.mirrors} {codes:8} {'right' if self.right else 'NOT RIGHT':9} "
            f"{self.seconds:5.1f} s  stall {self.stall:4.1f} s  {self.received / MiB:5.1f} MiB  {faults}"
        )


def fetch(seed: int, *, way: str, folder: Path) -> Told:
    """Run as the unit does, until it is done."""
    node = FakeNode(folder=folder)
    folder.mkdir()
    node.boot_with("quiet")
    with mirrors(BODY, seed=seed) as servers:
        file = folder / "fetch.yaml"
        file.write_text(configuration(node, servers, way=way))
        codes: list[int] = []
        stall, began = 0.0, time.monotonic()
        while not codes or (codes[-1] in RESTARTED and len(codes) < STARTS):
            process = node.start("run", "--config", str(file))
            stall = max(stall, longest_stall(process, servers))
            _, err = process.communicate()
            (folder / f"run-{len(codes)}").write_text(err)
            codes.append(process.returncode)
        seconds = time.monotonic() - began
        found = node.out / "m"
        right = found.exists() and hashlib.sha256(found.read_bytes()).digest() == DIGEST
        return Told(
            seed=seed,
            way=way,
            mirrors=len(servers.servers),
            codes=codes,
            right=right,
            wrong=found.exists() and not right,
            seconds=seconds,
            stall=stall,
            received=servers.sent(),
            faults=Counter(servers.happened()),
        )


def configuration(node: FakeNode, servers: Mirrors, *, way: str) -> str:
    entry = dict(node.entry("m", "", BODY, urls=list(servers.urls), size=len(BODY)))
    del entry["url"]
    if way == "chunks":
        del entry["sha256"]
        digests = cut(BODY, chunk=CHUNK).digests
        entry["chunks"] = {
            "size": CHUNK,
            "sha256": [digests[at : at + 32].hex() for at in range(0, len(digests), 32)],
        }
    timeouts = {"connect": "2s", "read": f"{READ:g}s", "min_rate": "64KiB", "min_rate_window": f"{READ:g}s"}
    return node.config(entry, defaults={"timeouts": timeouts, "retry": {"base": "100ms", "max": "2s"}})


def longest_stall(process: subprocess.Popen[str], servers: Mirrors) -> float:
    """Seconds of the run in which a mirror was up, and fewer than STALLED bytes came; ends the run if it hangs."""
    longest = stall = 0.0
    before, began = servers.sent(), time.monotonic()
    last = began
    while process.poll() is None:
        time.sleep(0.02)
        now, sent = time.monotonic(), servers.sent()
        stall += now - last if servers.is_up() and sent else 0.0  # nothing sent: the program is starting
        last = now
        if sent - before >= STALLED:
            longest, stall, before = max(longest, stall), 0.0, sent
        if now - began > LONGEST:
            process.kill()
    # The last bytes are hashed and placed.
    return longest if process.returncode == Exit.DONE else max(longest, stall)


@pytest.mark.parametrize("way", ["whole", "chunks"])
def test_many_faults_at_once_cost_no_byte_and_little_time(
    way: str,
    tmp_path: Path,
    full: bool,  # noqa: FBT001
    capsys: pytest.CaptureFixture[str],
) -> None:
    seeds = ALL if full else FEW
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(lambda seed: fetch(seed, way=way, folder=tmp_path / f"{seed}"), seeds))
    first = sum(one.codes == [Exit.DONE] for one in told)
    longest = max(one.stall for one in told)
    table = "\n".join(str(one) for one in told)
    table += f"\n{way}: {len(told)} seeds, {first} done in the first run, longest stall {longest:.1f} s"
    if full:
        with capsys.disabled():
            print(f"\n{table}")
    assert not [one for one in told if one.wrong], table
    assert all(one.right for one in told), table
    if way == "chunks":
        assert first >= 0.9 * len(told), table
    assert longest <= 2 * READ, table
