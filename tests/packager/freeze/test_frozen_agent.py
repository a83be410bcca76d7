"""The frozen agent: what is in it, and how it behaves away from the Python that made it."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import subprocess
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.minisign import new_key
from fakes.server import Script, Server
from packing.frozen import SMALL, config, run
from pxe_fetch.contract.commands import Exit
from pxe_pack import freeze
from pxe_pack.freeze.agent import PROGRAM

NODE = """
mount -t tmpfs tmpfs /etc && mount -t tmpfs tmpfs /var/lib && mount --bind "$1/cmdline" /proc/cmdline || exit 99
mkdir -p /etc/pxe-fetch && cp -r "$1/trust" /etc/pxe-fetch/ || exit 99
"$2" run && cat /var/lib/pxe-fetch/serial
"""


def test_is_small(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    assert agent.size <= 22e6
    squashfs = tmp_path / "agent.squashfs"
    subprocess.run(["mksquashfs", agent.path, squashfs, "-quiet", "-no-progress", "-comp", "gzip"], check=True)
    assert squashfs.stat().st_size <= 8.2e6


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
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("localhost", alternative="DNS:localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    with Server({"/small.bin": Script(body=SMALL)}, tls=context) as https:
        trusting = config(tmp_path, https, more=f"tls: {{ca_file: {authority.certificate}}}\n")
        env = {"XDG_RUNTIME_DIR": str(tmp_path)}
        ended = run(agent, "run", "--config", trusting, env=env)
        assert ended.returncode == Exit.DONE, ended.stderr
    assert (tmp_path / "placed" / "small.bin").read_bytes() == SMALL


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
