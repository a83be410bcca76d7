#!/usr/bin/env python3
"""How long a large file takes from its configuration to being placed and verified, beside curl, openssl and aria2c.

    .venv/bin/python tests/bench/bench_fetch.py [--size MIB] [--rounds N] [--scheme http|https] [--agent frozen|venv]

Loopback nginx, both sides in a tmpfs, all in alternation. `--parts` times what any program has to do by itself, too:
receiving, writing, hashing. Means something on a machine that does nothing else; the processors' time suffers less.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.noise import MiB, Noise, make_noise
from bench.race import Contender, agent_command, load, race, run, show
from fakes.certs import Authority
from fakes.nginx import Nginx, nginx

MEMORY, PROCESSOR = 36, 1.95  # MiB; seconds a GiB, by http


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the file (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--scheme", choices=("http", "https"), help="(default: both)")
    parser.add_argument("--agent", choices=("frozen", "venv"), default="frozen", help="(default: %(default)s)")
    parser.add_argument("--parts", action="store_true", help="time receiving, writing and hashing by themselves, too")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work (default: %(default)s)")
    given = parser.parse_args()
    agent = agent_command(given.agent)
    with tempfile.TemporaryDirectory(prefix="pxe-pack-bench-", dir=given.folder) as name:
        work = Path(name)
        os.environ["RUNTIME_DIRECTORY"] = name
        noise = make_noise(work / "root" / "m", size=given.size * MiB)
        authority = Authority(work / "ca")
        issued = authority.issue("localhost", alternative="DNS:localhost,IP:127.0.0.1")
        with nginx(work / "nginx", root=work / "root", certificate=issued, protocols="TLSv1.3") as server:
            print(f"{given.size} MiB, {given.rounds} rounds in alternation, {given.agent} agent, {load()}")
            for scheme in [given.scheme] if given.scheme else ["http", "https"]:
                url = server.url("/m") if scheme == "http" else server.secure_url("/m")
                contenders = line_up(agent, url=url, noise=noise, ca=authority.certificate, work=work)
                if given.parts:
                    contenders += parts(url=url, ca=authority.certificate, work=work)
                measure(contenders, server, scheme=scheme, size=given.size * MiB, rounds=given.rounds, work=work)


def line_up(agent: Sequence[str | Path], *, url: str, noise: Noise, ca: Path, work: Path) -> list[Contender]:
    """The agent first, then those it is compared with, and by how much it is to be quicker."""
    dest, digest = work / "out" / "m", noise.sha256
    whole, pieces = noise.configure(work, url=url, dest=dest, rest=f"tls: {{ca_file: {ca}}}\n")
    curl = f"curl --silent --show-error --fail --cacert {ca} --output {dest} {url}"
    check = f'test "$(openssl dgst -sha256 -r {dest} | cut -d" " -f1)" = {digest}'
    aria2c: list[str | Path] = [
        *("aria2c", "--quiet", f"--checksum=sha-256={digest}", f"--ca-certificate={ca}", "--file-allocation=none"),
        *("--no-conf", "--allow-overwrite=true", f"--dir={dest.parent}", f"--out={dest.name}", url),
    ]
    secure = url.startswith("https:")
    return [
        Contender(name="pxe-fetch", command=[*agent, "run", "--config", whole]),
        Contender(name="pxe-fetch, chunk digests", command=[*agent, "run", "--config", pieces], limit=1.0),
        Contender(name="curl, not verified", command=curl.split(), goal=None if secure else 1.0),
        Contender(name="curl && openssl dgst", command=["sh", "-c", f"{curl} && {check}"], goal=1.2 if secure else 1.8),
        Contender(name="aria2c --checksum", command=aria2c, goal=1.7 if secure else 2.5),
    ]


def parts(*, url: str, ca: Path, work: Path) -> list[Contender]:
    """What cannot be done without, each by itself: none of them does the whole of it."""
    source, dest = work / "root" / "m", work / "out" / "m"
    receive = ["curl", "--silent", "--fail", "--cacert", str(ca), "--output", "/dev/null", url]
    return [
        Contender(name="  only receiving (curl)", command=receive),
        Contender(name="  only reading, writing (dd)", command=["dd", f"if={source}", f"of={dest}", "bs=512K"]),
        Contender(name="  only hashing (openssl)", command=["openssl", "dgst", "-sha256", source]),
    ]


def measure(contenders: Sequence[Contender], server: Nginx, *, scheme: str, size: int, rounds: int, work: Path) -> None:
    """Run the race by `scheme`, and print its table."""
    dest = work / "out" / "m"
    dest.parent.mkdir(exist_ok=True)

    def after() -> None:
        found = dest.stat().st_size if dest.exists() else size
        if found != size:
            raise SystemExit(f"{found} of {size} bytes came")

    race(contenders, rounds=rounds, before=lambda: dest.unlink(missing_ok=True), after=after)
    print(f"\nby {scheme}")
    show(contenders, amount=size)
    dest.unlink(missing_ok=True)
    before = len(server.asked())
    run(contenders[0].command)
    processor = f"{PROCESSOR} CPU s/GiB and " if scheme == "http" else ""
    print(f"requests of pxe-fetch: {len(server.asked()) - before}; goals: {processor}{MEMORY} MiB")
    dest.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
