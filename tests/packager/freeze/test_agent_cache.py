"""The cache of frozen agents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site
from pxe_pack import cli, freeze
from pxe_pack.freeze.agent import MANIFEST, PROGRAM
from pxe_pack.freeze.cache import cache_key
from pxe_pack.freeze.environment import Environment

MAKER = """
import shutil, sys, time
from pathlib import Path
from pxe_pack.console import PlainConsole
from pxe_pack.freeze.agent import write_manifest
from pxe_pack.freeze.cache import cached

def make(work):
    with Path(sys.argv[2]).open("a") as file:
        file.write("made\\n")
    time.sleep(0.3)
    tree = work / "dist" / "pxe-fetch"
    (tree / "_internal").mkdir(parents=True)
    shutil.copy("/bin/true", tree / "pxe-fetch")
    write_manifest(tree, version="1")
    return tree

agent = cached("key", cache=Path(sys.argv[1]), make=make, console=PlainConsole(), title="Making")
print(agent.digest)
"""


class Cache:
    """A cache whose entries another program of ours makes, in a moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cache"
        self.log = folder / "log"

    def start(self) -> subprocess.Popen[str]:
        arguments = [str(self.folder), str(self.log)]
        command = [sys.executable, "-c", MAKER, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self) -> tuple[str, str]:
        """The digest, and what was said on the way."""
        digest, said = self.start().communicate(timeout=60)
        return digest, said

    @property
    def made(self) -> int:
        return self.log.read_text().count("made")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_second_time_takes_what_is_there(cache: Cache) -> None:
    first, _ = cache.ask()
    before = {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*") if path.is_file()}
    again, said = cache.ask()
    assert again == first
    assert said == ""
    assert cache.made == 1
    assert {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*") if path.is_file()} == before


def test_two_at_once_freeze_once(cache: Cache) -> None:
    both = [cache.start(), cache.start()]
    digests = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(digests) == 1
    assert cache.made == 1
    assert sorted(path.name for path in cache.folder.iterdir()) == ["key", "lock"]


@pytest.mark.parametrize("damage", ["changed", "removed", "added", "mode", "manifest"])
def test_a_damaged_entry_is_made_anew(cache: Cache, damage: str) -> None:
    first, _ = cache.ask()
    tree = cache.folder / "key" / PROGRAM
    match damage:
        case "changed":
            data = bytearray((tree / PROGRAM).read_bytes())
            data[-1] ^= 1
            (tree / PROGRAM).write_bytes(data)
        case "removed":
            (tree / PROGRAM).unlink()
        case "added":
            (tree / "_internal" / "sitecustomize.py").write_text("import os\n")
        case "mode":
            (tree / PROGRAM).chmod(0o644)
        case "manifest":
            (tree / MANIFEST).write_text("{")
    again, said = cache.ask()
    assert "damaged" in said
    assert again == first
    assert cache.made == 2
    assert freeze.load_agent(tree).digest == first.strip()


def test_one_killed_while_freezing_leaves_nothing_behind_for_long(cache: Cache) -> None:
    (cache.folder / "new-abandoned" / "entry").mkdir(parents=True)
    cache.ask()
    assert sorted(path.name for path in cache.folder.iterdir()) == ["key", "lock"]


def test_long_unused_entries_go_when_there_are_many(cache: Cache) -> None:
    for number in range(8):
        old = cache.folder / f"old{number}"
        old.mkdir(parents=True)
        os.utime(old, (number, number))
    recent = cache.folder / "recent"
    recent.mkdir()
    cache.ask()
    assert sorted(path.name for path in cache.folder.iterdir()) == ["key", "lock", "old6", "old7", "recent"]


def test_any_change_of_the_sources_or_of_debians_packages_is_another_key(tmp_path: Path) -> None:
    sources = tmp_path / "pxe_fetch"
    sources.mkdir()
    (sources / "a.py").write_text("x = 1\n")
    keys = {cache_key(sources, packages=["libssl3_3.0.1"])}
    (sources / "a.py").write_text("x = 2\n")
    keys.add(cache_key(sources, packages=["libssl3_3.0.1"]))
    (sources / "a.py").rename(sources / "b.py")
    keys.add(cache_key(sources, packages=["libssl3_3.0.1"]))
    keys.add(cache_key(sources, packages=["libssl3_3.0.2"]))
    assert len(keys) == 4
    (sources / "__pycache__").mkdir()
    (sources / "__pycache__" / "b.pyc").write_bytes(b"")
    assert cache_key(sources, packages=["libssl3_3.0.1"]) in keys


def test_a_cache_in_a_folder_for_everybody_is_ones_own(cache: Cache) -> None:
    """As in /tmp: there nobody can rename what is another's."""
    cache.folder.parent.chmod(0o1777)
    digest, said = cache.ask()
    assert digest, said
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert cache.ask() == (digest, "")


SOMEONE = 64_243  # no user of this machine


def with_mode(path: str, mode: int) -> Callable[[Path], None]:
    return lambda base: (base / path).chmod(mode)


def of_another(path: str) -> Callable[[Path], None]:
    return lambda base: os.chown(base / path, SOMEONE, SOMEONE)


def by_a_link(base: Path) -> None:
    (base / "real").mkdir()
    (base / "real").chmod(0o777)
    (base / "pxe-pack").rename(base / "real" / "pxe-pack")
    (base / "pxe-pack").symlink_to(base / "real" / "pxe-pack")


def of_a_group(base: Path) -> None:
    os.chown(base / "pxe-pack" / "agent", -1, SOMEONE)
    (base / "pxe-pack" / "agent").chmod(0o770)


AGENTS = "pxe-pack/agent"
UNSAFE: dict[str, tuple[Callable[[Path], None], str]] = {
    "everybody": (with_mode(AGENTS, 0o777), "agent is writable by everybody"),
    "sticky": (with_mode(AGENTS, 0o1777), "agent is writable by everybody"),
    "an entry": (with_mode(f"{AGENTS}/key", 0o757), "agent/key is writable by everybody"),
    "a group": (of_a_group, f"agent is writable by the group {SOMEONE}"),
    "the folder above": (with_mode("pxe-pack", 0o777), "pxe-pack is writable by everybody"),
    "further above": (with_mode("", 0o777), "is writable by everybody"),
    "another's": (of_another(AGENTS), f"agent belongs to user {SOMEONE}"),
    "another's entry": (of_another(f"{AGENTS}/key"), f"agent/key belongs to user {SOMEONE}"),
    "another's folder above": (of_another("pxe-pack"), f"pxe-pack belongs to user {SOMEONE}"),
    "behind a link": (by_a_link, "real is writable by everybody"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("command", ["pack", "check"])
def test_a_cache_that_others_may_write_to_is_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    base = site.folder / "cache"
    (base / AGENTS / "key").mkdir(parents=True, mode=0o755)
    spoil, reason = UNSAFE[name]
    spoil(base)
    before = sorted(base.rglob("*"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))
    words = [word for word in site.command() if word not in {"--agent", str(site.agent)}]
    code = cli.main(words if command == "pack" else ["check", str(site.image), *words])
    told = capsys.readouterr()
    assert code == (2 if command == "pack" else 3)
    said = " ".join((told.err + told.out).split())
    assert "error[agent-cache-unsafe]: the cache of frozen agents" in said
    assert f"{reason}, who could change the agent" in said
    assert sorted(base.rglob("*")) == before
    assert not site.output.exists()


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("environment", signal.SIGINT, 130),
        ("freeze", signal.SIGTERM, 143),
        ("freeze", signal.SIGINT, 130),
        ("freeze", signal.SIGHUP, 129),
    ],
)
def test_a_signal_leaves_nothing_of_what_was_being_made(
    environment: Environment, site: Site, moment: str, number: signal.Signals, code: int
) -> None:
    cache = site.folder / "cache" / "pxe-pack" / "agent"
    cache.mkdir(parents=True)
    sign = "new-*/temporary"
    if moment == "freeze":
        subprocess.run(["cp", "-a", environment.folder, cache], check=True)
        sign = "new-*/root/work/build"
    temporary = site.folder / "temporary"
    temporary.mkdir()
    before = {"lock", *(path.name for path in cache.iterdir())}
    words = [word for word in site.command() if word not in {"--agent", str(site.agent)}]
    command = [sys.executable, "-m", "pxe_pack", *words]
    process = subprocess.Popen(
        command,
        env={**os.environ, "XDG_CACHE_HOME": str(site.folder / "cache"), "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 200
    while not list(cache.glob(sign)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(1)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=200)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert {path.name for path in cache.iterdir()} == before
    assert not list(temporary.iterdir())
    assert not site.output.exists()
