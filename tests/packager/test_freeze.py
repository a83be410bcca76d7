"""The frozen agent: what it needs, what it holds, how it behaves away from the Python that made it, and its cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.faults import Serve, Status
from fakes.server import Script, Server
from pxe_fetch.contract.exits import Exit
from pxe_pack import freeze
from pxe_pack.console import PlainConsole
from pxe_pack.freeze.agent import MANIFEST, PROGRAM
from pxe_pack.freeze.cache import cache_key
from pxe_pack.freeze.elf import Elf, ElfError, read_elf
from pxe_pack.tools import InputError

SMALL = b"small\n"
SYSTEM_ELFS = (Path("/bin/ls"), Path(shutil.which("gcc") or ""), *sorted(Path("/usr/lib").glob("*/libcrypto.so.*")))


@pytest.fixture(scope="session")
def agent() -> freeze.FrozenAgent:
    return freeze.frozen_agent(cache=freeze.default_cache(), console=PlainConsole())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/small.bin": Script(body=SMALL, faults=[Status(503), Serve(until=0.5)])}) as http:
        yield http


def run(
    agent: freeze.FrozenAgent, *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [agent.path / PROGRAM, *arguments]
    return subprocess.run(command, env=env or {}, cwd="/", capture_output=True, text=True, check=False, timeout=60)


def config(tmp_path: Path, server: Server, *, more: str = "") -> Path:
    file = tmp_path / "fetch.yaml"
    file.write_text(
        textwrap.dedent(f"""\
            version: 1
            defaults: {{retry: {{base: 10ms}}}}
            allowed_roots: [{tmp_path}]
            artifacts:
              - name: small
                url: {server.url("/small.bin")}
                sha256: {hashlib.sha256(SMALL).hexdigest()}
                dest: {tmp_path}/placed/small.bin
            """)
        + more
    )
    (tmp_path / "placed").mkdir()
    return file


def tree_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            int(path.lstat().st_mtime),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted([folder, *folder.rglob("*")])
    }


# What it needs


def readelf_versions(path: Path) -> set[tuple[str, str]]:
    shown = subprocess.run(["readelf", "-W", "-V", path], capture_output=True, text=True, check=True).stdout
    library = ""
    found = set()
    for line in shown.partition("Version needs section")[2].splitlines():
        if file := re.search(r"File: (\S+)", line):
            library = file[1]
        if version := re.search(r"Name: (\S+)", line):
            found.add((library, version[1]))
    return found


def test_reads_the_same_from_an_elf_file_as_readelf(agent: freeze.FrozenAgent) -> None:
    files = [path for path in agent.path.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    assert len(files) > 10
    for path in [*files, *SYSTEM_ELFS]:
        elf = read_elf(path)
        assert elf is not None
        assert {(need.library, need.version) for need in elf.version_needs} == readelf_versions(path)
        shown = subprocess.run(["readelf", "-W", "-d", path], capture_output=True, text=True, check=True).stdout
        assert list(elf.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", shown)
        symbols = subprocess.run(["readelf", "-W", "--dyn-syms", path], capture_output=True, text=True, check=True)
        undefined = re.findall(r" UND ([^@\s]+)", symbols.stdout)
        assert sorted(symbol.name for symbol in elf.undefined_symbols()) == sorted(undefined)


def test_floor_is_the_newest_glibc_that_any_file_asks_for(agent: freeze.FrozenAgent) -> None:
    versions = [
        version
        for path in agent.path.rglob("*")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
        for _, name in readelf_versions(path)
        if (version := freeze.parse_glibc(name)) and name.startswith("GLIBC_")
    ]
    assert freeze.glibc_floor(agent.path) == agent.glibc == max(versions)


def test_needs_no_newer_glibc_than_azure_linux_2_has(agent: freeze.FrozenAgent) -> None:
    assert agent.glibc <= freeze.GlibcVersion(2, 35)


def test_has_no_search_path_of_the_machine_that_froze_it(agent: freeze.FrozenAgent) -> None:
    elfs = [elf for path in agent.path.rglob("*") if path.is_file() and (elf := read_elf(path))]
    assert [elf.name for elf in elfs if elf.search_path and not elf.search_path.startswith("$ORIGIN")] == []


def test_leaves_systemd_and_c_libraries_to_the_node(agent: freeze.FrozenAgent) -> None:
    names = {path.name.partition(".so")[0] for path in agent.path.rglob("*.so*")}
    assert names.isdisjoint({"libc", "libm", "libpthread", "libsystemd", "libgcrypt", "ld-linux-x86-64"})


def test_a_file_cut_short_is_no_elf_file(tmp_path: Path) -> None:
    data = Path("/bin/ls").read_bytes()
    for length in (5, 63, 100, len(data) // 50):
        with pytest.raises(ElfError):
            _ = Elf(data[:length], name="cut").version_needs
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert read_elf(tmp_path / "text") is None


def test_files_of_two_machines_are_refused(tmp_path: Path) -> None:
    shutil.copy("/bin/ls", tmp_path / "a")
    assert freeze.machine_of(tmp_path) == os.uname().machine
    data = bytearray((tmp_path / "a").read_bytes())
    data[18] = 243  # RISC-V
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(InputError, match="agent-machines-mixed"):
        freeze.machine_of(tmp_path)


def test_a_folder_without_programs_is_no_agent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="agent-no-programs"):
        freeze.machine_of(tmp_path)


def test_an_image_that_is_too_old_or_of_another_machine_does_not_fit(agent: freeze.FrozenAgent) -> None:
    older = freeze.GlibcVersion(2, 17)
    problem = freeze.image_fits(agent, glibc=older, machine=agent.machine)
    assert problem is not None
    assert "2.17" in problem.message
    assert str(agent.glibc) in problem.message
    problem = freeze.image_fits(agent, glibc=agent.glibc, machine="s390x")
    assert problem is not None
    assert "s390x" in problem.message
    assert agent.machine in problem.message
    assert freeze.image_fits(agent, glibc=None, machine=agent.machine) is not None
    assert freeze.image_fits(agent, glibc=agent.glibc, machine=agent.machine) is None
    assert freeze.image_fits(agent, glibc=freeze.GlibcVersion(3, 0), machine=agent.machine) is None


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.36", (2, 36)), ("2.36-9+deb12u10", (2, 36)), ("GLIBC_2.2.5", (2, 2)), ("GLIBC_PRIVATE", None), ("", None)],
)
def test_versions_are_read_as_packages_and_symbols_write_them(text: str, version: tuple[int, int] | None) -> None:
    assert freeze.parse_glibc(text) == version


# How it runs


def test_starts_with_an_empty_environment_and_without_any_python(agent: freeze.FrozenAgent) -> None:
    ended = run(agent, "version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"pxe-fetch {agent.version}\n", "")


def test_brings_an_artifact_by_http_from_a_server_with_faults(
    agent: freeze.FrozenAgent, tmp_path: Path, server: Server
) -> None:
    ended = run(agent, "run", "--config", config(tmp_path, server), env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert ended.returncode == Exit.DONE, ended.stderr
    assert (tmp_path / "placed" / "small.bin").read_bytes() == SMALL


def test_brings_an_artifact_by_https(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", key, "-out", certificate)
    subprocess.run(["openssl", *request, *names, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with Server({"/small.bin": Script(body=SMALL)}, tls=context) as https:
        trusting = config(tmp_path, https, more=f"tls: {{ca_file: {certificate}}}\n")
        env = {"XDG_RUNTIME_DIR": str(tmp_path)}
        ended = run(agent, "run", "--config", trusting, env=env)
        assert ended.returncode == Exit.DONE, ended.stderr
    assert (tmp_path / "placed" / "small.bin").read_bytes() == SMALL


@pytest.mark.parametrize("packer", ["cat", "gzip", "xz", "bzip2", "zstd"])
def test_unpacks_a_tar(agent: freeze.FrozenAgent, tmp_path: Path, packer: str) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d/small.bin").write_bytes(SMALL)
    plain = subprocess.run(["tar", "-C", tmp_path, "-c", "d"], capture_output=True, check=True).stdout
    archive = subprocess.run([packer], input=plain, capture_output=True, check=True).stdout
    (tmp_path / "t.tar").write_bytes(archive)
    (tmp_path / "fetch.yaml").write_text(
        f"version: 1\nallowed_roots: [{tmp_path}]\nartifacts:\n  - {{name: t, url: 'file://{tmp_path}/t.tar', "
        f"sha256: {hashlib.sha256(archive).hexdigest()}, dest: {tmp_path}/tree, extract: tar}}\n"
    )
    ended = run(agent, "run", "--config", tmp_path / "fetch.yaml", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert ended.returncode == Exit.DONE, ended.stderr
    assert (tmp_path / "tree/d/small.bin").read_bytes() == SMALL
    assert (tmp_path / "tree/d").stat().st_mode & 0o777 == 0o700


def test_reports_every_mistake_of_a_config(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("version: 1\nartifacts:\n  - {name: a, url: 'http://höst/x', colour: red}\n")
    ended = run(agent, "check", tmp_path / "bad.yaml")
    assert ended.returncode == Exit.CONFIG
    assert "ASCII" in ended.stderr
    assert "colour" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_children_get_the_library_path_that_the_agent_was_started_with(
    agent: freeze.FrozenAgent, tmp_path: Path, server: Server
) -> None:
    fake = tmp_path / "bin" / "systemctl"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho \"${{LD_LIBRARY_PATH-unset}}\" >> '{tmp_path}/told'\n")
    fake.chmod(0o755)
    file = config(tmp_path, server, more="    start: [app.service]\n")
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": f"{fake.parent}:/usr/bin:/bin"}
    assert run(agent, "run", "--config", file, env=env).returncode == Exit.DONE
    (tmp_path / "placed" / "small.bin").unlink()
    env["LD_LIBRARY_PATH"] = "/opt/theirs"
    assert run(agent, "run", "--config", file, env=env).returncode == Exit.DONE
    # Each run asks twice: for the start, and in the end whether the unit has failed.
    assert (tmp_path / "told").read_text().split() == ["unset", "unset", "/opt/theirs", "/opt/theirs"]


def test_patterns_compiled_ahead_are_the_ones_that_re_compiles(tmp_path: Path) -> None:
    sources, tables = freeze.SOURCES.parent, tmp_path / "tables.py"
    program = Path(freeze.__file__).with_name("precompile.py")
    subprocess.run([sys.executable, program, sources, tables], check=True, timeout=60)
    made = runpy.run_path(str(tables))
    assert len(made["PATTERNS"]) > 50
    assert len(made["FUNCTIONS"]) > 50
    for (pattern, flags), (final, code, groups, names, indices) in made["PATTERNS"].items():
        ahead = sys.modules["_sre"].compile(pattern, final, memoryview(code).cast("I").tolist(), groups, names, indices)
        assert ahead == re.compile(pattern, flags)  # compares flags, code and text
        assert ahead.groupindex == re.compile(pattern, flags).groupindex


def test_is_small(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    assert agent.size <= 20e6
    squashfs = tmp_path / "agent.squashfs"
    subprocess.run(["mksquashfs", agent.path, squashfs, "-quiet", "-no-progress", "-comp", "gzip"], check=True)
    assert squashfs.stat().st_size <= 7.5e6


def test_the_same_sources_give_the_same_bytes(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = freeze.frozen_agent(cache=tmp_path / "a cache elsewhere", console=PlainConsole())
    finally:
        os.umask(before)
    assert again.path.parent.name == agent.path.parent.name, "the agent's sources changed during this test run"
    assert again.digest == agent.digest
    assert tree_of(again.path) == tree_of(agent.path)


# Its cache


MAKER = """
import shutil, sys, time
from pathlib import Path
from pxe_pack.console import PlainConsole
from pxe_pack.freeze.agent import write_manifest
from pxe_pack.freeze.cache import cached
from pxe_pack.freeze.recipe import Frozen

def make(work):
    with Path(sys.argv[2]).open("a") as file:
        file.write("made\\n")
    time.sleep(0.3)
    tree = work / "dist" / "pxe-fetch"
    (tree / "_internal").mkdir(parents=True)
    shutil.copy("/bin/true", tree / "pxe-fetch")
    write_manifest(tree, version="1")
    return Frozen(tree=tree, libraries=(Path(sys.argv[3]),))

agent = cached("key", cache=Path(sys.argv[1]), make=make, console=PlainConsole())
print(agent.digest)
"""


class Cache:
    """A cache whose entries another program of ours makes, in a moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cache"
        self.log = folder / "log"
        self.library = folder / "libother.so"
        self.library.write_text("1")

    def start(self) -> subprocess.Popen[str]:
        arguments = [str(self.folder), str(self.log), str(self.library)]
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


def test_an_update_of_a_library_that_was_copied_in_makes_it_anew(cache: Cache) -> None:
    cache.ask()
    cache.library.write_text("2")
    _, said = cache.ask()
    assert f"{cache.library} was updated" in said
    assert cache.made == 2


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


def test_any_change_of_the_sources_is_another_key(tmp_path: Path) -> None:
    sources = tmp_path / "pxe_fetch"
    sources.mkdir()
    (sources / "a.py").write_text("x = 1\n")
    keys = {cache_key(sources)}
    (sources / "a.py").write_text("x = 2\n")
    keys.add(cache_key(sources))
    (sources / "a.py").rename(sources / "b.py")
    keys.add(cache_key(sources))
    assert len(keys) == 3
    (sources / "__pycache__").mkdir()
    (sources / "__pycache__" / "b.pyc").write_bytes(b"")
    assert cache_key(sources) in keys


# A folder that the user gives


def test_a_given_folder_is_taken_when_whole(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    copy = tmp_path / "agent"
    shutil.copytree(agent.path, copy, symlinks=True)
    given = freeze.load_agent(copy)
    assert (given.digest, given.version, given.glibc) == (agent.digest, agent.version, agent.glibc)
    (copy / "_internal" / "extra").write_text("")
    with pytest.raises(InputError, match="agent-damaged"):
        freeze.load_agent(copy)


def test_a_given_folder_that_is_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="agent-unknown"):
        freeze.load_agent(tmp_path)
    (tmp_path / "_internal").mkdir()
    for text in ("", "[]", '{"agent": "1"}', json.dumps({"agent": "1", "machine": "x", "glibc": "new", "files": {}})):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(InputError, match="agent-unknown"):
            freeze.load_agent(tmp_path)


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    program = "from pxe_pack.freeze import freeze_problems\nfor p in freeze_problems(): print(p.message, '|', p.hint)\n"
    (tmp_path / "pkg-config").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "pkg-config").chmod(0o755)
    code = f"import pxe_pack.tools as t; t.SEARCH_PATH = {str(tmp_path)!r}\n{program}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for package in ("gcc", "binutils", "libsystemd-dev"):
        assert f"apt-get install {package}" in said
