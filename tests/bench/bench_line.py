#!/usr/bin/env python3
"""How long a file takes over a line of 1 Gbit/s, and over one that loses packets, beside curl and aria2c.

    .venv/bin/python tests/bench/bench_line.py [--size MIB] [--lossy-size MIB] [--rounds N] [--agent frozen|venv]

Needs root (or unprivileged user namespaces) and iproute2: server and clients are in network namespaces of their own.
The kernel's token bucket holds the line to its rate. For loss and delay the bench itself carries the packets between
two TUN devices. The server's TCP is cubic, so that 1 % of loss at 20 ms keeps a connection to some Mbit/s, whatever the
line could do: what counts is how many connections there are, and luck, since the losses differ from run to run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import line
from bench.noise import MiB, make_noise
from bench.race import Contender, agent_command, load, race, show
from fakes.nginx import nginx

RATE = 1_000_000_000  # bits a second
WEATHER = line.Weather(rate=RATE, delay=0.020, loss=0.01)
GOAL = 0.15  # seconds more than the line's own time
RETRIES = "5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="MiB over the good line (default: %(default)s)")
    parser.add_argument("--lossy-size", type=int, default=8, help="MiB over the lossy one (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--agent", choices=("frozen", "venv"), default="frozen", help="(default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work (default: %(default)s)")
    given = parser.parse_args()
    agent = agent_command(given.agent)  # may freeze it, for which a network is needed
    line.enter_own_namespace()
    print(f"{given.rounds} rounds in alternation, {given.agent} agent, {load()}")
    with line.rated(rate=RATE) as good:
        size = given.size * MiB
        least = line.seconds(size, rate=RATE)
        print(f"\n1 Gbit/s: {given.size} MiB take the line {least:.3f} s; goal: {least + GOAL:.3f} s")
        measure(agent, good, size=size, rounds=given.rounds, folder=given.folder)
    with line.lossy(WEATHER) as bad:
        print(f"\n1 Gbit/s, {WEATHER.loss:.0%} loss, {WEATHER.delay * 1000:.0f} ms delay: {given.lossy_size} MiB")
        measure(agent, bad, size=given.lossy_size * MiB, rounds=given.rounds, folder=given.folder)


def measure(agent: Sequence[str | Path], way: line.Line, *, size: int, rounds: int, folder: Path) -> None:
    """Run the race over `way`, and print its table."""
    with tempfile.TemporaryDirectory(prefix="pxe-pack-bench-", dir=folder) as name:
        work = Path(name)
        os.environ["RUNTIME_DIRECTORY"] = name
        noise = make_noise(work / "root" / "m", size=size)
        dest = work / "out" / "m"
        dest.parent.mkdir()
        with nginx(work / "nginx", root=work / "root", address=line.SERVER) as server:
            url = server.url("/m")
            whole, pieces = noise.configure(work, url=url, dest=dest)
            aria2c = ["aria2c", "--quiet", "--no-conf", f"--checksum=sha-256={noise.sha256}", "--file-allocation=none"]
            aria2c += ["--allow-overwrite=true", f"--dir={dest.parent}", f"--out={dest.name}"]
            curl = ["curl", "--silent", "--show-error", "--fail", "--retry", RETRIES, "--output", str(dest), url]
            contenders = [
                Contender(name="pxe-fetch", command=[*way.there, *agent, "run", "--config", whole]),
                Contender(name="pxe-fetch, chunk digests", command=[*way.there, *agent, "run", "--config", pieces]),
                Contender(name="curl --retry, not verified", command=[*way.there, *curl]),
                Contender(name="aria2c --checksum", command=[*way.there, *aria2c, url]),
                Contender(name="aria2c -x4 --checksum", command=[*way.there, *aria2c, "-x4", "-s4", "-k1M", url]),
            ]
            race(contenders, rounds=rounds, before=lambda: dest.unlink(missing_ok=True), after=lambda: look(dest, size))
            show(contenders, amount=size)


def look(dest: Path, size: int) -> None:
    """See that all of it came."""
    if dest.stat().st_size != size:
        raise SystemExit(f"{dest.stat().st_size} of {size} bytes came")


if __name__ == "__main__":
    main()
