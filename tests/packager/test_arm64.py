"""Images for arm64: their boot loaders, and the agent that they get."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import tiny
from packing.checking import Checked
from packing.pins import Pins
from packing.site import Site, files_of, image_with_root, make_iso, small_agent
from packing.walk import walked
from pxe_pack import cli, freeze
from pxe_pack.console import PlainConsole
from pxe_pack.freeze import ready
from pxe_pack.freeze.agent import write_manifest
from pxe_pack.freeze.cache import cache_key
from pxe_pack.freeze.machines import emulation_problem
from pxe_pack.tools import InputError

PXE_PACK = Path(sys.executable).with_name("pxe-pack")
Packs = Callable[..., str]
Refused = Callable[..., str]


def for_arm64(data: bytes) -> bytes:
    """A PE or ELF program marked as arm64; only its header is read."""
    changed = bytearray(data)
    if data[:2] == b"MZ":
        (header,) = struct.unpack_from("<I", data, 0x3C)
        struct.pack_into("<H", changed, header + 4, 0xAA64)
    else:
        struct.pack_into("<H", changed, 18, 0xB7)
    return bytes(changed)


@pytest.fixture
def arm64(site: Site, tmp_path: Path) -> Path:
    """An arm64 image, and an agent."""
    given = files_of(site.image)
    files: dict[str, str | bytes] = {path: data for path, data in given.items() if not path.endswith(".efi")}
    files["EFI/BOOT/BOOTAA64.EFI"] = for_arm64(given["efi/boot/bootx64.efi"])
    files["EFI/BOOT/grubaa64.efi"] = for_arm64(given["efi/boot/grubx64.efi"])
    plain = make_iso(tmp_path / "arm64.iso", files)
    root = [replace(one, data=for_arm64(one.data)) if one.data[:4] == b"\x7fELF" else one for one in tiny.tree()]
    (tmp_path / "made").mkdir()
    site.image = image_with_root(plain, root, tmp_path / "made")
    agent = small_agent(tmp_path / "agent64")
    (agent / "pxe-fetch").write_bytes(for_arm64(Path("/bin/true").read_bytes()))
    write_manifest(agent, version="0.0.1")
    return agent


def test_an_arm64_image_gives_arm64_boot_loaders(site: Site, packs: Packs, arm64: Path) -> None:
    packs("--agent", arm64)
    assert walked(site.output, grub="grubaa64.efi")[:3] == ["/bootaa64.efi", "/grubaa64.efi", "/boot/grub2/grub.cfg"]
    assert not (site.output / "bootx64.efi").exists()


def test_no_test_boot_is_suggested_for_arm64(
    site: Site, packs: Packs, arm64: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pxe-pack boot` boots x86_64 alone."""
    site.rest["serial"] = 5
    assert "pxe-pack boot" not in packs("--agent", arm64)
    pins = Pins(site=site, capsys=capsys)
    pins.write()
    assert "pxe-pack boot" not in pins.done()
    assert cli.main(["boot", str(site.output)]) == 2
    assert "error[layout-architecture]" in capsys.readouterr().err


def test_an_agent_for_another_processor_is_refused(refused: Refused, arm64: Path) -> None:
    assert arm64.is_dir()
    said = refused()
    assert "error[agent-machine]: the agent is for x86_64, the image for aarch64" in said
    assert "`pxe-pack freeze --arch aarch64 -o DIR`" in said


@pytest.fixture
def carried(arm64: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> freeze.FrozenAgent:
    """The agent for arm64, which this installation carries for the test, beside a damaged one for x86_64."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ready, "AGENTS", tmp_path / "agents")
    (tmp_path / "agents").mkdir()
    agent, key = freeze.load_agent(arm64), cache_key(freeze.SOURCES, packages=())
    ready.write_archive(agent, ready.archive_path("aarch64", key=key))
    ready.archive_path("x86_64", key=key).write_bytes(b"")
    return agent


def without_agent(site: Site) -> list[str]:
    return [word for word in site.command() if word not in {"--agent", str(site.agent)}]


@pytest.mark.parametrize(("how", "where"), [("updates", "updates/"), ("initrd", "boot/initrd.img")])
def test_an_arm64_image_gets_the_agent_for_arm64(
    site: Site, carried: freeze.FrozenAgent, capsys: pytest.CaptureFixture[str], how: str, where: str
) -> None:
    assert cli.main([*without_agent(site), "--inject", how]) == 0
    packed = site.manifest()["agent"]
    assert isinstance(packed, dict)
    assert (packed["machine"], packed["digest"]) == ("aarch64", carried.digest)
    capsys.readouterr()
    assert cli.main(["show", str(site.output)]) == 0
    assert f": the agent 0.0.1 for aarch64 in {where}" in capsys.readouterr().out


def test_check_looks_for_the_agent_for_arm64(
    site: Site, carried: freeze.FrozenAgent, checked: Callable[..., Checked], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "agent-not-frozen" in checked(site.image).found
    freeze.frozen_agent(cache=freeze.default_cache(), console=PlainConsole(), machine=carried.machine)
    capsys.readouterr()
    found = checked(site.image).found
    assert not {"agent-not-frozen", "agent-machine", "agent-glibc"} & set(found)


def test_a_payload_is_for_the_processor_that_is_named(
    site: Site, carried: freeze.FrozenAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_config()
    assert cli.main(["payload", str(site.config), "--arch", "aarch64", "--json", "-o", str(site.folder / "out")]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["agent"]["digest"] == carried.digest


# A user namespace may have its own list of emulators, which is empty at first (Linux 6.7 and later).
WITHOUT_EMULATORS = (
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && exec "$@"',
    "sh",
)


def test_where_nothing_runs_programs_for_arm64_packing_says_what_to_install(site: Site, arm64: Path) -> None:
    assert arm64.is_dir()
    hidden = subprocess.run([*WITHOUT_EMULATORS, "true"], capture_output=True, check=False).returncode == 0
    if not hidden and emulation_problem("aarch64", folder=site.folder) is None:
        pytest.skip("this machine runs programs for aarch64, and its kernel is too old to hide that from a process")
    command: list[str | Path] = [*(WITHOUT_EMULATORS if hidden else ()), PXE_PACK, *without_agent(site)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(site.folder / "cache")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "error[agent-emulation]: this machine cannot run programs for aarch64" in ended.stderr
    assert "qemu-user-static" in ended.stderr
    assert not site.output.exists()
    assert [path.name for path in (site.folder / "cache/pxe-pack/agent").iterdir()] == ["lock"]


def test_an_agent_for_a_processor_that_it_cannot_be_frozen_for_is_refused(tmp_path: Path) -> None:
    for make in (freeze.frozen_agent, freeze.cached_agent):
        with pytest.raises(InputError, match="agent-machine"):
            make(cache=tmp_path, console=PlainConsole(), machine="riscv64")
