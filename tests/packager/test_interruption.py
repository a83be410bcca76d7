"""Packs that are cut off: by a signal at every step, or by a disk that is full in the middle."""

from __future__ import annotations

import json
import os
import pty
import random
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, cast

import pytest

from fakes.waiting import until
from packing import cutting
from packing.site import Site
from pxe_pack.output import staging

Packs = Callable[..., str]

STEPS = [
    ("updates", "Adding updates/"),
    ("updates", "Copying and hashing the root filesystem"),
    ("updates", "✓ Copying and hashing the root filesystem"),
    ("updates", "Exporting the layout"),
    ("updates", "✓ Exporting the layout"),
    ("rootfs", "Grafting the payload"),
    ("rootfs", "Writing the ISO around the root filesystem"),
    ("rootfs", "Copying and hashing the root filesystem"),
    ("rewrite", "Extracting the root filesystem"),
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
    for _ in range(5):
        ended = interrupted(site, how=how, at=at, by=by)
        if ended != 0:
            break
        shutil.rmtree(site.output)  # the pack was over before the signal came
    assert ended == code
    assert not site.leftovers()
    assert not site.output.exists()


SWEPT = [
    ("iso", ("--inject", "updates")),
    ("pxe-dir", ("--inject", "rootfs")),
    ("pxe-tar", ("--dry-run",)),
    ("directory", ("--inject", "rootfs", "--compressor", "zstd")),
    ("tar", ("--format", "tar", "--output", "pxe.tar")),
    ("squashfs", ("--inject", "updates")),
]


@pytest.mark.parametrize(("shape", "ways"), SWEPT)
def test_a_signal_at_any_moment_leaves_nothing(
    site: Site, tiny_pxe_dir: Path, shape: str, ways: tuple[str, ...]
) -> None:
    """Not beside the output, nor in TMPDIR, nor running; an output that was there is what it was."""
    site.image = cutting.given(shape, site.folder / "given", tiny=site.image, pxe_dir=tiny_pxe_dir)
    chance = random.Random(f"{shape} {ways}")
    undisturbed = cutting.whole(site, *ways)
    for number, at in enumerate(islice(cutting.moments(undisturbed, chance), 4)):
        if number == 2:  # the first two come over a former output
            cutting.clear(site)
        by = (signal.SIGINT, signal.SIGTERM)[number % 2]
        twice = number in (1, 2)
        result = cutting.cut(site, *ways, at=at, by=by, twice=twice)
        assert not (wrong := result.wrong(by, twice=twice)), f"{at}, {by.name}: {wrong}\n{result.told}"


def given_layout(site: Site, *ways: str) -> None:
    """A packed layout, as `given`; another with the ISO changed by someone, as `given-changed`."""
    packs_at(site, *ways)
    site.output.rename(site.folder / "given")
    changed = site.folder / "given-changed.iso"
    command = ["xorriso", "-indev", str(site.folder / "given/liveos.iso"), "-outdev", str(changed)]
    subprocess.run([*command, "-boot_image", "any", "replay", "-mkdir", "/more", "--"], check=True, capture_output=True)


def packs_at(site: Site, *ways: str) -> None:
    with site.start("--quiet", *ways) as process:
        _, told = process.communicate()
    assert process.returncode == 0, told


OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # how the layout was packed; what is cut off
    "remove in place": (WAYS["updates"], ("remove", "pxe")),
    "remove to another folder": (("--inject", "initrd"), ("remove", "given", "-o", "back")),
    "remove from an ISO": (WAYS["rootfs"], ("remove", "given/liveos.iso", "-o", "back.iso")),
    "remove without a record": (WAYS["rootfs"], ("remove", "given-changed.iso", "-o", "back.iso")),
    "relocate": (WAYS["updates"], ("relocate", "pxe", "--artifact-url", "http://10.0.0.9/files/")),
    "initrd": (WAYS["updates"], ("--inject", "initrd")),
    "updates over rewrite": (WAYS["rewrite"], ("--inject", "updates", "--image", "given")),
    "rewrite over updates": (WAYS["updates"], (*WAYS["rewrite"], "--image", "given", "--input-digest")),
    "initrd over changed": (WAYS["rootfs"], ("--inject", "initrd", "--image", "given-changed.iso")),
    "archive over initrd": (
        ("--inject", "initrd"), ("--format", "tar", "--output", "pxe.tar", "--image", "given", "--inject", "rootfs")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_signal_at_every_step_of_any_command_leaves_nothing(site: Site, name: str, full: bool) -> None:  # noqa: FBT001  a fixture
    """At each step that is announced, begun and done, and at lines of Python all over the run; at a few, or `full`."""
    packed, ways = OTHERS[name]
    given_layout(site, *packed)

    def afresh() -> None:
        cutting.clear(site)
        shutil.copytree(site.folder / "given", site.output)

    afresh()
    undisturbed = cutting.whole(site, *ways, between=afresh)
    lines = [cutting.Moment(line=undisturbed.lines * number // 5 + 1) for number in range(5)]
    moments = [*(cutting.Moment(step=step.partition(":")[0]) for step in undisturbed.steps), *lines]
    afresh()
    before = contents(site)
    for number, at in enumerate(moments if full else random.Random(name).sample(moments, 4)):
        afresh()
        by = (signal.SIGINT, signal.SIGTERM)[number % 2]
        result = cutting.cut(site, *ways, at=at, by=by)
        assert not (wrong := result.wrong(by, twice=False)), f"{at}, {by.name}: {wrong}\n{result.told}"
        if result.code:
            assert contents(site) == before
    assert undisturbed.lines > 100


def contents(site: Site) -> dict[str, bytes]:
    given = (path for path in site.folder.rglob("*") if path.is_file() and path.parent != site.folder)
    return {path.relative_to(site.folder).as_posix(): path.read_bytes() for path in given}


def test_a_closed_terminal_ends_a_pack(site: Site) -> None:
    assert interrupted(site, how="rewrite", at="Rewriting", by=signal.SIGHUP) == 129
    assert not site.leftovers()


def test_an_ignored_signal_stays_ignored(site: Site) -> None:
    """As nohup(1) has it."""
    command = [sys.executable, "-m", "pxe_pack", *site.command("--inject", "rootfs")]
    with subprocess.Popen(["nohup", *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for line in cast("IO[bytes]", process.stderr):
            if line.startswith(b"Grafting"):
                process.send_signal(signal.SIGHUP)
                break
        process.communicate()
    assert process.returncode == 0
    check_whole(site)


def test_programs_under_way_end_with_a_pack_that_is_killed_outright(site: Site) -> None:
    with site.start(*WAYS["rewrite"]) as process:
        for line in cast("IO[bytes]", process.stderr):
            if line.startswith(b"Writing the ISO"):
                process.kill()
                break
        process.communicate()
    until(lambda: not cutting.running(process.pid))


def test_json_ends_the_step_that_a_signal_came_in(site: Site) -> None:
    with site.start("--json", *WAYS["rewrite"]) as process:
        events = []
        for line in cast("IO[bytes]", process.stdout):
            events.append(json.loads(line))
            if str(events[-1].get("title", "")).startswith("Rewriting"):
                break
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate()
    events += map(json.loads, rest.splitlines())
    assert process.returncode == 130
    assert [event.get("state") for event in events if event.get("title") == events[-2]["title"]][-1] == "failed"
    assert events[-1] == {"event": "say", "text": "interrupted"}


def test_a_terminal_gets_its_cursor_back(site: Site) -> None:
    """Rich hides it while a bar moves."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pxe_pack", *site.command(*WAYS["rewrite"])]
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": ""}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123  EIO: nobody writes any more
            while piece := terminal.read(4096):
                if b"Rewriting" in (shown := shown + piece):
                    process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert b"\x1b[?25l" in shown
    assert shown.endswith(b"\x1b[?25hinterrupted\r\n")


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
    assert done.stderr.rstrip().endswith(
        "hint: free some space, or use --output on another file system"
    )  # and `ls` lists nothing


def test_what_looks_like_a_leftover_and_is_locked_stays(site: Site, packs: Packs) -> None:
    foreign = site.folder / ".pxe.pxe-pack-mine"
    foreign.write_text("not a folder")
    packs()
    assert foreign.read_text() == "not a folder"
    shutil.rmtree(site.output)


def test_a_former_output_that_was_moved_aside_comes_back(site: Site, packs: Packs) -> None:
    """Where folders cannot be exchanged, a kill between two renames leaves it in the staging folder."""
    packs()
    leftover = site.folder / ".pxe.pxe-pack-killed"
    leftover.mkdir()
    site.output.rename(leftover / "previous")
    site.image = site.folder / "gone.iso"
    site.write_config()
    with staging(site.output):
        check_whole(site)
    assert not leftover.exists()


def test_many_packs_at_once_leave_one_whole_output(site: Site) -> None:
    runs = [site.start("--quiet", "--inject", "updates") for _ in range(4)]
    told = [process.communicate() for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0, 0], told
    check_whole(site)
    assert not site.leftovers()
