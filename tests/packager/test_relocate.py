"""A layout served from elsewhere: nothing packed again, and what a node is told is true."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from packing.checking import Checked
from packing.site import BOOT_URL, Site, with_files
from pxe_pack import cli

Packs = Callable[..., str]
NEW = "http://192.0.2.7/images/other%20name.iso"
FILES = "http://192.0.2.8:81/files/"


@pytest.fixture
def layout(site: Site, packs: Packs) -> Site:
    """A packed layout with an exported artifact."""
    (site.folder / "m#1.bin").write_bytes(b"weights " * 1000)
    site.rest = {"artifacts": [{"name": "model", "source": "m#1.bin", "dest": "/srv/m.bin"}]}
    packs()
    return site


def cfg(site: Site) -> str:
    return (site.output / "boot/grub2/grub.cfg").read_text()


def urls(site: Site) -> dict[str, str]:
    outputs = site.manifest()["outputs"]
    assert isinstance(outputs, list)
    return {entry["path"]: entry["url"] for entry in outputs if "url" in entry}


def check_whole(site: Site) -> None:
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=site.output, check=True)
    subprocess.run(["grub-script-check", site.output / "boot/grub2/grub.cfg"], check=True)
    assert not site.leftovers()


def relocate(site: Site, *arguments: str) -> int:
    return cli.main(["relocate", str(site.output), *arguments])


def test_both_urls_move_and_no_byte_of_the_image_does(layout: Site) -> None:
    before = layout.iso.stat().st_ino
    content = layout.iso.read_bytes()
    assert relocate(layout, "--boot-url", NEW, "--artifact-url", FILES) == 0
    moved = layout.output / "other name.iso"
    assert (moved.stat().st_ino, moved.read_bytes()) == (before, content)
    assert not layout.iso.exists()
    assert cfg(layout).count(f"root=live:{NEW}") == 1
    assert BOOT_URL not in cfg(layout)
    assert cfg(layout).count(f"pxe-fetch.artifact_url={FILES}") == 1
    assert urls(layout) == {
        "azl-image-customizer/saved-configs.yaml": "http://192.0.2.7/images/azl-image-customizer/saved-configs.yaml",
        "other name.iso": NEW,
        "other-user-artifacts/m#1.bin": f"{FILES}m%231.bin",
    }
    assert (layout.manifest()["boot_url"], layout.manifest()["artifact_url"]) == (NEW, FILES)
    check_whole(layout)


def test_one_url_moves_alone(layout: Site) -> None:
    assert relocate(layout, "--boot-url", NEW) == 0
    assert "pxe-fetch.artifact_url" not in cfg(layout)
    assert relocate(layout, "--artifact-url", FILES.rstrip("/")) == 0
    assert f"root=live:{NEW}" in cfg(layout)
    assert f"pxe-fetch.artifact_url={FILES}" in cfg(layout)
    check_whole(layout)


def test_artifacts_that_stay_with_the_old_server_are_told(layout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    packed = str(layout.manifest()["artifact_url"])
    assert relocate(layout, "--boot-url", NEW) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "warning[relocate-artifacts-stay]: nodes still fetch other-user-artifacts/m#1.bin from the old server" in said
    )
    assert "--artifact-url http://192.0.2.7/images/other-user-artifacts/" in said
    for arguments in (
        ["--boot-url", NEW.replace("other", "another")],  # they are elsewhere on purpose by now
        ["--boot-url", BOOT_URL, "--artifact-url", packed],
        ["--boot-url", BOOT_URL.replace("liveos", "other")],  # on the same server
        ["--boot-url", NEW, "--artifact-url", FILES],
    ):
        assert relocate(layout, *arguments) == 0
        assert "warning" not in capsys.readouterr().err


def test_moved_twice_and_back_it_is_what_it_was(layout: Site) -> None:
    before = {path: path.read_bytes() for path in layout.output.rglob("*") if path.is_file()}
    packed = str(layout.manifest()["artifact_url"])
    assert relocate(layout, "--boot-url", NEW, "--artifact-url", FILES) == 0
    assert relocate(layout, "--artifact-url", "https://198.51.100.1/x") == 0
    assert cfg(layout).count("pxe-fetch.artifact_url=") == 1
    assert relocate(layout, "--boot-url", BOOT_URL, "--artifact-url", packed) == 0
    assert {path: path.read_bytes() for path in layout.output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_pack_of_a_relocated_layout_has_the_packs_urls(layout: Site, packs: Packs, form: str) -> None:
    moved = layout.folder / "moved"
    layout.output.rename(moved)
    base = "http://[2001:db8::1]/"
    assert cli.main(["relocate", str(moved), "--boot-url", f"{base}other.iso", "--artifact-url", f"{base}files/"]) == 0
    assert "pxe-fetch.artifact_url=" in (moved / "boot/grub2/grub.cfg").read_text()
    before = layout.image
    layout.image = moved
    if form == "tar":
        layout.image = layout.folder / "moved.tar"
        subprocess.run(["tar", "-C", moved, "-cf", layout.image, "."], check=True)
    packs()
    assert "pxe-fetch.artifact_url=" not in cfg(layout) + (layout.output / "boot.ipxe").read_text()
    packed = {path.name: path.read_bytes() for path in layout.output.glob("*.iso")}
    arguments = sorted(cfg(layout).split())
    layout.image = before
    packs()
    assert {path.name: path.read_bytes() for path in layout.output.glob("*.iso")} == packed
    assert sorted(cfg(layout).split()) == arguments


def test_what_the_user_changed_in_grub_cfg_stays(layout: Site) -> None:
    file = layout.output / "boot/grub2/grub.cfg"
    file.write_text(file.read_text().replace("ip=dhcp", "ip=dhcp mine=yes") + "# my own note\n")
    assert relocate(layout, "--boot-url", NEW) == 0
    assert "mine=yes" in cfg(layout)
    assert "# my own note" in cfg(layout)
    check_whole(layout)


def test_a_layout_without_exported_files_gets_no_argument(site: Site, packs: Packs) -> None:
    packs()
    assert relocate(site, "--boot-url", NEW, "--artifact-url", FILES) == 0
    assert "pxe-fetch.artifact_url" not in cfg(site)
    check_whole(site)


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ([], "relocate-nothing"),
        (["--boot-url", "http://10.0.0.1/liveos.img"], "boot-url-invalid"),
        (["--boot-url", "ftp:///x.iso"], "boot-url-invalid"),
        (["--boot-url", "http://h/a b.iso"], "boot-url-invalid"),
        (["--boot-url", "http://u:p@h/a.iso"], "boot-url-invalid"),
        (["--boot-url", "http://[::1/a.iso"], "boot-url-invalid"),
        (["--boot-url", "http://h/%2e%2e%2fa.iso"], "boot-url-invalid"),
        (["--boot-url", "http://h/%0a.iso"], "boot-url-invalid"),
        (["--artifact-url", "http://h:x/"], "artifact-url-invalid"),
        (["--artifact-url", "files/"], "artifact-url-invalid"),
        (["--artifact-url", "http://h/x?y"], "artifact-url-invalid"),
    ],
)
def test_urls_that_cannot_be_are_refused(
    layout: Site, capsys: pytest.CaptureFixture[str], arguments: list[str], reference: str
) -> None:
    before = sorted(layout.folder.rglob("*"))
    assert relocate(layout, *arguments) == 2
    assert f"error[{reference}]" in capsys.readouterr().err
    assert sorted(layout.folder.rglob("*")) == before
    check_whole(layout)


def test_urls_that_two_files_would_share_are_refused(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel too: iPXE finds it at the top of the server."""
    more = {"vmlinuz": b"x", "m.bin": b"x", "docs.iso/x": b"x"}
    site.image = with_files(site.image, site.folder / "rich.iso", more)
    (site.folder / "m.bin").write_bytes(b"weights")
    site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
    packs()
    for arguments, told in {
        ("--boot-url", "http://h/boot/x.iso"): "vmlinuz and boot/vmlinuz would both be served at http://h/boot/vmlinuz",
        ("--artifact-url", "http://10.0.0.1:8080/images/"): "m.bin and other-user-artifacts/m.bin would both be served",
        (
            "--boot-url",
            "http://h/docs.iso",
        ): "the ISO would be named docs.iso, but the layout has another file or a folder",
    }.items():
        assert relocate(site, *arguments) == 2
        said = capsys.readouterr().err
        assert "error[relocate-name-taken]" in said
        assert told in said
        check_whole(site)


def test_a_layout_that_is_none_or_not_whole_is_refused(layout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["relocate", str(layout.folder), "--boot-url", NEW]) == 2
    assert "error[layout-unreadable]" in capsys.readouterr().err
    (layout.output / "notes.txt").write_text("mine")
    assert relocate(layout, "--boot-url", NEW) == 2
    assert "notes.txt" in capsys.readouterr().err
    (layout.output / "notes.txt").unlink()
    (layout.output / "boot/vmlinuz").unlink()
    assert relocate(layout, "--boot-url", NEW) == 2
    assert "boot/vmlinuz is listed in manifest.json but does not exist" in capsys.readouterr().err


def test_a_grub_cfg_that_names_another_root_is_refused(layout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    file = layout.output / "boot/grub2/grub.cfg"
    file.write_text(file.read_text().replace(BOOT_URL, "http://elsewhere/x.iso"))
    assert relocate(layout, "--boot-url", NEW) == 2
    assert "error[relocate-no-root]" in capsys.readouterr().err


def test_json_tells_what_changed(layout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert relocate(layout, "--boot-url", NEW, "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["event"], result["boot_url"]) == ("result", NEW)
    assert result["changed"] == ["boot.ipxe", "boot/grub2/grub.cfg", "other name.iso"]


def test_killed_at_any_moment_it_is_the_one_or_the_other(layout: Site) -> None:
    """Moved by processes that are killed after ever longer times, until one gets to its end."""
    delay, ends = 0.1, [-signal.SIGKILL]
    while ends[-1] == -signal.SIGKILL:
        target = NEW if f"root=live:{BOOT_URL}" in cfg(layout) else BOOT_URL
        command = [sys.executable, "-m", "pxe_pack", "relocate", str(layout.output), "--boot-url", target]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        delay *= 1.1
        ends.append(process.returncode)
        (iso,) = layout.output.glob("*.iso")
        url = NEW if iso.name == "other name.iso" else BOOT_URL
        assert f"root=live:{url}" in cfg(layout)
        assert layout.manifest()["boot_url"] == url
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=layout.output, check=True)
    assert ends[-1] == 0
    assert len(ends) > 2
    check_whole(layout)


@pytest.mark.parametrize(
    ("url", "reference"),
    [
        ("nfs://192.0.2.7/export/liveos.iso", "initrd-no-nfs"),
        ("https://192.0.2.7/liveos.iso", "initrd-no-certificates"),
    ],
)
def test_a_url_that_the_initrd_cannot_fetch_is_refused(
    layout: Site, capsys: pytest.CaptureFixture[str], url: str, reference: str
) -> None:
    """As packing does."""
    before = {path: path.read_bytes() for path in layout.output.rglob("*") if path.is_file()}
    assert relocate(layout, "--boot-url", url) == 2
    assert f"error[{reference}]" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in layout.output.rglob("*") if path.is_file()} == before
    assert not layout.leftovers()


def test_artifacts_by_https_without_certificates_are_warned_of(
    layout: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert relocate(layout, "--artifact-url", "https://192.0.2.8/files/") == 0
    assert "warning[root-no-certificates]" in capsys.readouterr().err
    assert relocate(layout, "--artifact-url", "http://192.0.2.8/files/") == 0
    assert "warning" not in capsys.readouterr().err


def test_relative_urls_are_warned_of_until_the_layout_has_a_base_url(
    layout: Site, packs: Packs, checked: Callable[..., Checked]
) -> None:
    layout.rest = {"artifacts": [{"name": "m", "url": "models/m.bin", "sha256": "0" * 64, "dest": "/srv/m"}]}
    packs()
    told = checked(layout.output)
    assert told.severity("url-relative") == "warning"
    assert "artifact m: models/m.bin is relative" in told.found["url-relative"]["message"]
    for base in ("http://192.0.2.9/mirror", "http://192.0.2.10/mirror/"):
        assert relocate(layout, "--base-url", base) == 0
        for text in (cfg(layout), (layout.output / "boot.ipxe").read_text()):
            assert text.count(f"pxe-fetch.base_url={base.rstrip('/')}/") == 1
            assert text.count("pxe-fetch.base_url=") == 1
        check_whole(layout)
        assert not {"url-relative", "layout-differs"} & set(checked(layout.output).found)
    assert relocate(layout, "--boot-url", NEW) == 0
    assert cfg(layout).count("pxe-fetch.base_url=http://192.0.2.10/mirror/") == 1


@pytest.mark.parametrize("url", ["mirror/", "gopher://h/", "http://u:p@h/"])
def test_what_cannot_be_a_base_url_is_refused(layout: Site, capsys: pytest.CaptureFixture[str], url: str) -> None:
    before = cfg(layout)
    assert relocate(layout, "--base-url", url) == 2
    assert "error[base-url-invalid]" in capsys.readouterr().err
    assert cfg(layout) == before


def test_the_base_url_of_the_kernel_arguments_is_where_a_check_asks(
    layout: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
    artifact = {"name": "m", "url": "m.bin", "sha256": "0" * 64, "dest": "/srv/m"}
    layout.rest = {"defaults": {"base_url": f"{base}/before/"}, "artifacts": [artifact]}
    packs("--boot-url", f"{base}/liveos.iso")
    assert relocate(layout, "--base-url", f"{base}/now/") == 0
    capsys.readouterr()
    assert cli.main(["check", str(layout.output), "--json"]) == 3
    told = capsys.readouterr().out
    assert f"{base}/now/m.bin" in told
    assert f"{base}/before/" not in told
