"""How long a graft takes beside a plain copy of the squashfs, and beside mksquashfs of the same tree.

    .venv/bin/python tests/bench/bench_graft.py [--folder DIR] [--size MIB] [--inodes N ...] [--rounds N] [--agent DIR]

Ratios of one run, copies and grafts in turns; no verdict. Needs three times the size in DIR (a tmpfs shows the
processor's part), and nothing else to run beside it. mksquashfs reads the tree as a tar, from a pipe.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from liveos.specials import Inode
from packager.squashfs.images import empty_files, members, mksquashfs_stream
from pxe_pack.squashfs import Addition, NewDirectory, NewFile, NewSymlink, graft, prune

MiB = 1 << 20
NOISE = 16  # MiB of each incompressible file
MANY = 100  # files in a directory
WHEN = 1_700_000_000
INODES = [10_000, 100_000, 1_000_000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--size", type=int, default=512, help="MiB of incompressible files (default: %(default)s)")
    parser.add_argument("--inodes", type=int, nargs="+", default=INODES, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of copies and grafts (default: %(default)s)")
    parser.add_argument("--compressor", default="gzip", help="of the image (default: %(default)s)")
    parser.add_argument("--agent", type=Path, help="a folder to graft; default: 14 MB made up of this Python's modules")
    given = parser.parse_args()
    print(f"{given.size} MiB of noise, {given.compressor}, load {os.getloadavg()[0]:.1f} when it began")
    with tempfile.TemporaryDirectory(prefix="pxe-pack-bench-", dir=given.folder) as name:
        work = Path(name)
        payload = additions(given.agent or made_up(work / "agent"))
        amount = sum(
            len(one.content.read_bytes())
            for one in payload
            if isinstance(one, NewFile) and isinstance(one.content, Path)
        )
        print(f"payload: {len(payload)} additions, {amount / 1e6:.1f} MB")
        for inodes in given.inodes:
            measure(work, payload, inodes=inodes, size=given.size, rounds=given.rounds, compressor=given.compressor)


def measure(work: Path, payload: list[Addition], *, inodes: int, size: int, rounds: int, compressor: str) -> None:
    """Make an image, and time all ways of having it with the payload or as it is."""
    image, copy, out, back = work / "image", work / "copy", work / "out", work / "back"
    made = timed(lambda: mksquashfs_stream(image, stream(inodes=inodes, size=size), "-comp", compressor))

    ways: dict[str, Callable[[], object]] = {
        "cp": lambda: subprocess.run(["cp", "--reflink=never", image, copy], check=True),
        "cp; hash": lambda: copy_and_hash(image, copy),
        "graft": lambda: graft(image, additions=payload, output=out),
        "graft, hashing": lambda: graft(image, additions=payload, output=out, listener=hashlib.sha256().update),
        "prune": lambda: prune(out, output=back),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            # None may find a former file: ext4 writes out at once what takes another's name.
            for left in (copy, back, *([] if name == "prune" else [out])):
                left.unlink(missing_ok=True)
            times[name].append(timed(way))
    for left in (copy, back):
        left.unlink(missing_ok=True)
    base = statistics.median(times["cp"])
    print(
        f"\n{inodes:,} inodes: image {image.stat().st_size / MiB:.0f} MiB, grafted {out.stat().st_size / MiB:.0f} MiB"
    )
    for name, taken in [*times.items(), ("mksquashfs", [made])]:
        median = statistics.median(taken)
        spread = f"{min(taken):.2f} to {max(taken):.2f}"
        print(f"  {name:15} {median:8.3f} s ({spread}) {median / base:8.2f} x cp")
    quicker = made / statistics.median(times["graft"])
    print(f"  mksquashfs / graft: {quicker:.0f}; a graft's peak memory: {memory(image, out):.0f} MiB")
    for left in (image, out):
        left.unlink()


def timed(what: Callable[[], object]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def copy_and_hash(image: Path, copy: Path) -> None:
    subprocess.run(["cp", "--reflink=never", image, copy], check=True)
    with copy.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def memory(image: Path, out: Path) -> float:
    """MiB that a process of its own has at most when it grafts a small file."""
    program = (
        "import sys; from pathlib import Path; from pxe_pack.squashfs import NewFile, graft\n"
        "small = [NewFile(path='x', mode=0, mtime=0, content=b'')]\n"
        "graft(Path(sys.argv[1]), additions=small, output=Path(sys.argv[2]))\n"
        # Not ru_maxrss, which a child inherits from the process that started it.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program, image, out], check=True, capture_output=True)
    return int(done.stdout) / 1024


def stream(*, inodes: int, size: int) -> Iterator[bytes]:
    """A tar of `size` MiB of noise and of directories of small files, `inodes` in all."""
    yield from members(Inode(f"noise{number}", data=os.urandom(NOISE * MiB)) for number in range(size // NOISE))
    yield from empty_files([f"d{number:05}" for number in range(inodes // (MANY + 1))], MANY)


def made_up(folder: Path) -> Path:
    """A folder as large as a frozen agent, with the like of what is in one."""
    folder.mkdir()
    left = 14_000_000
    for path in sorted(Path(os.__file__).parent.rglob("*.pyc"), key=lambda path: -path.stat().st_size):
        data = path.read_bytes()
        (folder / f"{left}{path.name}").write_bytes(data)
        left -= len(data)
        if left < 0:
            break
    return folder


def additions(folder: Path) -> list[Addition]:
    """A folder's files as additions below usr/lib/pxe-fetch, with a unit beside."""
    found: list[Addition] = [
        NewDirectory(path=path, mode=0o755, mtime=WHEN) for path in ("usr", "usr/lib", "usr/lib/pxe-fetch", "etc")
    ]
    found.append(NewFile(path="etc/pxe-fetch.yaml", mode=0o644, mtime=WHEN, content=b"version: 1\n"))
    for path in sorted(folder.rglob("*")):
        name = f"usr/lib/pxe-fetch/{path.relative_to(folder)}"
        if path.is_symlink():
            found.append(NewSymlink(path=name, mode=0o777, mtime=WHEN, target=str(path.readlink())))
        elif path.is_dir():
            found.append(NewDirectory(path=name, mode=0o755, mtime=WHEN))
        else:
            found.append(NewFile(path=name, mode=path.stat().st_mode & 0o777, mtime=WHEN, content=path))
    return found


if __name__ == "__main__":
    main()
