"""The frozen agent: what it needs, what it holds, how it behaves away from the Python that made it, and its cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.faults import Serve, Status
from fakes.minisign import new_key
from fakes.server import Script, Server
from packing.ordinary import ordinary_user
from packing.site import Site
from pxe_fetch.contract.commands import Exit
from pxe_pack import cli, freeze
from pxe_pack.console import PlainConsole
from pxe_pack.freeze import recipe
from pxe_pack.freeze.agent import MANIFEST, PROGRAM
from pxe_pack.freeze.cache import cache_key
from pxe_pack.freeze.elf import Elf, ElfError, read_elf
from pxe_pack.freeze.environment import Environment, environment_name, make_environment, read_environment
from pxe_pack.tools import InputError, WorkError

PXE_PACK = Path(sys.executable).with_name("pxe-pack")
SMALL = b"small\n"
SYSTEM_ELFS = (Path("/bin/ls"), Path(shutil.which("openssl") or ""), *sorted(Path("/usr/lib").glob("*/libcrypto.so.*")))


@pytest.fixture(scope="session")
def agent() -> freeze.FrozenAgent:
    return freeze.frozen_agent(cache=freeze.default_cache(), console=PlainConsole())


@pytest.fixture
def environment(agent: freeze.FrozenAgent) -> Environment:
    """The environment that the agent was frozen in."""
    found = read_environment(agent.path.parent.parent / environment_name(agent.machine))
    assert found
    return found


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


def test_floor_is_the_newest_glibc_that_any_file_asks_for(agent: freeze.FrozenAgent) -> None:
    versions = [
        version
        for path in agent.path.rglob("*")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
        for _, name in readelf_versions(path)
        if (version := freeze.parse_glibc(name)) and name.startswith("GLIBC_")
    ]
    assert freeze.glibc_floor(agent.path) == agent.glibc == max(versions)


def test_needs_no_newer_glibc_than_rhel_9_has(agent: freeze.FrozenAgent) -> None:
    assert agent.glibc <= freeze.GlibcVersion(2, 34)


def test_has_no_search_path_of_where_it_was_frozen(agent: freeze.FrozenAgent) -> None:
    elfs = [path for path in agent.path.rglob("*") if path.is_file() and read_elf(path)]
    shown = subprocess.run(["readelf", "-W", "-d", *elfs], capture_output=True, text=True, check=True).stdout
    paths = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", shown)
    assert [path for path in paths if not path.startswith("$ORIGIN")] == []


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


def test_names_python_openssl_and_every_library_with_its_version(agent: freeze.FrozenAgent) -> None:
    versions = {one.name: one.version for one in agent.components}
    assert list(versions)[:2] == ["Python", "OpenSSL"]
    inside = {path.name: path.read_bytes() for path in agent.path.rglob("*.so*")}
    assert f"OpenSSL {versions['OpenSSL']} ".encode() in inside["libcrypto.so.3"]
    assert f"\0{versions['Python']}\0".encode() in inside["libpython3.11.so.1.0"]
    assert versions["zstd"].encode() in inside["_zstd.cpython-311-x86_64-linux-gnu.so"]
    lock = (freeze.SOURCES.parents[1] / "packager/pxe_pack/freeze/agent.lock").read_text()
    locked = {name.lower(): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", lock)}
    frozen = {name.lower().replace(".", "-"): version for name, version in versions.items()}
    assert {name: version for name, version in locked.items() if name in frozen}.items() <= frozen.items()
    assert {
        "pyyaml",
        "requests",
        "tenacity",
        "urllib3",
        "pynacl",
        "backports-zstd",
        "idna",
    } <= frozen.keys() & locked.keys()
    for library, package in {"libssl.so.3": "libssl3", "libz.so.1": "zlib1g", "libffi.so.8": "libffi8"}.items():
        assert library in inside
        assert package in versions
    assert versions["libssl3"].startswith(versions["OpenSSL"])


def test_is_written_to_a_folder_by_a_command(
    agent: freeze.FrozenAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "agent"
    assert cli.main(["freeze", "--json", "-o", str(folder)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["output"], result["agent"]["digest"]) == (str(folder), agent.digest)
    assert freeze.load_agent(folder).components == agent.components
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
    for taken, reference in ((folder, "freeze-exists"), (tmp_path / "none/agent", "output-no-parent")):
        assert cli.main(["freeze", "-o", str(taken)]) == 2
        assert f"error[{reference}]" in capsys.readouterr().err


# How it runs


def test_starts_with_an_empty_environment_and_without_any_python(agent: freeze.FrozenAgent) -> None:
    ended = run(agent, "version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"pxe-fetch {agent.version}\n", "")


def test_starts_through_a_link_from_another_folder(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    (tmp_path / "pxe-fetch").symlink_to(agent.path / "pxe-fetch")
    done = subprocess.run(
        ["pxe-fetch", "check", "/none"], env={"PATH": str(tmp_path)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (65, b"")
    assert b"/none cannot be read" in done.stderr


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


NODE = """
mount -t tmpfs tmpfs /etc && mount -t tmpfs tmpfs /var/lib && mount --bind "$1/cmdline" /proc/cmdline || exit 99
mkdir -p /etc/pxe-fetch && cp -r "$1/trust" /etc/pxe-fetch/ || exit 99
"$2" run && cat /var/lib/pxe-fetch/serial
"""


def test_verifies_a_signed_configuration_where_it_looks_on_a_node(
    agent: freeze.FrozenAgent, tmp_path: Path, server: Server
) -> None:
    """In a mount namespace with another kernel command line, and /etc and /var/lib of its own."""
    key = new_key(tmp_path / "key")
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust/site.pub").write_bytes(key.public)
    text = config(tmp_path, server, more="serial: 7\n").read_text()
    server.scripts |= {"/c.yaml": Script(body=text.encode()), "/c.yaml.minisig": Script(body=key.sign(text))}
    (tmp_path / "cmdline").write_text(f"quiet pxe-fetch.config={server.url('/c.yaml')}\n")
    inside = ("unshare", "--map-root-user", "--mount", "sh", "-c", NODE, "sh", tmp_path, agent.path / PROGRAM)
    env = {"RUNTIME_DIRECTORY": str(tmp_path / "run"), "PATH": os.defpath}
    ended = subprocess.run(inside, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == Exit.DONE, ended.stdout + ended.stderr
    assert "signed by site.pub" in ended.stderr
    assert ended.stdout.endswith("\n7\n")
    server.scripts["/c.yaml.minisig"] = Script(body=key.sign("version: 1\n"))
    ended = subprocess.run(inside, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == Exit.REFUSED, ended.stdout + ended.stderr


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
    told = tmp_path / "told"
    fake.write_text(f"#!/bin/sh\necho \"${{LD_LIBRARY_PATH-unset}}\" >> '{told}'\n")
    fake.chmod(0o755)
    file = config(tmp_path, server, more="    start: [app.service]\n")
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": f"{fake.parent}:/usr/bin:/bin"}
    assert run(agent, "run", "--config", file, env=env).returncode == Exit.DONE
    # systemctl is asked once for the start, and what became of it until it has.
    assert set(told.read_text().split()) == {"unset"}
    told.unlink()
    (tmp_path / "placed" / "small.bin").unlink()
    env["LD_LIBRARY_PATH"] = "/opt/theirs"
    assert run(agent, "run", "--config", file, env=env).returncode == Exit.DONE
    assert set(told.read_text().split()) == {"/opt/theirs"}


def test_is_small(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    assert agent.size <= 22e6
    squashfs = tmp_path / "agent.squashfs"
    subprocess.run(["mksquashfs", agent.path, squashfs, "-quiet", "-no-progress", "-comp", "gzip"], check=True)
    assert squashfs.stat().st_size <= 8.2e6


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


# What it may import


EVERY_LIBRARY = """
import sys


def main():
    import ssl
    import backports.zstd
    import certifi, idna
    import requests
    import systemd.journal
    import tenacity
    import yaml
    from nacl._sodium import ffi, lib
    ssl.create_default_context()
    assert backports.zstd.decompress(backports.zstd.compress(b"zstd")) == b"zstd"
    assert yaml.load("a: 1", Loader=yaml.CSafeLoader) == {"a": 1}
    public, secret, signed, opened = (ffi.new("unsigned char[]", length) for length in (32, 64, 66, 66))
    length = ffi.new("unsigned long long *")
    assert lib.sodium_init() >= 0
    assert lib.crypto_sign_seed_keypair(public, secret, bytes(32)) == 0
    assert lib.crypto_sign(signed, length, b"ok", 2, secret) == 0
    assert lib.crypto_sign_open(opened, length, signed, 66, public) == 0 and ffi.buffer(opened, 2)[:] == b"ok"
    if len(sys.argv) > 2:
        fetch = tenacity.retry(stop=tenacity.stop_after_attempt(3))(requests.get)
        session = requests.Session()
        session.trust_env = False
        print(session.get(sys.argv[2], timeout=10).text, end="")
    return 0
"""


def test_every_library_that_the_agent_may_use_works_when_frozen(environment: Environment) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="test-", dir=environment.folder.parent) as folder,
        Server({"/small.bin": Script(body=SMALL)}) as http,
    ):
        sources = Path(folder) / "sources" / "pxe_fetch"
        sources.mkdir(parents=True)
        (sources / "__init__.py").write_text("")
        (sources / "__main__.py").write_text(EVERY_LIBRARY)
        tree = recipe.freeze(sources, version="1", work=Path(folder), environment=environment)
        command: list[str | Path] = [tree / PROGRAM, "get", http.url("/small.bin")]
        ended = subprocess.run(command, env={}, cwd="/", capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr.decode()) == (0, SMALL, "")


def refused(warnings: str, *, root: Path) -> list[str]:
    """What the recipe says to a list of PyInstaller's."""
    try:
        recipe.refuse_missing_modules(warnings, root=root)
    except WorkError as error:
        return [problem.message for problem in error.problems]
    return []


def test_a_module_that_was_left_out_and_that_the_agent_imports_is_refused(environment: Environment) -> None:
    left_out = "excluded module named pickle - imported by pxe_fetch.a (delayed), logging (delayed)\n"
    [said] = refused(left_out, root=environment.root)
    assert said == "pxe_fetch.a imports pickle, which is not in the frozen agent"
    gone = "missing module named 'requests.nothing' - imported by pxe_fetch.b (top-level)\n"
    assert refused(gone, root=environment.root) == [
        "pxe_fetch.b imports requests.nothing, which is not in the frozen agent"
    ]
    assert len(refused(left_out + gone, root=environment.root)) == 2


def test_a_module_without_a_file_that_can_be_imported_is_not_missing(environment: Environment) -> None:
    """Python 3.13 has no file of collections.abc; os.path never had one."""
    for name in ("collections.abc", "os.path", "sys"):
        assert (
            refused(f"missing module named '{name}' - imported by pxe_fetch.a (top-level)\n", root=environment.root)
            == []
        )


def test_what_others_or_optional_imports_ask_for_may_be_missing(environment: Environment) -> None:
    lines = (
        "missing module named winreg - imported by mimetypes (optional)\n"
        "excluded module named asyncio - imported by tenacity.asyncio (delayed)\n"
        "missing module named nothing.at_all - imported by pxe_fetch.a (delayed, optional)\n"
    )
    assert refused(lines, root=environment.root) == []


# Its cache


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


def test_a_cache_in_a_folder_for_everybody_is_ones_own(cache: Cache) -> None:
    """As in /tmp: there nobody can rename what is another's."""
    cache.folder.parent.chmod(0o1777)
    digest, said = cache.ask()
    assert digest, said
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert cache.ask() == (digest, "")


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


PROBLEMS = """
from pathlib import Path
from pxe_pack.freeze import freeze_problems
for problem in freeze_problems(Path.cwd()):
    print(problem.message, '|', problem.hint)
"""


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
