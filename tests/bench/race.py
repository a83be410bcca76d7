"""Commands that do the same, run in turns: what each took, and how many times longer than ours the others did."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pxe_pack import freeze
from pxe_pack.console import PlainConsole

GiB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command took: seconds, of the clock and of processors; MiB that the largest of its processes had."""

    seconds: float
    processor: float
    memory: float


@dataclass(kw_only=True)
class Contender:
    """A command, and how many times longer than ours it is to take: at least (`goal`), or at most (`limit`)."""

    name: str
    command: Sequence[str | Path]
    goal: float | None = None
    limit: float | None = None
    costs: list[Cost] = field(default_factory=list)

    def median(self, of: Callable[[Cost], float]) -> float:
        return statistics.median(of(cost) for cost in self.costs)


def agent_command(which: str) -> list[str | Path]:
    """The agent: `frozen`, as a node has it, or `venv`, as it lies in the sources."""
    if which == "venv":
        return [sys.executable, "-m", "pxe_fetch"]
    frozen = freeze.frozen_agent(cache=freeze.default_cache(), console=PlainConsole())
    return [frozen.path / "pxe-fetch"]


def race(
    contenders: Sequence[Contender], *, rounds: int, before: Callable[[], None], after: Callable[[], None]
) -> None:
    """Run all in turns, back and forth, `rounds` times after one that is not counted.

    `before` and `after` each run clean up and look at what came; they are not timed.
    """
    for turn in range(rounds + 1):
        for contender in contenders if turn % 2 else reversed(contenders):
            before()
            cost = run(contender.command)
            after()
            if turn:
                contender.costs.append(cost)


def run(command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> Cost:
    """The cost of a command that has to succeed. What it writes is shown only if it does not."""
    with tempfile.NamedTemporaryFile() as memory, tempfile.TemporaryFile() as output:
        # A process inherits the peak memory of the one that started it; time(1) is small.
        timed = ["/usr/bin/time", "--quiet", "--format=%M", f"--output={memory.name}", *command]
        began = time.perf_counter()
        process = subprocess.Popen(timed, stdout=output, stderr=output, env=environment or _environment(), cwd="/")
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace")[-4000:])
            raise SystemExit(f"{' '.join(map(str, command))[:200]} ended with {process.returncode}")
        peak = int(memory.read()) / 1024
    return Cost(seconds=seconds, processor=usage.ru_utime + usage.ru_stime, memory=peak)


def _environment() -> dict[str, str]:
    """A plain one; the agent's state file goes where the bench's files go."""
    return {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": os.environ.get("RUNTIME_DIRECTORY", tempfile.gettempdir())}


def load() -> str:
    """How busy the machine is: with more than a little, the seconds of the clock mean nothing."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


def show(contenders: Sequence[Contender], *, amount: int) -> None:
    """Print the table. Ratios are those of each round's pair with the first, ours; `amount`: bytes of a run."""
    ours = contenders[0]
    print(
        f"{'':30} {'seconds (least to most)':>25} {'CPU s':>7} {'CPU s/GiB':>9} {'MiB':>5}   {'of ours, in pairs':>22}"
    )
    for contender in contenders:
        took = [cost.seconds for cost in contender.costs]
        processor = contender.median(lambda cost: cost.processor)
        spread = f"{statistics.median(took):7.3f} ({min(took):.3f} to {max(took):.3f})"
        memory = max(cost.memory for cost in contender.costs)
        beside = ""
        if contender is not ours:
            ratios = sorted(
                theirs.seconds / our.seconds for theirs, our in zip(contender.costs, ours.costs, strict=True)
            )
            goal = f", goal {contender.goal:.1f}" if contender.goal else ""
            goal += f", at most {contender.limit:.1f}" if contender.limit else ""
            beside = f"{statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}){goal}"
        each = processor * GiB / amount
        print(f"{contender.name:30} {spread:>25} {processor:7.2f} {each:9.2f} {memory:5.0f}   {beside}", flush=True)
