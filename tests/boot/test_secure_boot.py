"""A node with Secure Boot, whose firmware has the site's key: every link of its boot that was changed stops it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from boot.conftest import image
from boot.nodes import PXE_PACK, TIMEOUT, Expected
from packing.keys import KeyPair, key_pair, sign

# Debian's ovmf has a store of variables with a key that everybody has, and that key.
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd")
MICROSOFT = VARIABLES.with_name("OVMF_VARS_4M.ms.fd")
MOK_OWNER = "605dab50-e046-4300-abb6-3dd810dd8b23"  # the vendor of shim's variables (shim, lib/guid.c)
KEY, CERTIFICATE = (Path(f"/usr/share/ovmf/PkKek-1-snakeoil.{end}") for end in ("key", "pem"))
ISO, FLEET = "http://10.0.0.1/liveos.iso", "http://10.0.0.1/fleet.yaml"
BASE = "http://10.0.0.1/other-user-artifacts/"
NOTE = Expected(dest="/srv/note.txt", body=b"from the signed program on, every byte is known\n")
# It runs the agent over and over: a node boots once, and is to be sent more than one thing.
AGAIN = Expected(
    dest="/etc/systemd/system/again.service",
    body=b"[Service]\nExecStart=/bin/sh -c 'while sleep 3; do systemctl reset-failed pxe-fetch.service; "
    b"systemctl restart pxe-fetch.service; done'\n",
)
SITE = f"""\
version: 1
serial: 1
pack: {{boot_url: "{ISO}", artifact_url: "{BASE}", trust: [site.pub]}}
allowed_roots: [/srv, /etc/systemd/system]
artifacts:
  - {{name: note, source: note.txt, dest: {NOTE.dest}}}
  - {{name: again, source: again.service, dest: {AGAIN.dest}}}
"""
SIGNED = f"""\
version: 1
serial: %d
allowed_roots: [/srv, /etc/systemd/system]
defaults: {{base_url: "{BASE}", retry: {{attempts_without_progress: 2, base: 100ms, max: 100ms}}}}
artifacts:
  - {{name: note, url: note.txt, sha256: {NOTE.sha256}, dest: {NOTE.dest}}}
  - {{name: again, url: again.service, sha256: {AGAIN.sha256}, dest: {AGAIN.dest}, start: again.service}}
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A layout signed with the key in the firmware, and the configuration by URL that its nodes use."""

    folder: Path
    keys: KeyPair

    @property
    def layout(self) -> Path:
        return self.folder / "pxe"

    @property
    def fleet(self) -> Path:
        return self.folder / "fleet.yaml"

    def write_fleet(self, *, serial: int) -> None:
        """Replace the configuration by a signed one."""
        self.fleet.write_text(SIGNED % serial)
        sign(self.fleet, self.keys)


def site_of(folder: Path, shape: str, *, chain: str = "db") -> Site:
    site = Site(folder=folder, keys=key_pair(folder))
    for one in (NOTE, AGAIN):
        (folder / Path(one.dest).name).write_bytes(one.body)
    (folder / "fetch.yaml").write_text(SITE)
    (folder / "passphrase").write_text("snakeoil")
    signer: list[str | Path] = ["--secure-boot-key", KEY, "--secure-boot-cert", CERTIFICATE]
    signer += ["--secure-boot-passphrase", folder / "passphrase"]
    pack: list[str | Path] = ["--image", image(shape), "--output", site.layout, "--secure-boot-chain", chain]
    run("pack", folder / "fetch.yaml", *pack, *signer)
    site.write_fleet(serial=3)
    run("pin", site.layout, site.fleet, "--url", FLEET, *signer)
    return site


def run(*arguments: str | Path) -> None:
    ran = subprocess.run([PXE_PACK, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def flip_last_bit(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        last = opened.read(1)[0]
        opened.seek(-1, os.SEEK_END)
        opened.write(bytes([last ^ 1]))


@dataclass(frozen=True, kw_only=True)
class Booting:
    """A node with Secure Boot."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def console(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for(self, said: str) -> None:
        """Until its console has a line with this pattern in it."""
        until = time.monotonic() + TIMEOUT
        while not re.search(said, self.console):
            assert self.process.poll() is None, f"the node ended: {self.console[-5000:]}"
            assert time.monotonic() < until, f"{said} is not in {self.console[-5000:]}"
            time.sleep(0.5)

    def end(self) -> tuple[int, dict[str, Any]]:
        """The exit code of `pxe-pack boot` and its result, once there is one."""
        output, _ = self.process.communicate(timeout=TIMEOUT + 300)
        events = [json.loads(line) for line in output.splitlines()]
        return self.process.returncode, next(event for event in events if event["event"] == "result")


@contextmanager
def booting(layout: Path, *more: str | Path, variables: Path | None = VARIABLES) -> Iterator[Booting]:
    """A node of the layout; without `variables`, its firmware has no Secure Boot."""
    log = layout.with_name("serial.log")
    command: list[str | Path] = [PXE_PACK, "boot", layout, "--json", "--serial-log", log, "--timeout", str(TIMEOUT)]
    command += ["--secure-boot", variables] if variables else []
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Booting(process=process, log=log)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_of(tmp_path_factory.mktemp("secure"), "ic16")


def test_a_signed_layout_boots_and_its_node_refuses_each_byte_that_was_not_signed(site: Site) -> None:
    """The note first has one bit changed, then the configuration; then an older one is served, and all is well last."""
    note = site.layout / "other-user-artifacts/note.txt"
    flip_last_bit(note)
    with booting(site.layout, "--serve", site.fleet, "--keep") as node:
        node.wait_for(rf"pxe-fetch: failed: note: {BASE}note.txt: wrong sha256: expected {NOTE.sha256[:16]}")
        flip_last_bit(site.fleet)
        node.wait_for(r"pxe-fetch: failed: .*fleet\.yaml\.minisig is not a signature of these bytes by that key")
        site.write_fleet(serial=2)
        node.wait_for(r"pxe-fetch: failed: .*has the serial 2, and /var/lib/pxe-fetch/serial has 3")
        note.write_bytes(NOTE.body)
        site.write_fleet(serial=3)
        node.wait_for(r"pxe-fetch: done: 2 artifacts in place")
        node.process.send_signal(signal.SIGINT)
        code, result = node.end()
    assert code == 0, node.console
    assert "UEFI Secure Boot is enabled" in node.console
    assert "GRUB" not in node.console
    assert "pxe-pack: the ISO has the sha256 that the kernel command line says" in node.console
    assert result["console"].startswith("pxe-fetch: done: 2 artifacts in place")


def test_an_iso_with_one_bit_changed_stops_the_node_before_it_is_mounted(site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.layout, tmp_path / "pxe")
    flip_last_bit(tmp_path / "pxe/liveos.iso")
    with booting(tmp_path / "pxe") as node:
        code, result = node.end()
    assert code == 1, node.console
    assert (result["stage"], result["node"]) == ("livenet", None)
    message = result["failure"]["message"]
    assert f"the node refused the ISO: the ISO at {ISO} has the sha256 " in message
    assert "it was fetched 3 times, and is not booted" in message
    assert "UEFI Secure Boot is enabled" in node.console
    assert "squashfs: version" not in node.console
    assert "Switching root" not in node.console


def test_firmware_refuses_a_program_with_one_bit_changed(tmp_path: Path) -> None:
    layout = site_of(tmp_path, "tiny").layout
    program = layout / "bootx64.efi"
    content = bytearray(program.read_bytes())
    content[content.index(b"root=live:") + 13] ^= 1
    program.write_bytes(content)
    with booting(layout) as node:
        code, result = node.end()
    assert code == 1, node.console
    assert "the firmware refused the boot loader (Secure Boot): Access Denied" in result["failure"]["message"]
    assert not result["served"]
    assert "EFI stub" not in node.console


@pytest.mark.parametrize("enrolled", [True, False])
def test_a_distributions_shim_starts_a_program_of_an_owner_in_the_mok_list(tmp_path: Path, *, enrolled: bool) -> None:
    """The firmware has Microsoft's certificates and not the site's.

    The kernel is none, and so the stub ends with an error; by TFTP, shim would take minutes for a real one.
    """
    site = site_of(tmp_path, "tiny", chain="shim")
    variables = tmp_path / "variables.fd"
    command: list[str | Path] = [PXE_PACK.with_name("virt-fw-vars"), "--input", MICROSOFT, "--output", variables]
    command += ["--add-mok", MOK_OWNER, CERTIFICATE] if enrolled else []
    subprocess.run(command, check=True, capture_output=True)
    with booting(site.layout, variables=variables) as node:
        node.wait_for("Bad kernel image" if enrolled else "Security Violation")
    assert "Fetching Netboot Image grubx64.efi" in node.console
    assert ("Security Violation" in node.console) != enrolled


def test_ipxe_starts_the_signed_program(site: Site) -> None:
    with booting(site.layout, "--via", "ipxe", variables=None) as node:
        node.wait_for(r"Kernel command line: bootx64\.efi .*pxe-fetch\.iso\.sha256=")
        assert "GRUB" not in node.console
