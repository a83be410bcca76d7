#!/usr/bin/env python3
"""What a node takes to verify the ISO that it has fetched, beside sha256sum of the same file.

    .venv/bin/python tests/bench/bench_iso.py [--size MIB] [--rounds N]

Runs dracut's own livenetroot and pxe-pack's in a LiveOS' unpacked initrd, over http from the loopback, in alternation:
the difference is the verification. The initrd's sha256sum hashes the file that was fetched for comparison.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.noise import MiB, make_noise
from bench.race import load
from fakes.nginx import nginx
from packing.iso_hook import APART, SHELLS, Hook, unpacked_initrd

GOAL = 1.1
_PATH = "/m.iso"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pxe-pack-bench-", dir=given.folder) as name:
        work = Path(name)
        work.chmod(0o755)
        measure(work, size=given.size * MiB, rounds=given.rounds)


def measure(work: Path, *, size: int, rounds: int) -> None:
    """Run all in alternation, and print their medians and the ratio."""
    noise = make_noise(work / "served" / _PATH.lstrip("/"), size=size)
    hook = Hook(root=unpacked_initrd(work), shell=SHELLS["dash"])
    with nginx(work / "nginx", root=work / "served") as server:
        url = server.url(_PATH)
        contenders: dict[str, Callable[[], object]] = {
            "fetched by dracut": lambda: hook.run(url, arguments=""),
            "fetched and verified": lambda: hook.run(url, arguments=f"pxe-fetch.iso.sha256={noise.sha256}"),
            "sha256sum": lambda: hashed(hook.root),  # of what the one before has fetched
        }
        took: dict[str, list[float]] = {name: [] for name in contenders}
        print(f"{size // MiB} MiB, {rounds} rounds in alternation, {load()}")
        for _ in range(rounds):
            for name, run in contenders.items():
                began = time.perf_counter()
                run()
                took[name].append(time.perf_counter() - began)
    middle = {name: median(seconds) for name, seconds in took.items()}
    for name, seconds in middle.items():
        print(f"{name:22} {seconds:8.3f} s")
    verified = [
        both - fetched for fetched, both in zip(took["fetched by dracut"], took["fetched and verified"], strict=True)
    ]
    ratio = median(one / alone for one, alone in zip(verified, took["sha256sum"], strict=True))
    print(f"verification / sha256sum: {ratio:.2f} (goal: {GOAL})")


def hashed(root: Path) -> None:
    """Hash the fetched file by the program in the initrd."""
    program = "/usr/lib/pxe-fetch-iso/sha256sum"
    (path,) = (root / "tmp").glob("*/liveos.iso")
    subprocess.run([*APART, root, program, f"/{path.relative_to(root)}"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
