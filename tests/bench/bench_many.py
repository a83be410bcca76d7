#!/usr/bin/env python3
"""How long many small files take from their configuration to being placed and verified, beside aria2c and curl.

Once as one artifact, the folder that pxe-pack made an archive of (`source: DIR/`), and once as an artifact each.

    .venv/bin/python tests/bench/bench_many.py [--count N] [--size KIB] [--rounds N] [--agent frozen|venv]
                                               [--line MBIT]

Loopback nginx, both sides in a tmpfs, all in alternation. With `--line 1000` the clients are in a network namespace of
their own, behind a line of 1 Gbit/s (needs root, as bench_line.py does): what a node notices of it. aria2c gets its
list with checksums, eight at once; curl verifies nothing. Means something on a machine that does nothing else; the
processors' time suffers less.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import line
from bench.race import Contender, agent_command, load, race, run, show
from fakes.nginx import Nginx, nginx
from liveos import shapes
from packing.folders import CONFIG, EXPORTED, artifact
from packing.site import Site, files_of, small_agent

KiB = 1024
MEGA = 1_000_000
NAMES = "f{:05}"
FOLDER = "pxe-fetch, source: DIR/"
FOLDER_GOAL, SEPARATE_GOAL = 1.5, 0.4  # times as long as ours, aria2c


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="files (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="KiB of each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=[4], nargs="+", help="artifacts at once (default: 4)")
    parser.add_argument("--agent", choices=("frozen", "venv"), default="frozen", help="(default: %(default)s)")
    parser.add_argument("--line", type=int, help="Mbit/s of a line to the server (default: the loopback)")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work (default: %(default)s)")
    given = parser.parse_args()
    agent = agent_command(given.agent)  # may freeze it, for which a network is needed
    if given.line:
        line.enter_own_namespace()
    tiny = shapes.cached(shapes.SHAPES["tiny"])  # may build it
    with (
        line.rated(rate=given.line * MEGA) if given.line else nullcontext() as way,
        tempfile.TemporaryDirectory(prefix="pxe-pack-bench-", dir=given.folder) as name,
    ):
        work = Path(name)
        os.environ["RUNTIME_DIRECTORY"] = name
        digests = make_files(work / "root/files", count=given.count, size=given.size * KiB)
        with nginx(work / "nginx", root=work / "root", address=line.SERVER if way else "127.0.0.1") as server:
            contenders = [
                packed_folder(agent, server=server, image=tiny, work=work),
                *line_up(agent, server=server, digests=digests, work=work, parallel=given.parallel),
            ]
            for contender in contenders:
                contender.command = [*(way.there if way else ()), *contender.command]
            print(f"{given.count} files of {given.size} KiB, {given.rounds} rounds in alternation, {load()}")
            if way:
                least = line.seconds(given.count * given.size * KiB, rate=given.line * MEGA)
                print(f"their bytes take the line of {given.line} Mbit/s {least:.3f} s")
            measure(contenders, server, count=given.count, size=given.size * KiB, rounds=given.rounds, work=work)


def make_files(root: Path, *, count: int, size: int) -> dict[str, str]:
    """Write `count` files of noise; their names and sha256."""
    root.mkdir(parents=True)
    digests = {}
    for number in range(count):
        content = os.urandom(size)
        (root / NAMES.format(number)).write_bytes(content)
        digests[NAMES.format(number)] = hashlib.sha256(content).hexdigest()
    return digests


def packed_folder(agent: Sequence[str | Path], *, server: Nginx, image: Path, work: Path) -> Contender:
    """The agent with the configuration that pxe-pack writes for the folder of all files."""
    site = Site(folder=work / "root", image=image, agent=small_agent(work / "agent"))
    site.pack = {"artifact_url": server.url(f"/pxe/{EXPORTED}/")}
    site.rest = {"artifacts": [artifact("tree", "files/", dest=str(work / "out/tree"))], "allowed_roots": [str(work)]}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pxe_pack", *site.command("--quiet")], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    archive = site.output / EXPORTED / "files.tar.zst"
    print(f"packed in {time.perf_counter() - began:.1f} s: an archive of {archive.stat().st_size:,} bytes")
    config = work / "folder.yaml"
    config.write_bytes(files_of(site.iso)[CONFIG])
    return Contender(name=FOLDER, command=[*agent, "run", "--config", config])


def line_up(
    agent: Sequence[str | Path], *, server: Nginx, digests: Mapping[str, str], work: Path, parallel: Sequence[int]
) -> list[Contender]:
    """The agent with an artifact for each file first, then those it is compared with."""
    out = work / "out"
    ours = []
    for number in parallel:
        artifacts = [
            f"  - {{name: {name}, url: '{server.url(f'/files/{name}')}', sha256: {digest}, dest: {out / name}}}\n"
            for name, digest in digests.items()
        ]
        config = work / f"fetch{number}.yaml"
        head = f"version: 1\nallowed_roots: [{work}]\nparallel: {number}\nartifacts:\n"
        config.write_text(head + "".join(artifacts))
        ours.append(Contender(name=f"pxe-fetch, {number} at once", command=[*agent, "run", "--config", config]))
    listed = work / "aria2c.list"
    listed.write_text(
        "".join(
            f"{server.url(f'/files/{name}')}\n out={name}\n checksum=sha-256={digest}\n"
            for name, digest in digests.items()
        )
    )
    aria2c = ["aria2c", "--quiet", "--no-conf", "-j8", f"--dir={out}", "--file-allocation=none", f"-i{listed}"]
    last = NAMES.format(len(digests) - 1)
    every = f"[{NAMES.format(0)[1:]}-{last[1:]}]"
    curl = ["curl", "--silent", "--parallel", "--parallel-max", "8", server.url(f"/files/f{every}"), "-o", f"{out}/f#1"]
    return [
        *ours,
        Contender(name="aria2c -j8, checksums", command=aria2c),
        Contender(name="curl --parallel, not verified", command=curl),
    ]


def measure(contenders: Sequence[Contender], server: Nginx, *, count: int, size: int, rounds: int, work: Path) -> None:
    """Run the race, and print its table."""
    out = work / "out"

    def before() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

    def after() -> None:
        found = [file.stat().st_size for file in out.rglob("f*")]
        if found != [size] * count:
            raise SystemExit(f"{len(found)} of {count} files came, {sum(found)} of {count * size} bytes")

    race(contenders, rounds=rounds, before=before, after=after)
    folder, separate, *more, aria2c, curl = contenders
    for goal, ours, others in ((FOLDER_GOAL, folder, []), (SEPARATE_GOAL, separate, more)):
        aria2c.goal = goal
        show([ours, *others, aria2c, curl], amount=count * size)
        before()
        asked = len(server.asked())
        run(ours.command)
        requests = (len(server.asked()) - asked) / count
        each = ours.median(lambda cost: cost.processor) / count
        print(f"{ours.name}: {requests:.2f} requests and {each * 1000:.2f} ms of CPU for each file\n")


if __name__ == "__main__":
    main()
