#!/usr/bin/env python3
"""What the frozen agent weighs and how soon it is done, beside frozen programs that only print, and curl.

    .venv/bin/python tests/bench/bench_start.py [ROUNDS]

Freezes two programs that print one word: by PyInstaller as it comes, and by the agent's own recipe. Then runs all in
alternation and prints medians and ratios. They mean something on a machine that does nothing else: the load is shown,
and the processor's time, which suffers less from neighbours.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.minisign import new_key
from fakes.server import Script, Server
from pxe_pack import freeze
from pxe_pack.console import PlainConsole
from pxe_pack.freeze import recipe
from pxe_pack.freeze.environment import environment_name, read_environment, run_inside

SIGNATURES = ("_sodium.*", "_cffi_backend.*")  # the files of the agent by which signatures are verified
CHECKS = """
import sys, time
from pathlib import Path
from pxe_fetch import signature
folder = Path(sys.argv[1])
keys = signature.read_keys(folder)
body, signed = ((folder / name).read_bytes() for name in ("signed", "signed.minisig"))
began = time.perf_counter()
signature.signer(body, signed, keys=keys)
print(time.perf_counter() - began)
"""
TINY = b"tiny\n"
PRINTS = "import sys\n\n\ndef main():\n    sys.stdout.write('printed\\n')\n\n\nif __name__ == '__main__':\n    main()\n"


@dataclass
class Contender:
    """A command, what has to be removed before each run; seconds that each run took, and used of a processor."""

    name: str
    command: list[str | Path]
    removes: Path | None = None
    took: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    agent = freeze.frozen_agent(cache=freeze.default_cache(), console=PlainConsole())
    # On the environment's file system, whose files a freeze links to.
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=freeze.default_cache()) as name,
        Server({"/tiny": Script(body=TINY)}) as server,
    ):
        work = Path(name)
        weigh(agent, work=work)
        contenders = line_up(agent, work=work, url=server.url("/tiny"))
        print(f"signature check     {signature_check(work):6.2f} ms   (goal 5, the import of libsodium included)")
        print(f"files passed        {files_passed(work):6}      (goal 30, of the agent's own by one artifact by http)")
        print(f"\n{rounds} runs of each in alternation, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs\n")
        race(contenders, rounds=rounds, work=work)
    show(contenders)


def weigh(agent: freeze.FrozenAgent, *, work: Path) -> None:
    """Print sizes and the glibc floor."""
    print(f"agent {agent.version} for {agent.machine}")
    print(f"on disk             {agent.size / 1e6:6.2f} MB   (goal 21)")
    for compressor in ("gzip", "zstd"):
        image = work / f"{compressor}.squashfs"
        options = ("-quiet", "-no-progress", "-noappend", "-comp", compressor)
        subprocess.run(["mksquashfs", agent.path, image, *options], check=True, stdout=subprocess.DEVNULL)
        print(f"in squashfs, {compressor}   {image.stat().st_size / 1e6:6.2f} MB   (goal 7.5)")
    libsodium = sum(file.stat().st_size for name in SIGNATURES for file in agent.path.rglob(name))
    print(f"of it, signatures   {libsodium / 1e6:6.2f} MB   (goal 1.5)")
    print(f"needs glibc         {agent.glibc!s:>6}      (goal 2.34)", flush=True)


def line_up(agent: freeze.FrozenAgent, *, work: Path, url: str) -> list[Contender]:
    """Everything that is run; the first two are what the others are compared with."""
    environment = read_environment(freeze.default_cache() / environment_name(agent.machine))
    if environment is None:
        raise SystemExit("the environment that the agent was frozen in is gone")
    own = work / "own"
    package = own / "sources" / "pxe_fetch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(PRINTS)
    ours = recipe.freeze(package, version="0", work=own, environment=environment)
    root = own / "root"
    (root / "prints.py").write_text(PRINTS)
    pyinstaller = ("python3.11", "-m", "PyInstaller", "--log-level", "ERROR", "--onedir")
    folders = ("--distpath", "/dist", "--workpath", "/build", "--specpath", "/build")
    run_inside(root, *pyinstaller, *folders, "/prints.py", variables={"HOME": "/build"})

    program = agent.path / "pxe-fetch"
    empty = work / "empty.yaml"
    empty.write_text("version: 1\nartifacts: []\n")
    dest = work / "out" / "tiny"
    dest.parent.mkdir()
    digest = hashlib.sha256(TINY).hexdigest()
    artifact = f"  - {{name: tiny, url: '{url}', sha256: {digest}, dest: {dest}}}\n"
    one = work / "one.yaml"
    one.write_text(f"version: 1\nallowed_roots: [{work}]\nartifacts:\n{artifact}")
    curl = shutil.which("curl") or "curl"
    return [
        Contender("prints, PyInstaller as it comes", [root / "dist" / "prints" / "prints"]),
        Contender("prints, our recipe", [ours / "pxe-fetch"]),
        Contender("version", [program, "version"]),
        Contender("status", [program, "status"]),
        Contender("run, nothing to do", [program, "run"]),
        Contender("run, config without artifacts", [program, "run", "--config", empty]),
        Contender("run, one artifact by http", [program, "run", "--config", one], removes=dest),
        Contender("run, that artifact in place", [program, "run", "--config", one]),
        Contender("curl, the same file", [curl, "-sS", "-o", dest, url], removes=dest),
    ]


def signature_check(work: Path) -> float:
    """The median of the milliseconds that a new process takes to check the signature of a configuration of 64 KiB."""
    key = new_key(work / "keys")
    key.sign("# a configuration\n" * 3640)
    command: list[str | Path] = [sys.executable, "-c", CHECKS, key.folder]
    took = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(11)]
    return median(map(float, took)) * 1000


def files_passed(work: Path) -> int:
    """How many files of the agent have a function that runs when it fetches one artifact by http."""
    program, config = Path(__file__).with_name("passes.py"), work / "one.yaml"
    command: list[str | Path] = [sys.executable, program, "run", "--config", config]
    environment = {"PATH": os.defpath, "XDG_RUNTIME_DIR": str(work)}
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(ran.stdout.splitlines()[-1].split()[0])


def race(contenders: list[Contender], *, rounds: int, work: Path) -> None:
    """Run all in turn, `rounds` times, after one turn that warms the page cache."""
    environment = {"PATH": os.defpath, "XDG_RUNTIME_DIR": str(work)}
    for turn in range(rounds + 1):
        for contender in contenders:
            if contender.removes:
                contender.removes.unlink(missing_ok=True)
            began, used = time.perf_counter(), processor_time()
            subprocess.run(contender.command, check=False, capture_output=True, env=environment, cwd="/")
            if turn:
                contender.took.append(time.perf_counter() - began)
                contender.used.append(processor_time() - used)


def processor_time() -> float:
    """Seconds of processor time that our children have used so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(contenders: list[Contender]) -> None:
    """Print the table."""
    peer, own = (median(contender.took) for contender in contenders[:2])
    print(f"{'':32} {'median':>8} {'least':>8} {'CPU':>8}   {'of PyInstaller':>14} {'of our recipe':>13}")
    for contender in contenders:
        middle, least = median(contender.took), min(contender.took)
        ratios = f"{middle / peer:13.2f}x {middle / own:12.2f}x"
        times = " ".join(f"{seconds * 1000:5.1f} ms" for seconds in (middle, least, median(contender.used)))
        print(f"{contender.name:32} {times}   {ratios}")
    print("\ngoals: version 25 ms; one artifact 130 ms")


if __name__ == "__main__":
    main()
