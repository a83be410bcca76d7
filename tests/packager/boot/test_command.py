"""What `pxe-pack boot` refuses before it starts a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PXE_PACK = Path(sys.executable).with_name("pxe-pack")


def boot(layout: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) if path is None else {**os.environ, "PATH": path}
    command: list[str | Path] = [PXE_PACK, "boot", layout, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def layout_in(folder: Path, *, url: str = "http://10.0.0.1/liveos.iso", loader: str = "bootx64.efi") -> Path:
    """A layout with files named like a boot loader and an ISO."""
    (folder / "pxe").mkdir()
    for name in (loader, "liveos.iso"):
        (folder / "pxe" / name).write_bytes(b"x")
    outputs = [{"path": loader, "size": 1}, {"path": "liveos.iso", "size": 1, "url": url}]
    (folder / "pxe/manifest.json").write_text(json.dumps({"outputs": outputs}))
    return folder / "pxe"


def refused(ran: subprocess.CompletedProcess[str], reference: str) -> str:
    """The message of a refusal, after checking that it is one."""
    assert ran.returncode == 2, ran.stderr
    assert f"error[{reference}]" in ran.stderr
    assert "hint: " in ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_a_folder_that_is_no_layout(tmp_path: Path) -> None:
    assert "manifest.json" in refused(boot(tmp_path), "layout-unreadable")
    assert "not a directory" in refused(boot(tmp_path / "nowhere"), "layout-unreadable")


@pytest.mark.parametrize("manifest", ["", "[]", "{", '{"outputs": 1}', '{"outputs": [{"path": "a"}]}'])
def test_a_manifest_that_cannot_be_read(tmp_path: Path, manifest: str) -> None:
    (layout_in(tmp_path) / "manifest.json").write_text(manifest)
    refused(boot(tmp_path / "pxe"), "layout-unreadable")


@pytest.mark.parametrize("text", ["pxe-fetch.config", "=file", "a b=file", "..=file", "pxe-fetch.config="])
def test_a_credential_without_a_name_or_a_file(tmp_path: Path, text: str) -> None:
    ran = boot(layout_in(tmp_path), "--credential", text)
    assert ran.returncode == 2
    assert "NAME=FILE" in ran.stderr


def test_a_credential_that_cannot_be_read_or_is_too_large_for_the_firmware(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    missing = boot(layout, "--credential", f"pxe-fetch.config={tmp_path}/nothing")
    assert "No such file" in refused(missing, "credential-unusable")
    (tmp_path / "large").write_bytes(b"x" * 60_000)
    large = boot(layout, "--credential", f"pxe-fetch.config={tmp_path}/large")
    assert "49152 bytes" in refused(large, "credential-unusable")


def test_a_file_to_serve_that_is_missing_or_has_no_url(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    said = refused(boot(layout, "--serve", f"{tmp_path}/nothing.yaml"), "boot-serve")
    assert "nothing.yaml" in said
    (tmp_path / "fleet.yaml").write_text("version: 1\n")
    said = refused(boot(layout, "--serve", f"{tmp_path}/fleet.yaml"), "boot-serve")
    assert "pxe-pack pin" in said


def test_a_file_to_serve_by_https_which_needs_the_production_hosts_key(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("version: 1\n")
    refused(boot(layout_in(tmp_path), "--serve", f"{tmp_path}/fleet.yaml=https://10.0.0.1/f"), "boot-url-unplayable")


def test_a_layout_for_another_architecture(tmp_path: Path) -> None:
    assert "x86_64" in refused(boot(layout_in(tmp_path, loader="bootaa64.efi")), "layout-architecture")


def test_a_file_of_the_image_that_would_come_by_https_is_left_out(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    document = json.loads((layout / "manifest.json").read_bytes())
    document["outputs"].append({"path": "a", "size": 1, "url": "https://10.0.0.1/a", "kind": "additional"})
    (layout / "manifest.json").write_text(json.dumps(document))
    refused(boot(layout, "--credential", f"pxe-fetch.config={tmp_path}/nothing"), "credential-unusable")


def test_https_which_needs_the_production_hosts_key(tmp_path: Path) -> None:
    said = refused(boot(layout_in(tmp_path, url="https://10.0.0.1/liveos.iso")), "boot-url-unplayable")
    assert "--boot-url http://" in said


def test_missing_programs_are_named_with_their_packages(tmp_path: Path) -> None:
    said = refused(boot(layout_in(tmp_path), path=str(tmp_path)), "tool-missing")
    assert "qemu-system-x86_64" in said
    assert "apt-get install qemu-system-x86\n" in said


def test_a_serial_log_that_cannot_be_written(tmp_path: Path) -> None:
    said = refused(boot(layout_in(tmp_path), "--serial-log", str(tmp_path / "no/such/folder")), "serial-log-unwritable")
    assert "--serial-log FILE" in said


def test_kernel_arguments_that_grub_cannot_be_given(tmp_path: Path) -> None:
    refused(boot(layout_in(tmp_path), "--append", "a='b c'"), "append-unquotable")
    assert not (tmp_path / "pxe.serial.log").exists()


@pytest.mark.parametrize(
    "arguments", [["--timeout", "0"], ["--timeout", "0s"], ["--timeout", "x"], ["--memory", "4"], ["--sideways"]]
)
def test_flags_that_make_no_sense(tmp_path: Path, arguments: list[str]) -> None:
    ran = boot(layout_in(tmp_path), *arguments)
    assert ran.returncode == 2
    assert arguments[0] in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("written", ["15m", "900", "1h"])
def test_a_timeout_is_a_time_or_a_number_of_seconds(tmp_path: Path, written: str) -> None:
    refused(boot(layout_in(tmp_path), "--timeout", written, "--append", "a='b c'"), "append-unquotable")


def test_a_store_of_variables_that_is_missing_is_made_with_the_certificate(tmp_path: Path) -> None:
    said = refused(boot(layout_in(tmp_path), "--secure-boot", str(tmp_path / "none.fd")), "firmware-variables")
    assert "make it with your certificate (docs/trust.md)" in said


def test_a_layout_without_a_script_for_ipxe(tmp_path: Path) -> None:
    assert "--via tftp" in refused(boot(layout_in(tmp_path), "--via", "ipxe"), "layout-no-ipxe")
