"""A node with Secure Boot, whose firmware has the site's key: by PXE to verified artifacts, or not at all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from boot.conftest import image
from boot.nodes import PXE_PACK, TIMEOUT

# Debian's ovmf has a store of variables with a key that everybody has, and that key.
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd")
KEY, CERTIFICATE = (Path(f"/usr/share/ovmf/PkKek-1-snakeoil.{end}") for end in ("key", "pem"))
ISO, NOTE = "http://10.0.0.1/liveos.iso", "http://10.0.0.1/other-user-artifacts/note.txt"
SITE = """\
version: 1
pack:
  boot_url: http://10.0.0.1/liveos.iso
  artifact_url: http://10.0.0.1/other-user-artifacts/
artifacts:
  - {name: note, source: note.txt, dest: /srv/note.txt}
"""


def signed_layout(folder: Path, shape: str) -> Path:
    """A layout signed with the key in the firmware."""
    (folder / "note.txt").write_bytes(b"from the signed program on, every byte is known\n")
    (folder / "fetch.yaml").write_text(SITE)
    (folder / "passphrase").write_text("snakeoil")
    keys: list[str | Path] = ["--secure-boot-key", KEY, "--secure-boot-cert", CERTIFICATE, "--secure-boot-passphrase"]
    pack: list[str | Path] = [
        PXE_PACK,
        "pack",
        folder / "fetch.yaml",
        "--image",
        image(shape),
        "--output",
        folder / "pxe",
    ]
    command: list[str | Path] = [*pack, *keys, folder / "passphrase"]
    packed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert packed.returncode == 0, packed.stderr
    return folder / "pxe"


def boot(layout: Path) -> tuple[int, dict[str, Any], str]:
    """Boot it with Secure Boot: the exit code, the result, and the console."""
    log = layout.with_name("serial.log")
    command: list[str | Path] = [PXE_PACK, "boot", layout, "--secure-boot", VARIABLES, "--json", "--serial-log", log]
    command += ["--timeout", str(TIMEOUT)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT + 300)
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    return (
        ran.returncode,
        next(event for event in events if event["event"] == "result"),
        log.read_text(errors="replace"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secure")


def test_firmware_with_the_sites_key_boots_a_signed_layout_to_its_artifacts(folder: Path) -> None:
    code, result, console = boot(signed_layout(folder, "ic16"))
    assert code == 0, console
    assert "UEFI Secure Boot is enabled" in console
    assert "GRUB" not in console
    assert "the ISO has the sha256 that" in console
    assert result["console"].startswith("pxe-fetch: done: 1 artifact in place")
    fetched = {one["url"]: one["requests"] for one in result["served"]}
    assert fetched[ISO] >= 1
    assert fetched[NOTE] == 1


def test_firmware_refuses_a_program_with_one_bit_changed(tmp_path: Path) -> None:
    layout = signed_layout(tmp_path, "tiny")
    program = layout / "bootx64.efi"
    content = bytearray(program.read_bytes())
    content[content.index(b"root=live:") + 13] ^= 1
    program.write_bytes(content)
    code, result, console = boot(layout)
    assert code == 1, console
    assert "the firmware refused the boot loader (Secure Boot): Access Denied" in result["failure"]["message"]
    assert not result["served"]
    assert "EFI stub" not in console
