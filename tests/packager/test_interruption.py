"""Packs that are cut off: by a signal at every step, or by a disk that is full in the middle."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO, cast

import pytest

from packing.site import Site
from pxe_pack.output import being_made

Packs = Callable[..., str]

STEPS = [
    ("updates", "Adding updates/"),
    ("updates", "Copying the root filesystem"),
    ("updates", "✓ Copying the root filesystem"),
    ("updates", "Exporting the layout"),
    ("updates", "✓ Exporting the layout"),
    ("rootfs", "Grafting the payload"),
    ("rootfs", "Writing the ISO around it"),
    ("rootfs", "Copying the root filesystem"),
    ("rewrite", "Taking the root filesystem out"),
    ("rewrite", "Rewriting the root filesystem"),
    ("rewrite", "Comparing"),
    ("rewrite", "Writing the ISO"),
    ("rewrite", "✓ Writing the ISO"),
]
WAYS = {
    "updates": ("--inject", "updates"),
    "rootfs": ("--inject", "rootfs"),
    "rewrite": ("--inject", "rootfs", "--compressor", "zstd"),
}


def interrupted(site: Site, *, how: str, at: str, by: signal.Signals) -> int:
    """The exit code of a pack that gets a signal when it says that it has come to a step."""
    with site.start(*WAYS[how]) as process:
        for line in cast("IO[bytes]", process.stderr):
            if line.decode().startswith(at):
                os.killpg(process.pid, by)
                break
        _, told = process.communicate()
    print(told.decode())  # shown when a test fails
    return process.returncode


def check_whole(site: Site) -> None:
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=site.output, check=True)


@pytest.mark.parametrize(("how", "at"), [STEPS[1], STEPS[6], STEPS[9], STEPS[-1]])
def test_killed_outright(site: Site, packs: Packs, how: str, at: str) -> None:
    interrupted(site, how=how, at=at, by=signal.SIGKILL)
    if site.output.exists():
        check_whole(site)
    packs(*WAYS[how])
    check_whole(site)
    assert not site.leftovers()


@pytest.mark.parametrize(("how", "at"), STEPS)
def test_killed_outright_over_a_former_output(site: Site, packs: Packs, how: str, at: str) -> None:
    packs("--boot-url", "http://10.0.0.1/former.iso")
    interrupted(site, how=how, at=at, by=signal.SIGKILL)
    check_whole(site)
    names = {path.name for path in site.output.glob("*.iso")}
    assert names in ({"former.iso"}, {"liveos.iso"})
    packs()
    check_whole(site)
    assert not site.leftovers()


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("how", "at"), [STEPS[1], STEPS[6], STEPS[9]])
def test_interrupted_and_nothing_is_left(site: Site, how: str, at: str, by: signal.Signals, code: int) -> None:
    assert interrupted(site, how=how, at=at, by=by) == code
    assert not site.leftovers()
    assert not site.output.exists()


def test_interrupted_while_the_archive_is_made(site: Site) -> None:
    """The former archive stays as it is."""
    target = site.folder / "pxe.tar"
    archive = ("--format", "tar", "--output", target)
    with site.start(*archive) as process:
        process.communicate()
    former = target.read_bytes()
    with site.start(*archive, "--boot-url", "http://10.0.0.1/other.iso") as process:
        for line in cast("IO[bytes]", process.stderr):
            if line.decode().startswith("✓ Exporting"):
                os.killpg(process.pid, signal.SIGINT)
                break
        process.communicate()
    assert process.returncode in {0, 130}
    assert process.returncode == 0 or target.read_bytes() == former
    assert not site.leftovers()


def test_another_pack_under_way_is_not_disturbed(site: Site, packs: Packs) -> None:
    with site.start(*WAYS["rewrite"]) as process:
        for line in cast("IO[bytes]", process.stderr):
            if line.startswith(b"Rewriting"):
                break
        os.killpg(process.pid, signal.SIGSTOP)
        packs("--inject", "updates")
        assert len(site.leftovers()) == 1
        os.killpg(process.pid, signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0
    check_whole(site)
    assert not site.leftovers()


def test_a_disk_that_is_full_in_the_middle(site: Site) -> None:
    """Full of inodes, for room for the bytes is checked before."""
    site.write_config()
    target = site.folder / "small"
    target.mkdir()
    pack = [sys.executable, "-m", "pxe_pack", *site.command("--output", target / "pxe")]
    script = f"mount -t tmpfs -o size=64m,nr_inodes=9 tmpfs {shlex.quote(str(target))} && {shlex.join(pack)}; code=$?"
    script += f"; ls -A {shlex.quote(str(target))} >&2; exit $code"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.rstrip().endswith("--output")  # nothing was listed after the hint


def test_what_looks_like_a_leftover_and_is_locked_stays(site: Site, packs: Packs) -> None:
    foreign = site.folder / ".pxe.pxe-pack-mine"
    foreign.write_text("not a folder")
    packs()
    assert foreign.read_text() == "not a folder"
    shutil.rmtree(site.output)


def test_a_former_output_that_was_moved_aside_comes_back(site: Site, packs: Packs) -> None:
    """Where folders cannot be exchanged, a kill between two renames leaves it in the workshop."""
    packs()
    workshop = site.folder / ".pxe.pxe-pack-killed"
    workshop.mkdir()
    site.output.rename(workshop / "former")
    site.image = site.folder / "gone.iso"
    site.write_config()
    with being_made(site.output):
        check_whole(site)
    assert not workshop.exists()


def test_many_packs_at_once_leave_one_whole_output(site: Site) -> None:
    runs = [site.start("--quiet", "--inject", "updates") for _ in range(4)]
    told = [process.communicate() for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0, 0], told
    check_whole(site)
    assert not site.leftovers()
