"""How long packing takes beside a plain copy, and beside mksquashfs alone: ratios of one run, on an ISO of 1.5 GiB.

    .venv/bin/python tests/bench/bench_pack.py [--folder DIR] [--size MIB] [--rounds N] [--compressor gzip]

Needs three times the size in DIR, and nothing else to run beside it. The agent is frozen before, so it is cached.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from liveos import shapes, tiny
from packing.site import files_of
from pxe_pack.console import console
from pxe_pack.freeze import default_cache, frozen_agent

MiB = 1 << 20
CHUNK = 24  # MiB of each incompressible file
QUIET = ("-noappend", "-quiet", "-no-progress", "-all-root")
GOAL_UPDATES, GOAL_ROOTFS, GOAL_MEMORY = 1.3, 1.15, 200

CONFIG = """\
version: 1
pack: {{image: {image}, boot_url: "http://10.0.0.1/liveos.iso", output: {output}}}
artifacts: [{{name: m, url: "http://10.0.0.1/m", sha256: "{digest}", dest: /srv/m}}]
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command took: seconds, of the clock and of processors; MiB of the largest process that it had."""

    seconds: float
    processor: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--size", type=int, default=1536, help="MiB of incompressible files (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of copies and updates packs (default: %(default)s)")
    parser.add_argument("--compressor", default="gzip", help="of the root filesystem (default: %(default)s)")
    parser.add_argument("--only", choices=("updates", "rootfs"), help="the part to measure (default: both)")
    given = parser.parse_args()
    agent = frozen_agent(cache=default_cache(), console=console(json_lines=False))
    print(f"agent: {agent.size / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory(prefix="pxe-pack-bench-", dir=given.folder) as name:
        shutil.copytree(agent.path, Path(name, "agent"))  # the cache's may go meanwhile
        print(f"load before: {os.getloadavg()[0]:.1f}; with more than a little, the seconds of the clock mean nothing")
        parts = [given.only] if given.only else ["updates", "rootfs"]
        measure(Path(name), size=given.size, rounds=given.rounds, compressor=given.compressor, parts=parts)


def measure(work: Path, *, size: int, rounds: int, compressor: str, parts: Sequence[str]) -> None:
    """Make the image, and time each way beside what it is to be compared with."""
    tree, root, image = work / "tree", work / "root.squashfs", work / "liveos.iso"
    grow_tree(tree, size)
    alone = run(["mksquashfs", str(tree), str(root), "-comp", compressor, *QUIET])
    shutil.rmtree(tree)
    make_image(image, root, work)
    root.unlink()
    print(f"ISO: {image.stat().st_size / MiB:.0f} MiB; mksquashfs alone: {show(alone)}", flush=True)
    output = work / "pxe"
    (work / "fetch.yaml").write_text(CONFIG.format(image=image, output=output, digest="0" * 64))
    pack = [sys.executable, "-m", "pxe_pack", "--quiet", "--agent-config", str(work / "fetch.yaml")]
    pack += ["--agent", str(work / "agent")]
    if "updates" in parts:
        beside_copies(image, output, [*pack, "--inject", "updates"], rounds=rounds)
    if "rootfs" in parts:
        rewritten = run([*pack, "--inject", "rootfs"], after=lambda: shutil.rmtree(output))
        compare("rootfs", [rewritten], "mksquashfs", [alone], goal=GOAL_ROOTFS)


def beside_copies(image: Path, output: Path, pack: Sequence[str], *, rounds: int) -> None:
    """Time `pack` and `cp` in turns, so that what else happens on the machine meets both."""
    copy = image.with_name("copy.iso")
    plain, synced = ["cp", str(image), str(copy)], ["sh", "-c", '"$@" && sync -f .', "sh"]
    for what, before in (("updates", []), ("updates, until it is on the disk", synced)):
        copies, packs = [], []
        for _ in range(rounds):
            copies.append(run([*before, *plain], after=copy.unlink, where=image.parent))
            packs.append(run([*before, *pack], after=lambda: shutil.rmtree(output), where=image.parent))
        compare(what, packs, "cp", copies, goal=GOAL_UPDATES)


def grow_tree(tree: Path, size: int) -> None:
    """A root filesystem that pxe-pack takes, with `size` MiB of noise and some hundred MB of programs."""
    for inode in tiny.tree():
        path = tree / inode.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if inode.kind == b"5":
            path.mkdir(exist_ok=True)
        elif inode.kind == b"2":
            path.symlink_to(inode.target)
        elif inode.kind == b"0":
            path.write_bytes(inode.data)
    (tree / "srv" / "noise").mkdir()
    for number in range(size // CHUNK):
        (tree / "srv" / "noise" / f"{number}").write_bytes(os.urandom(CHUNK * MiB))
    shutil.copytree("/usr/lib/python3", tree / "usr" / "lib" / "python3", symlinks=True)
    shutil.copytree("/usr/bin", tree / "usr" / "bin", symlinks=True, dirs_exist_ok=True)


def make_image(image: Path, root: Path, work: Path) -> None:
    """The tiny image with another root filesystem."""
    stage = work / "stage"
    for path, content in files_of(shapes.cached(shapes.SHAPES["tiny"])).items():
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).write_bytes(content)
    shutil.copyfile(root, stage / "liveos" / "rootfs.img")
    command = ["xorriso", "-as", "mkisofs", "-V", "CDROM", "-r", "-iso-level", "3", "-o", str(image), str(stage)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(stage)


def run(command: Sequence[str], *, after: Callable[[], object] = lambda: None, where: Path | None = None) -> Cost:
    """The cost of a command that has to succeed; `after` cleans up, and is not counted."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=where)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    after()
    return Cost(seconds=seconds, processor=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss / 1024)


def show(cost: Cost) -> str:
    return f"{cost.seconds:.2f} s ({cost.processor:.2f} of processors), {cost.memory:.0f} MiB in its largest process"


def compare(what: str, ours: list[Cost], other: str, theirs: list[Cost], *, goal: float) -> None:
    """Print medians, their ratio, and the goal."""
    our, their = median(ours), median(theirs)
    ratio = our.seconds / their.seconds
    print(f"{what}: {show(our)}")
    print(f"    {other}: {show(their)}; ratio {ratio:.2f} (goal: {goal})")
    print(f"    memory: goal {GOAL_MEMORY} MiB; seconds of each: {[round(cost.seconds, 2) for cost in ours]}")
    print(f"    of {other}: {[round(cost.seconds, 2) for cost in theirs]}")


def median(costs: list[Cost]) -> Cost:
    return Cost(
        seconds=statistics.median(cost.seconds for cost in costs),
        processor=statistics.median(cost.processor for cost in costs),
        memory=max(cost.memory for cost in costs),
    )


if __name__ == "__main__":
    main()
