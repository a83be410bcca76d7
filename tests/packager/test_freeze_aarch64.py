"""The agent for aarch64, frozen and run on a machine of another kind, whose programs for aarch64 are emulated.

Freezing it takes minutes: with --full only, and only where `tests/prepare release` has registered the emulator.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import subprocess
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.faults import Serve, Status
from fakes.minisign import new_key
from fakes.server import Script, Server
from packing.emulated import EmulatedNode, emulated_node
from packing.ordinary import ordinary_user
from pxe_fetch.contract.commands import Exit
from pxe_pack import cli, freeze
from pxe_pack.console import PlainConsole
from pxe_pack.freeze import ready
from pxe_pack.freeze.environment import Environment, environment_name, read_environment
from pxe_pack.freeze.machines import emulation_problem

MACHINE = "aarch64"
BODY = bytes(range(256)) * 1024  # 256 KiB
CHUNK = 65_536
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def agent(request: pytest.FixtureRequest) -> freeze.FrozenAgent:
    if not request.config.getoption("--full"):
        pytest.skip("freezing it takes minutes: --full")
    if problem := emulation_problem(MACHINE, folder=Path("/var/tmp")):
        pytest.skip(f"{problem.message}: run tests/prepare release")
    return freeze.frozen_agent(cache=freeze.default_cache(), console=PlainConsole(), machine=MACHINE)


@pytest.fixture(scope="module")
def environment(agent: freeze.FrozenAgent) -> Environment:
    found = read_environment(agent.path.parent.parent / environment_name(MACHINE))
    assert found
    return found


@pytest.fixture
def node(agent: freeze.FrozenAgent, environment: Environment, tmp_path: Path) -> EmulatedNode:
    shared = tmp_path / "shared"
    shared.mkdir()
    return emulated_node(tmp_path / "root", environment=environment, agent=agent.path, shared=shared)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/body.bin": Script(body=BODY, faults=[Status(503), Serve(until=0.5)])}) as http:
        yield http


def config(folder: Path, server: Server, *, pinned: str = "", more: str = "") -> str:
    pinned = pinned or f"sha256: {hashlib.sha256(BODY).hexdigest()}"
    text = f"""\
        version: 1
        defaults: {{retry: {{base: 10ms}}}}
        allowed_roots: [{folder}]
        artifacts:
          - name: body
            url: {server.url("/body.bin")}
            {pinned}
            dest: {folder}/placed/body.bin
        """
    (folder / "placed").mkdir()
    return textwrap.dedent(text) + more


def fetched(node: EmulatedNode, text: str) -> bytes:
    """What a run with this configuration placed."""
    (node.shared / "fetch.yaml").write_text(text)
    ended = node.run("run", "--config", node.shared / "fetch.yaml")
    assert ended.returncode == Exit.DONE, ended.stderr
    return (node.shared / "placed/body.bin").read_bytes()


def test_needs_no_newer_glibc_than_on_x86_64_and_is_as_small(agent: freeze.FrozenAgent) -> None:
    assert (agent.machine, freeze.machine_of(agent.path)) == (MACHINE, MACHINE)
    assert agent.glibc <= freeze.GlibcVersion(2, 34)
    assert agent.size <= 24e6


def test_names_the_packages_for_its_processor(agent: freeze.FrozenAgent) -> None:
    assert {one.name for one in agent.components} >= {"Python", "OpenSSL", "PyYAML", "PyNaCl", "backports.zstd"}
    debian = [one.purl for one in agent.components if one.purl.startswith("pkg:deb/")]
    assert len(debian) > 5
    assert [purl for purl in debian if "?arch=arm64&" not in purl and "?arch=all&" not in purl] == []


def test_starts_on_a_node_with_nothing_but_a_c_library_and_zlib(agent: freeze.FrozenAgent, node: EmulatedNode) -> None:
    ended = node.run("version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"pxe-fetch {agent.version}\n", "")


def test_downloads_by_http_from_a_server_with_faults(node: EmulatedNode, server: Server) -> None:
    assert fetched(node, config(node.shared, server)) == BODY


def test_downloads_by_https(node: EmulatedNode) -> None:
    authority = Authority(node.shared / "ca")
    issued = authority.issue("localhost", alternative="IP:127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    with Server({"/body.bin": Script(body=BODY)}, tls=context) as https:
        text = config(node.shared, https, more=f"tls: {{ca_file: {authority.certificate}}}\n")
        assert fetched(node, text.replace("localhost", "127.0.0.1")) == BODY


def test_downloads_chunks_in_parallel_and_verifies_each(node: EmulatedNode) -> None:
    digests = [hashlib.sha256(BODY[at : at + CHUNK]).hexdigest() for at in range(0, len(BODY), CHUNK)]
    pinned = f"size: {len(BODY)}\n            chunks: {{size: {CHUNK}, sha256: [{', '.join(digests)}]}}"
    with Server({"/body.bin": Script(body=BODY)}) as http:
        assert fetched(node, config(node.shared, http, pinned=pinned)) == BODY


@pytest.mark.parametrize("packer", ["gzip", "xz", "bzip2", "zstd"])
def test_unpacks_a_tar(node: EmulatedNode, packer: str) -> None:
    (node.shared / "d").mkdir(mode=0o700)
    (node.shared / "d/body.bin").write_bytes(BODY)
    plain = subprocess.run(["tar", "-C", node.shared, "-c", "d"], capture_output=True, check=True).stdout
    archive = subprocess.run([packer], input=plain, capture_output=True, check=True).stdout
    (node.shared / "t.tar").write_bytes(archive)
    (node.shared / "fetch.yaml").write_text(
        f"version: 1\nallowed_roots: [{node.shared}]\nartifacts:\n  - {{name: t, url: 'file://{node.shared}/t.tar', "
        f"sha256: {hashlib.sha256(archive).hexdigest()}, dest: {node.shared}/tree, extract: tar}}\n"
    )
    ended = node.run("run", "--config", node.shared / "fetch.yaml")
    assert ended.returncode == Exit.DONE, ended.stderr
    assert (node.shared / "tree/d/body.bin").read_bytes() == BODY
    assert (node.shared / "tree/d").stat().st_mode & 0o777 == 0o700


def test_verifies_a_signed_configuration(node: EmulatedNode, server: Server, tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    (node.root / "etc/pxe-fetch/trust/site.pub").write_bytes(key.public)
    text = config(node.shared, server, more="serial: 7\n")
    server.scripts |= {"/c.yaml": Script(body=text.encode()), "/c.yaml.minisig": Script(body=key.sign(text))}
    cmdline = f"quiet pxe-fetch.config={server.url('/c.yaml')}"
    ended = node.run("run", cmdline=cmdline)
    assert ended.returncode == Exit.DONE, ended.stdout + ended.stderr
    assert "signed by site.pub" in ended.stderr
    assert (node.root / "var/lib/pxe-fetch/serial").read_text() == "7\n"
    server.scripts["/c.yaml.minisig"] = Script(body=key.sign("version: 1\n"))
    assert node.run("run", cmdline=cmdline).returncode == Exit.REFUSED


def test_an_ordinary_user_gets_the_same_bytes_in_an_environment_made_anew(agent: freeze.FrozenAgent) -> None:
    with ordinary_user() as user:
        command = [str(REPOSITORY / ".venv/bin/pxe-pack"), "freeze", "--arch", MACHINE, "-o", f"{user.home}/agent"]
        made = user.run(*command, env={"XDG_CACHE_HOME": f"{user.home}/a cache"})
        assert made.returncode == 0, made.stderr
        assert freeze.load_agent(user.home / "agent").digest == agent.digest


def test_a_release_carries_it_beside_the_one_for_x86_64(
    request: pytest.FixtureRequest, agent: freeze.FrozenAgent, tmp_path: Path
) -> None:
    release = request.config.getoption("--release")
    if not release:
        pytest.skip("no release is given: --release DIR")
    (wheel,) = Path(release).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("pxe_pack/agents/")]
        archive.extractall(tmp_path, names)
    assert sorted(re.sub("-.*", "", Path(name).name) for name in names) == ["aarch64", "x86_64"]
    (name,) = [name for name in names if "aarch64" in name]
    assert freeze.load_agent(ready.unpack(tmp_path / name, tmp_path)).digest == agent.digest
    (bom,) = Path(release).glob("*.cdx.json")
    said = [one["description"] for one in json.loads(bom.read_text())["components"] if one["name"] == "pxe-fetch"]
    assert len(said) == 2
    assert f"for {MACHINE} with glibc {agent.glibc} or newer" in " ".join(said)


def test_is_written_to_a_folder_by_a_command(
    agent: freeze.FrozenAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["freeze", "--json", "--arch", MACHINE, "-o", str(tmp_path / "agent")]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["agent"]["machine"], result["agent"]["digest"]) == (MACHINE, agent.digest)
