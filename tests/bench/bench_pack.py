"""What packing costs beside a copy and its digest, and beside mksquashfs alone: ratios of one run, an ISO of 1.5 GiB.

    .venv/bin/python tests/bench/bench_pack.py [--folder DIR] [--size MIB] [--rounds N] [--only PART …]

Parts: `ways` (each way in against `cp ISO out && openssl dgst -sha256 out`, in turns), `rewrite` (a changed compressor
against mksquashfs), `inodes` (a graft into ISOs of 10⁴, 10⁵, 10⁶ inodes), `cache` (a pack that finds its agent frozen),
`again` (a pack over a packed ISO), `help` (`pxe-pack --help`). They print ratios and goals, and give no verdict. Needs
four times the size in DIR, and nothing else to run beside it. The agent is frozen before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from liveos import shapes, tiny
from liveos.specials import Inode
from packager.squashfs.images import empty_files, members, mksquashfs_stream
from packing.site import files_of
from pxe_pack.console import console
from pxe_pack.freeze import default_cache, frozen_agent
from pxe_pack.inject import INJECTORS

MiB = 1 << 20
CHUNK = 24  # MiB of each incompressible file
QUIET = ("-noappend", "-quiet", "-no-progress", "-all-root")
PARTS = ("ways", "rewrite", "inodes", "cache", "again", "help")
# Times a cp of the ISO and its digest; of `rewrite`, times mksquashfs.
GOALS = {"updates": 0.8, "initrd": 0.8, "rootfs": 1.2, "rewrite": 1.1}
GOAL_QUICKER = 100  # times, a graft than mksquashfs
GOAL_MEMORY = 80  # MB, of a pack's largest process
GOAL_HELP = 0.15  # seconds
COPY = 'cp --reflink=never "$1" "$2" && openssl dgst -sha256 "$2"'
MANY = 1000  # files in a directory
POLL = 0.02  # seconds

CONFIG = """\
version: 1
pack: {{image: {image}, boot_url: "http://10.0.0.1/liveos.iso", output: {output}}}
artifacts: [{{name: m, url: "http://10.0.0.1/m", sha256: "{digest}", dest: /srv/m}}]
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command took: seconds, of the clock and of processors; MiB of its largest process, and of its files."""

    seconds: float
    processor: float
    memory: float
    disk: float  # the most that lay at one time in the folder where it worked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--size", type=int, default=1536, help="MiB of incompressible files (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of copies and packs (default: %(default)s)")
    parser.add_argument("--compressor", default="gzip", help="of the root filesystem (default: %(default)s)")
    parser.add_argument("--inodes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="the parts to measure (default: all)")
    given = parser.parse_args()
    agent = frozen_agent(cache=default_cache(), console=console(json_lines=False))
    print(f"agent: {agent.size / 1e6:.1f} MB")
    print(f"load before: {os.getloadavg()[0]:.1f}; with more than a little, the seconds of the clock mean nothing")
    with tempfile.TemporaryDirectory(prefix="pxe-pack-bench-", dir=given.folder) as name:
        # What pip compiles when it installs: a source tree may have none of it.
        os.environ["PYTHONPYCACHEPREFIX"] = f"{name}/bytecode"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        bench = Bench(work=Path(name), rounds=given.rounds, compressor=given.compressor)
        shutil.copytree(agent.path, bench.agent)  # the cache's may go meanwhile
        if "help" in given.only:
            asked = [run([sys.executable, "-m", "pxe_pack", "--help"]).seconds for _ in range(4 * given.rounds)]
            print(f"--help: {statistics.median(asked):.3f} s (goal: {GOAL_HELP}), {min(asked):.3f} at least")
        if parts := [part for part in given.only if part not in ("inodes", "help")]:
            bench.whole_system(given.size, parts)
        if "inodes" in given.only:
            for inodes in given.inodes:
                bench.inodes(given.size, inodes)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A folder to measure in."""

    work: Path
    rounds: int
    compressor: str

    @property
    def agent(self) -> Path:
        return self.work / "agent"

    @property
    def image(self) -> Path:
        return self.work / "liveos.iso"

    @property
    def output(self) -> Path:
        return self.work / "out" / "pxe"

    def pack(self, *arguments: str, cached: bool = False) -> list[str]:
        """The command that packs; with `cached`, its agent comes from the cache."""
        command = [sys.executable, "-m", "pxe_pack", "--quiet", "--agent-config", str(self.work / "fetch.yaml")]
        return [*command, *([] if cached else ["--agent", str(self.agent)]), *arguments]

    def whole_system(self, size: int, parts: Sequence[str]) -> None:
        """Make an image with a system's programs and `size` MiB of noise, and measure `parts` of it."""
        system, root = self.work / "tree", self.work / "root.squashfs"
        grow_tree(system, size)
        alone = run(["mksquashfs", str(system), str(root), "-comp", self.compressor, *QUIET])
        print(f"mksquashfs -comp {self.compressor}: {show(alone)}, {root.stat().st_size / MiB:.0f} MiB", flush=True)
        self.prepare(root)
        if "ways" in parts:
            costs = {how: self.beside_copies(how) for how in INJECTORS if how in GOALS and self.takes(how)}
            print(f"    a graft is {alone.seconds / costs['rootfs'].seconds:.0f} times as quick (goal: {GOAL_QUICKER})")
        if "cache" in parts:
            again = [self.packed("--inject", "updates", cached=True) for _ in range(self.rounds)]
            print(f"updates, with the agent from the cache: {show(median(again))}")
        if "again" in parts:
            self.again()
        if "rewrite" in parts:
            self.rewrites(system, alone)
        shutil.rmtree(system)

    def prepare(self, root: Path) -> None:
        """Make the ISO of the squashfs `root`, which goes, and a configuration."""
        make_image(self.image, root, self.work)
        root.unlink()
        self.output.parent.mkdir(exist_ok=True)
        (self.work / "fetch.yaml").write_text(
            CONFIG.format(image=self.image, output=self.output, digest="0" * 64), encoding="utf-8"
        )
        print(f"ISO: {self.image.stat().st_size / MiB:.0f} MiB", flush=True)

    def takes(self, how: str) -> bool:
        """Whether that way in is right for the image."""
        return not subprocess.run(self.pack("--inject", how, "--dry-run"), capture_output=True, check=False).returncode

    def packed(self, *arguments: str, cached: bool = False, before: Sequence[str] = ()) -> Cost:
        """The cost of a pack, whose output goes at once."""
        command = [*before, *self.pack(*arguments, cached=cached)]
        return run(command, after=lambda: shutil.rmtree(self.output), where=self.output.parent)

    def beside_copies(self, how: str) -> Cost:
        """Time packs and copies in turns, so that what else happens on the machine meets both; gives the pack's cost.

        First in the page cache, then until all is on the disk.
        """
        quick = self._beside_copies(how, after="", before=[])
        self._beside_copies(how, after=", until it is on the disk", before=["sh", "-c", '"$@" && sync -f .', "sh"])
        return quick

    def _beside_copies(self, how: str, *, after: str, before: Sequence[str]) -> Cost:
        copy = self.output.parent / "copy.iso"
        copies, packs = [], []
        plain = ["sh", "-c", COPY, "sh", str(self.image), str(copy)]
        for _ in range(self.rounds):
            copies.append(run([*before, *plain], after=copy.unlink, where=self.output.parent))
            packs.append(self.packed("--inject", how, before=before))
        compare(f"{how}{after}", packs, "cp and openssl dgst", copies, goal=GOALS[how])
        memory = median(packs).memory * MiB / 1e6
        print(f"    memory: {memory:.0f} MB (goal: {GOAL_MEMORY})")
        beyond = median(packs).disk - self.image.stat().st_size / MiB
        print(f"    on the disk beyond the ISO, at most: {beyond:.1f} MiB")
        return median(packs)

    def again(self) -> None:
        """A pack over an ISO that was packed before, which is restored first, beside a pack of the image."""
        packed, first = self.work / "packed.iso", self.pack("--inject", "updates")
        subprocess.run(first, check=True, stdout=subprocess.DEVNULL)
        shutil.move(self.output / "liveos.iso", packed)
        shutil.rmtree(self.output)
        once = [self.packed("--inject", "updates") for _ in range(self.rounds)]
        again = [self.packed("--inject", "updates", "--image", str(packed)) for _ in range(self.rounds)]
        print(f"updates over updates: {show(median(again))}; the image itself: {show(median(once))}")
        packed.unlink()

    def rewrites(self, system: Path, alone: Cost) -> None:
        """A changed compressor, or level: each beside mksquashfs of the same tree with the same."""
        again = self.packed("--compressor", self.compressor, "--level", "9")
        compare(f"rewrite, {self.compressor} 9", [again], "mksquashfs", [alone], goal=GOALS["rewrite"])
        root = self.work / "zstd.squashfs"
        command = ["mksquashfs", str(system), str(root), "-comp", "zstd", "-Xcompression-level", "1", *QUIET]
        zstd = run(command, after=root.unlink)
        quick = self.packed("--compressor", "zstd", "--level", "1")
        compare("rewrite, zstd 1", [quick], "mksquashfs", [zstd], goal=GOALS["rewrite"])
        print(f"    zstd 1 / {self.compressor} 9: {quick.seconds / again.seconds:.2f}")

    def inodes(self, size: int, inodes: int) -> None:
        """Graft into an image of so many inodes, and as large."""
        root = self.work / "root.squashfs"
        noise = (Inode(f"srv/{n}", data=os.urandom(CHUNK * MiB)) for n in range(size // CHUNK))
        folders = [f"many{n:04}" for n in range(inodes // MANY)]
        began = time.monotonic()
        mksquashfs_stream(
            root, chain(members(tiny.tree()), members(noise), empty_files(folders, MANY)), "-comp", self.compressor
        )
        print(f"\n{inodes:,} inodes: mksquashfs took {time.monotonic() - began:.1f} s of a tar stream")
        self.prepare(root)
        self.beside_copies("rootfs")


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
    """The cost of a command that has to succeed; `after` cleans up, and is not counted.

    What lies in `where` is looked at while it runs.
    """
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=where)
    ended, status, disk, memory = 0, 0, 0, 0
    while not ended:
        memory = max(memory, *resident(process.pid))
        if where:
            disk = max(disk, occupied(where))
        time.sleep(POLL)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    after()
    processor = usage.ru_utime + usage.ru_stime
    return Cost(seconds=seconds, processor=processor, memory=memory / 1024, disk=disk / MiB)


def resident(process: int) -> Iterator[int]:
    """KiB of memory that a process and each of its own have had at most. Not ru_maxrss, which is inherited from us."""
    yield 0
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        yield int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield from resident(int(child))


def occupied(folder: Path) -> int:
    """Bytes on the disk that the files below `folder` take now; they come and go meanwhile."""
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                total += Path(name, file).stat().st_blocks * 512
    return total


def show(cost: Cost) -> str:
    return f"{cost.seconds:.2f} s ({cost.processor:.2f} of processors), {cost.memory:.0f} MiB in its largest process"


def compare(what: str, ours: list[Cost], other: str, theirs: list[Cost], *, goal: float) -> None:
    """Print medians, their ratio, and the goal."""
    our, their = median(ours), median(theirs)
    print(f"{what}: {show(our)}")
    print(f"    {other}: {show(their)}; ratio {our.seconds / their.seconds:.2f} (goal: {goal})")
    print(f"    seconds of each: {[round(cost.seconds, 2) for cost in ours]}")
    print(f"    of {other}: {[round(cost.seconds, 2) for cost in theirs]}", flush=True)


def median(costs: list[Cost]) -> Cost:
    return Cost(
        seconds=statistics.median(cost.seconds for cost in costs),
        processor=statistics.median(cost.processor for cost in costs),
        memory=max(cost.memory for cost in costs),
        disk=max(cost.disk for cost in costs),
    )


if __name__ == "__main__":
    main()
