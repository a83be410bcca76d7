"""Packs, and other commands, that are cut off by a signal at some moment, and a look at what that leaves behind.

A moment is a delay from the start, a step that the pack announces, or the n-th line of Python that is run in the
modules that make and remove things. For hours of it:

    PYTHONPATH=tests python -m packing.cutting --seconds 600
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from liveos import pxedir, shapes
from packing import roots
from packing.site import Site, small_agent

SHAPES = ("iso", "pxe-dir", "pxe-tar", "directory", "tar", "squashfs")
WAYS = (
    ("--inject", "updates"),
    ("--inject", "rootfs"),
    ("--inject", "rootfs", "--compressor", "zstd"),
    ("--format", "tar"),
    ("--dry-run",),
)
COMMANDS = ("remove", "relocate")  # what is no pack
_OUTPUTS = ("pxe", "pxe.tar", "back", "back.iso")
_BETWEEN = 0.05  # seconds between two signals
_LONGEST = 60.0  # seconds that a pack may take to end

# Raises a signal when the n-th line is run in one of these modules; what happens between two lines is found that way.
_AT_LINE = """\
import os, runpy, signal, sys, threading
left, number = int(os.environ["CUT_AT"]), int(os.environ["CUT_BY"])
files = ("/pxe_pack/output.py", "/pxe_pack/tarball.py", "/pxe_pack/cleanup.py", "/pxe_pack/pack.py",
         "/pxe_pack/tools.py", "/pxe_pack/liveiso/build.py", "/pxe_pack/remove.py", "/pxe_pack/layout/relocate.py",
         "/pxe_pack/inject/original_iso.py", "/pxe_pack/inject/iso_record.py", "/pxe_pack/inject/rewrite.py",
         "/pxe_pack/inject/rootfs.py", "/pxe_pack/inject/updates.py", "/pxe_pack/inject/initrd.py",
         "/tempfile.py", "/shutil.py", "/subprocess.py", "/contextlib.py")
def line(frame, event, _):
    global left
    if event == "line":
        left -= 1
        if left == 0:
            if again := int(os.environ["CUT_AGAIN"]):
                threading.Timer(0.001, os.kill, (os.getpid(), again)).start()
            signal.raise_signal(number)
    return line
def call(frame, event, _):
    name = frame.f_code.co_filename
    return line if name.endswith(files) else None
sys.settrace(call)
sys.argv = ["pxe-pack", *sys.argv[1:]]
try:
    runpy.run_module("pxe_pack", run_name="__main__", alter_sys=False)
finally:
    sys.settrace(None)
    if left > 0:
        print(f"lines: {int(os.environ['CUT_AT']) - left}", file=sys.stderr)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """When a signal comes: that many seconds behind a step (a start of a line; empty: the start), or at a line."""

    step: str = ""
    delay: float = 0.0  # seconds
    line: int = 0  # counted from 1; 0: not at a line


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How a pack ended, and what is left of it."""

    code: int
    told: str  # its stderr
    left: tuple[str, ...]  # files beside the output and below TMPDIR, processes

    def wrong(self, by: signal.Signals, *, twice: bool) -> str:
        """What is wrong with it; empty when nothing is."""
        codes = {0, 128 + by} | ({128 + signal.SIGINT, 128 + signal.SIGTERM} if twice else set())
        too_soon = self.code == -by and "…" not in self.told  # Python was only starting
        if self.left:
            return f"left behind: {', '.join(self.left)}"
        if self.code not in codes and not too_soon:
            return f"exit code {self.code}"
        if "Traceback" in self.told and not too_soon:
            return "a traceback"
        return ""


def cut(site: Site, *ways: str | Path, at: Moment, by: signal.Signals | None, twice: bool = False) -> Cut:
    """Pack at `site`, or run another command, send `by` `at` a moment, and `twice` another soon after.

    Gives what came of it.
    """
    temporary = site.folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    again = (signal.SIGTERM if by == signal.SIGINT else signal.SIGINT) if twice else None
    program = ["-m", "pxe_pack"]
    if at.line:
        environment |= {"CUT_AT": str(at.line), "CUT_BY": str(int(by or 0)), "CUT_AGAIN": str(int(again or 0))}
        program = ["-c", _AT_LINE]
    words = [*map(str, ways)] if ways[:1] and ways[0] in COMMANDS else site.command(*ways)
    command = [sys.executable, *program, *words]
    before, former = _beside(site), _identities(site)
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=site.folder,
        start_new_session=True,
    ) as process:
        lines = list(_until(cast("IO[bytes]", process.stderr), at.step)) if at.step else []
        if by and not at.line:
            time.sleep(at.delay)
            _send(process, by)
        if again and not at.line:
            time.sleep(_BETWEEN)
            _send(process, again)
        try:
            _, told = process.communicate(timeout=_LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)
            _, told = process.communicate()
    left = [f"process {name}" for name in running(process.pid)]
    left += [f"tmp/{path.name}" for path in temporary.iterdir()]
    if process.returncode:
        left += sorted(_beside(site) - before)
        left += ["another output"] if former != _identities(site) else []
    else:
        left += sorted(_beside(site) - before - set(_OUTPUTS))
    return Cut(code=process.returncode, told=(b"".join(lines) + told).decode(), left=tuple(left))


def _until(stream: IO[bytes], step: str) -> Iterator[bytes]:
    for line in stream:
        yield line
        if line.decode().startswith(step):
            return


def _send(process: subprocess.Popen[bytes], by: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, by)


def _identities(site: Site) -> list[int]:
    """The inode numbers of the outputs there are."""
    return [path.stat().st_ino for name in _OUTPUTS if (path := site.folder / name).exists()]


def _beside(site: Site) -> set[str]:
    return {path.name for path in site.folder.iterdir() if path.name not in ("tmp", "fetch.yaml")}


def running(session: int) -> list[str]:
    """The names of what still runs in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition(" (")[2].rpartition(") ")
        except OSError:  # ended meanwhile
            continue
        state, _, _, its_session, *_ = rest.split()
        if int(its_session) == session and state not in "ZX":
            found.append(name)
    return found


def given(shape: str, target: Path, *, tiny: Path, pxe_dir: Path) -> Path:
    """An image of a shape at `target`, made of the tiny ISO and the pxe-dir; they themselves where that is enough."""
    if shape == "iso":
        return tiny
    if shape == "pxe-dir":
        return pxe_dir
    if shape == "pxe-tar":
        pxedir.archive(target, pxe_dir)
    else:
        {"directory": roots.folder, "tar": roots.tar, "squashfs": roots.squashfs}[shape](target, roots.inodes())
    return target


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """A pack that nobody disturbed."""

    steps: tuple[str, ...]  # as they are announced
    seconds: float
    lines: int  # that were run in the modules that make and remove things


def whole(site: Site, *ways: str | Path, between: Callable[[], object] = lambda: None) -> Whole:
    """Pack undisturbed, twice, with `between`. The output stays."""
    began = time.monotonic()
    plain = cut(site, *ways, at=Moment(), by=None)
    seconds = time.monotonic() - began
    between()
    counted = cut(site, *ways, at=Moment(line=1 << 40), by=None)
    assert plain.code == counted.code == 0, plain.told + counted.told
    lines = plain.told.splitlines()
    steps = tuple(line for line in lines if line.endswith("…") or line.startswith("✓"))
    return Whole(steps=steps, seconds=seconds, lines=int(counted.told.rpartition("lines: ")[2]))


def moments(of: Whole, chance: random.Random) -> Iterator[Moment]:
    """Moments of a pack, without end: one by its delay, one behind a step, two at lines."""
    while True:
        yield Moment(delay=chance.uniform(0.05, of.seconds))
        if of.steps:
            step = chance.choice(of.steps).partition(":")[0]
            yield Moment(step=step, delay=chance.choice([0.0, chance.uniform(0, 0.02)]))
        yield Moment(line=chance.randint(1, of.lines))
        yield Moment(line=of.lines - int(chance.expovariate(4 / of.lines)) % of.lines)  # rather towards the end


def main() -> None:
    """Cut packs off until the time is over, and say what was wrong with them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="cutting-") as name:
        folder = Path(name)
        agent = small_agent(folder / "agent")
        tiny = shapes.cached(shapes.SHAPES["tiny"])
        pxe_dir = shapes.cached(replace(shapes.SHAPES["pxe-dir"], contents="tiny"))
        packs: list[tuple[Site, tuple[str | Path, ...], Iterator[Moment]]] = []
        for shape, ways in itertools.product(SHAPES, WAYS):
            place = folder / f"{shape}{''.join(ways)}"
            place.mkdir()
            image = given(shape, place / "given", tiny=tiny, pxe_dir=pxe_dir)
            site = Site(folder=place, image=image, agent=agent)
            ways_here: tuple[str | Path, ...] = (*ways, "--output", place / ("pxe.tar" if "tar" in ways else "pxe"))
            undisturbed = whole(site, *ways_here)
            packs.append((site, ways_here, moments(undisturbed, chance)))
        until = time.monotonic() + options.seconds
        print(f"seed {options.seed}; {len(packs)} kinds of packs", flush=True)
        for number in itertools.count():
            if time.monotonic() > until:
                break
            site, ways_here, when = packs[number % len(packs)]
            at, by = next(when), chance.choice([signal.SIGINT, signal.SIGTERM])
            twice = chance.random() < 1 / 3
            if chance.random() < 1 / 2:  # else over a former output
                clear(site)
            result = cut(site, *ways_here, at=at, by=by, twice=twice)
            counts[f"exit code {result.code}"] += 1
            counts["signals"] += 1 + twice
            if wrong := result.wrong(by, twice=twice):
                counts["wrong"] += 1
                print(
                    f"{site.folder.name}: {at}, {by.name}{' twice' if twice else ''}: {wrong}\n{result.told}",
                    flush=True,
                )
                clear(site)
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))


def clear(site: Site) -> None:
    """Take away the output, and whatever else a pack left."""
    for path in site.folder.iterdir():
        if not path.name.startswith("given") and path.name != "fetch.yaml":
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


if __name__ == "__main__":
    main()
