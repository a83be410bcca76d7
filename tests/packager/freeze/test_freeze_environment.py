"""The environment that the agent is frozen in, and what this machine must have for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from packing.ordinary import ordinary_user
from packing.site import Site
from pxe_pack import freeze
from pxe_pack.console import PlainConsole
from pxe_pack.freeze.agent import PROGRAM
from pxe_pack.freeze.environment import Environment, make_environment, read_environment
from pxe_pack.tools import InputError, WorkError

PXE_PACK = Path(sys.executable).with_name("pxe-pack")
PROBLEMS = """
from pathlib import Path
from pxe_pack.freeze import freeze_problems
for problem in freeze_problems(Path.cwd()):
    print(problem.message, '|', problem.hint)
"""


def tree_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            int(path.lstat().st_mtime),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted([folder, *folder.rglob("*")])
    }


def test_an_ordinary_user_gets_the_same_bytes_whatever_his_umask_and_his_settings_of_pip(
    agent: freeze.FrozenAgent, tiny: Path
) -> None:
    """In an environment made anew, and from the command line to the layout."""
    with ordinary_user() as user:
        site = Site(folder=user.home, image=Path(shutil.copy(tiny, user.home)), agent=agent.path)
        words = [word for word in site.command() if word not in {"--agent", str(site.agent)}]
        elsewhere = str(user.home / "elsewhere")
        pip = {"PIP_USER": "1", "PIP_PREFIX": elsewhere, "PIP_TARGET": elsewhere, "PIP_ROOT": elsewhere}
        pip |= {"PIP_NO_BINARY": ":all:", "PIP_REQUIRE_VIRTUALENV": "1"}
        command: list[str | Path] = ["sh", "-c", 'umask 077 && exec "$@"', "sh", PXE_PACK, *words]
        packed = user.run(*command, env={**pip, "XDG_CACHE_HOME": f"{user.home}/a cache"})
        assert packed.returncode == 0, packed.stderr
        assert (site.output / "manifest.json").is_file()
        assert not Path(elsewhere).exists()
        again = user.home / "a cache/pxe-pack/agent" / agent.path.parent.name / PROGRAM
        assert again.is_dir(), "the sources or Debian's packages changed during this test"
        assert freeze.load_agent(again).digest == agent.digest
        assert tree_of(again) == tree_of(agent.path)


def test_an_environment_that_cannot_be_made_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'E: no Release file' >&2\necho 'I: removing tempdir' >&2\nexit 25\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(WorkError, match="agent-environment-failed") as failed:
        freeze.frozen_agent(cache=tmp_path / "cache", console=PlainConsole())
    assert failed.value.problems[0].label == "E: no Release file"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_an_environment_is_made_though_zeros_follow_late_behind_the_end_of_its_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(f"""\
#!{sys.executable}
import io, re, sys, tarfile, time
for kind, path in re.findall(r"download /opt/(packages|owners) (\\S+)", " ".join(sys.argv)):
    open(path, "w").write("libc6_2.36.deb" if kind == "packages" else "libc.so.6 libc6")
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
    member = tarfile.TarInfo("hello")
    member.size = 3
    archive.addfile(member, io.BytesIO(b"you"))
sys.stdout.flush()
time.sleep(0.5)
sys.stdout.buffer.write(bytes(1_000_000))
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    work = tmp_path / "work"
    work.mkdir()
    made = read_environment(make_environment(work))
    assert made
    assert made.packages == ("libc6_2.36.deb",)
    assert (made.root / "hello").read_bytes() == b"you"


def test_a_damaged_environment_is_named_with_what_to_do(environment: Environment, tmp_path: Path) -> None:
    damaged = tmp_path / environment.folder.name
    subprocess.run(["cp", "-a", environment.folder, damaged], check=True)
    (damaged / "root/usr/lib/python3.11/argparse.py").unlink()
    with pytest.raises(WorkError, match="agent-environment-damaged") as failed:
        freeze.frozen_agent(cache=tmp_path, console=PlainConsole())
    assert str(damaged) in failed.value.problems[0].message


def test_an_old_environment_that_cannot_be_updated_is_kept_for_another_day(
    agent: freeze.FrozenAgent,
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = tmp_path / environment.folder.name / "environment.json"
    facts.parent.mkdir()
    shutil.copy(environment.folder / facts.name, facts)
    os.utime(facts, (0, 0))
    shutil.copytree(agent.path.parent, tmp_path / agent.path.parent.name, symlinks=True)
    monkeypatch.setattr("pxe_pack.tools.SEARCH_PATH", str(tmp_path))  # nothing to make one with
    assert freeze.frozen_agent(cache=tmp_path, console=PlainConsole()).digest == agent.digest
    said = capsys.readouterr().err
    assert "not updated" in said
    assert "mmdebstrap" in said
    assert freeze.frozen_agent(cache=tmp_path, console=PlainConsole()).digest == agent.digest
    assert capsys.readouterr().err == ""
    facts.unlink()
    with pytest.raises(InputError, match="tool-missing"):
        freeze.frozen_agent(cache=tmp_path, console=PlainConsole())


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    code = f"import pxe_pack.tools as t; t.SEARCH_PATH = {str(tmp_path)!r}\n{PROBLEMS}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for package in ("mmdebstrap", "tar", "coreutils"):
        assert f"apt-get install {package}" in said


def test_user_without_subordinate_ids_is_told_how_to_get_them() -> None:
    nobody = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
    said = subprocess.run([*nobody, sys.executable, "-c", PROBLEMS], capture_output=True, text=True, check=True).stdout
    assert "/etc/subuid has no range of ids for 54321" in said
    assert "usermod --add-subgids 100000-165535 54321" in said


def run_in_mount(folder: Path, options: str, *command: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder` while a file system is mounted there: in a namespace, with which the mount goes."""
    folder.mkdir()
    script = 'mount -t tmpfs -o "$1" none "$2" && cd "$2" && shift 2 && exec "$@"'
    inside = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", options, folder)
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.run([*inside, *command], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("options", "remedy"), [("nodev", "dev"), ("noexec", "exec"), ("noexec,nodev", "exec,dev")])
def test_mount_options_that_keep_an_agent_from_being_frozen_are_named_with_the_remedy(
    site: Site, options: str, remedy: str
) -> None:
    mounted = site.folder / "mounted"
    words = [word for word in site.command() if word not in {"--agent", str(site.agent)}]
    ended = run_in_mount(mounted, options, PXE_PACK, *words, cache=mounted / "cache")
    assert ended.returncode == 2, ended.stderr
    assert f"cannot be frozen in {mounted}/cache/pxe-pack/agent: {mounted} is mounted {options}\n" in ended.stderr
    assert f"mount -o remount,{remedy} {mounted};" in ended.stderr
    assert "XDG_CACHE_HOME" in ended.stderr


def test_other_mount_options_are_fine(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    ended = run_in_mount(mounted, "nosuid", sys.executable, "-c", PROBLEMS, cache=mounted)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr


def test_programs_of_sbin_are_found_with_the_path_that_debian_gives_to_users() -> None:
    program = "from pxe_pack import tools; tools.run('sh', '-c', 'exec chroot --version')"
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
