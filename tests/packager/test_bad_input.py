"""What cannot be packed: exit code 2, a sentence that says what to do, and nothing left behind."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from liveos import newc
from packing.site import ARTIFACT, Site, files_of, make_iso, small_agent
from pxe_pack import cli, tools
from pxe_pack.freeze.agent import MANIFEST

Refused = Callable[..., str]


def test_a_file_that_is_no_iso(site: Site, refused: Refused) -> None:
    site.image = site.agent / "pxe-fetch"
    assert "error[image-not-iso]" in refused()


def test_an_image_that_does_not_exist_or_is_a_folder_of_other_things(site: Site, refused: Refused) -> None:
    site.image = site.folder / "nowhere.iso"
    assert "error[image-unreadable]" in refused()
    site.image = site.agent
    assert "error[image-no-grub]" in refused()


def test_a_configuration_that_no_node_would_read(site: Site, refused: Refused) -> None:
    """What `defaults` say once, the node's configuration says for each artifact."""
    artifacts = [ARTIFACT | {"name": f"m{number}", "dest": f"/srv/m{number}"} for number in range(600)]
    site.rest = {"defaults": {"headers": {"X-Site": 2000 * "x"}}, "artifacts": artifacts}
    told = refused("--inject", "updates")
    assert "error[config-too-large]" in told
    assert "no node reads more than 1,048,576" in told


def test_an_empty_image(site: Site, refused: Refused) -> None:
    site.image = site.folder / "empty.iso"
    site.image.touch()
    assert "error[image-not-iso]" in refused()


def test_an_iso_without_a_liveos(site: Site, refused: Refused) -> None:
    content = {path: data for path, data in files_of(site.image).items() if path != "liveos/rootfs.img"}
    site.image = make_iso(site.folder / "bare.iso", dict(content))
    assert "error[image-no-liveos]" in refused()


def test_an_iso_of_something_else(site: Site, refused: Refused) -> None:
    site.image = make_iso(site.folder / "photos.iso", {"beach.jpg": b"\xff\xd8"})
    said = refused()
    assert "error[image-no-grub]" in said
    assert "it is not a LiveOS that pxe-pack supports" in said


def test_an_iso_without_boot_loaders(site: Site, refused: Refused) -> None:
    content = {path: data for path, data in files_of(site.image).items() if not path.endswith(".efi")}
    site.image = make_iso(site.folder / "bios.iso", dict(content))
    assert "error[image-no-boot-loader]" in refused()


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.999])
def test_a_truncated_iso(site: Site, refused: Refused, kept: float) -> None:
    whole = site.image.read_bytes()
    site.image = site.folder / "part.iso"
    site.image.write_bytes(whole[: int(len(whole) * kept)])
    said = refused()
    assert "error[image-truncated]" in said
    assert f"{len(whole):,}" in said


def test_a_root_filesystem_that_is_not_there_after_all(site: Site, refused: Refused) -> None:
    content = dict(files_of(site.image))
    content["liveos/rootfs.img"] = os.urandom(100_000)
    site.image = make_iso(site.folder / "noise.iso", dict(content))
    assert "error[image-no-liveos]" in refused()


def test_an_ext4_in_a_squashfs_for_rootfs(site: Site, refused: Refused, tiny_ext4: Path) -> None:
    site.image = tiny_ext4
    said = refused("--inject", "rootfs")
    assert "error[inject-unsuitable]" in said
    assert "a squashfs that only wraps another filesystem (LiveOS/rootfs.img)" in said
    assert "hint: use --inject updates" in said


def test_a_grub_cfg_that_boots_no_liveos(site: Site, refused: Refused) -> None:
    content = dict(files_of(site.image))
    content["boot/grub2/grub-pxe.cfg"] = b"menuentry x { linux /boot/vmlinuz root=/dev/sda1 }\n"
    site.image = make_iso(site.folder / "disk.iso", dict(content))
    assert "no entry boots a LiveOS" in refused()


def test_a_grub_cfg_that_loads_what_is_not_there(site: Site, refused: Refused) -> None:
    content = {path: data for path, data in files_of(site.image).items() if path != "boot/initrd.img"}
    site.image = make_iso(site.folder / "partial.iso", dict(content))
    assert "it loads /boot/initrd.img, which the image does not have" in refused()


def test_an_initrd_that_cannot_fetch(site: Site, refused: Refused) -> None:
    content = dict(files_of(site.image))
    content["boot/initrd.img"] = newc.archive([newc.Entry("init", 0o100755, b"#!/bin/sh\n")])
    site.image = make_iso(site.folder / "poor.iso", dict(content))
    assert "has no livenet and no dmsquash-live" in refused()


def test_a_damaged_initrd(site: Site, refused: Refused) -> None:
    content = dict(files_of(site.image))
    content["boot/initrd.img"] = content["boot/initrd.img"][:200]
    site.image = make_iso(site.folder / "damaged.iso", dict(content))
    assert "error[initrd-damaged]" in refused()


def test_every_problem_of_the_configuration_at_once(site: Site, refused: Refused) -> None:
    site.rest = {
        "artefacts": [],
        "parallel": "many",
        "artifacts": [
            {"name": "a", "url": "http://10.0.0.1/a", "dest": "/srv/a"},
            {**ARTIFACT, "name": "b", "dest": "/etc/shadow"},
            {**ARTIFACT, "name": "c", "dest": "/srv/../etc/c"},
            {**ARTIFACT, "name": "d", "dest": f"/srv/{'d' * 256}"},
            {**ARTIFACT, "name": "e", "dest": "/srv/e\nf", "timeouts": {"min_rate": "1TiB"}},
        ],
    }
    said = refused()
    for reference in (
        *("unknown-key", "wrong-type", "checksum-missing", "dest-outside-roots", "path-climbs"),
        *("path-too-long", "path-invalid", "rate-out-of-range"),
    ):
        assert f"error[{reference}]" in said, said
    assert "problems found" in said


def test_a_credential_that_nodes_would_send_unencrypted_to_where_a_source_is_exported(
    site: Site, refused: Refused
) -> None:
    (site.folder / "token.txt").write_text("x")
    artifact = {"name": "t", "source": "token.txt", "dest": "/srv/t", "header_credential": "pxe-fetch.token"}
    site.rest = {"artifacts": [artifact]}
    said = refused()
    assert "error[credential-unencrypted]: t would send the credential pxe-fetch.token unencrypted to http://" in said
    assert "insecure: true" in said


def test_a_duplicate_key(site: Site, refused: Refused) -> None:
    site.text = "version: 1\nparallel: 2\nparallel: 3\n"
    assert "error[duplicate-key]" in refused()


def test_a_configuration_that_cannot_be_read(site: Site, refused: Refused) -> None:
    assert "error[config-unreadable]" in refused("--agent-config", site.folder / "nowhere.yaml")


@pytest.mark.parametrize("command", [["--agent-config"], ["lock"], ["check", "--agent-config"]])
@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_in_place_of_the_configuration(
    command: list[str], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, folder]) == 2
    assert (
        f"error[config-unreadable]: cannot read the configuration {folder}: Is a directory" in capsys.readouterr().err
    )


def test_a_node_memory_whose_unit_was_forgotten(refused: Refused) -> None:
    assert "error[node-memory]: a node needs at least " in refused("--node-memory", "4B")


def test_a_pack_with_closed_streams_writes_no_message_into_its_output(site: Site, packs: Callable[..., str]) -> None:
    packs()
    expected = (site.output / "SHA256SUMS").read_bytes()
    shutil.rmtree(site.output)
    words = shlex.join([sys.executable, "-m", "pxe_pack", *site.command()])
    assert subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], check=False).returncode == 0
    assert (site.output / "SHA256SUMS").read_bytes() == expected
    checksums = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(checksums, cwd=site.output, check=False).returncode == 0


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1/liveos.iso?token=1", "has a query, so it does not end in .iso"),
        ("http://10.0.0.1/liveos.iso#part", "does not end in .iso"),
        ("http://10.0.0.1/liveos.img", "does not end in .iso"),
        ("http://10.0.0.1/.iso", "does not end in .iso"),
        ("http://10.0.0.1/", "does not end in .iso"),
        ("liveos.iso", "is not a URL that an initrd can fetch"),
        ("file:///liveos.iso", "is not a URL that an initrd can fetch"),
        ("http://10.0.0.1/a b.iso", "characters that are not allowed in a kernel argument"),
        ("http://10.0.0.1/..%2fa.iso", "is not a valid file name"),
        ("http://10.0.0.1/a/../liveos.iso", "has `.` or `..` in its path"),
        ("http://10.0.0.1/%2e%2E/liveos.iso", "has `.` or `..` in its path"),
        ("http://10.0.0.256/liveos.iso", "neither a name nor an address of four numbers"),
        ("http://010.0.0.1/liveos.iso", "neither a name nor an address of four numbers"),
        ("http://10.1/liveos.iso", "neither a name nor an address of four numbers"),
        ("http://0x0a000001/liveos.iso", "neither a name nor an address of four numbers"),
    ],
)
def test_a_boot_url_that_no_node_could_boot_from(refused: Refused, url: str, why: str) -> None:
    said = refused("--boot-url", url)
    assert "error[boot-url-invalid]" in said
    assert why in said


@pytest.mark.parametrize("url", ["http://10.0.0.1/files/../", "http://10.0.0/files/"])
def test_an_artifact_url_that_clients_would_read_differently(refused: Refused, url: str) -> None:
    assert "error[artifact-url-invalid]" in refused("--artifact-url", url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::1]", "0.0.0.0"])  # noqa: S104
def test_a_boot_url_by_which_each_node_asks_itself_is_warned_of(
    site: Site, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.pack["boot_url"] = f"http://{host}/liveos.iso"
    assert cli.main(site.command("--quiet", "--dry-run")) == 0
    assert f"warning[url-own-machine]: with http://{host}/liveos.iso, each node asks itself" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--boot-url", "--artifact-url"])
@pytest.mark.parametrize("url", ["http://u:s3cret@10.0.0.1/liveos.iso", "http://10.0.0.1/liveos.iso?sig=s3cret"])
def test_a_secret_in_a_url_that_is_refused_is_not_shown(refused: Refused, flag: str, url: str) -> None:
    said = refused(flag, url)
    assert f"error[{flag.strip('-')}-invalid]" in said
    assert "s3cret" not in said


def test_what_is_not_given_is_named_all_at_once(site: Site, refused: Refused) -> None:
    site.text = "version: 1\nartifacts: []\n"
    said = refused()
    for what in ("image", "output", "boot-url"):
        assert f"error[{what}-missing]" in said


def test_a_source_that_is_not_there(site: Site, refused: Refused) -> None:
    site.rest = {"artifacts": [{"name": "m", "source": "nowhere.bin", "dest": "/srv/m"}]}
    said = refused("--boot-url", "http://x/y.img")
    assert "error[source-unreadable]" in said
    assert "error[boot-url-invalid]" in said  # both at once


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_source_whose_name_cannot_be_in_a_layout(site: Site, refused: Refused, make: Callable[[Path], None]) -> None:
    make(site.folder / "line\nbreak")
    site.rest = {"artifacts": [{"name": "m", "source": "line\nbreak", "dest": "/srv/m"}]}
    assert "cannot be in a layout: its name contains a control character" in refused()


def test_an_input_inside_the_output(site: Site, refused: Refused) -> None:
    site.output.mkdir()
    shutil.copyfile(site.image, site.output / "liveos.iso")
    site.image = site.output / "liveos.iso"
    assert "error[input-in-output]" in refused()


def test_an_output_whose_parent_is_missing_or_a_file(site: Site, refused: Refused) -> None:
    assert "error[output-no-parent]" in refused("--output", site.folder / "no" / "such" / "pxe")
    assert "error[output-foreign]" in refused("--output", site.config)


@pytest.mark.parametrize(("program", "package"), [("xorriso", "xorriso"), ("tar2sqfs", "squashfs-tools-ng")])
def test_a_missing_tool_is_named_with_its_package(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, empty_folder: Path, program: str, package: str
) -> None:
    for name in {"xorriso", "sqfs2tar", "tar2sqfs", "zstd"} - {program}:
        (empty_folder / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setattr(tools, "SEARCH_PATH", str(empty_folder))
    said = refused("--inject", "rootfs", "--compressor", "zstd")
    assert f"error[tool-missing]: {program} is required to pack with `rootfs`, but is not installed" in said
    assert f"hint: apt-get install {package}" in said


@pytest.fixture
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside the site's, for its own must stay as it was."""
    return tmp_path_factory.mktemp("bin")


def test_an_agent_for_a_newer_glibc_is_refused_with_both_versions(site: Site, refused: Refused) -> None:
    agent = small_agent(site.folder / "agent")
    manifest = agent / MANIFEST
    text = manifest.read_text()
    floor = text.split('"glibc": "')[1].split('"')[0]
    manifest.write_text(text.replace(f'"glibc": "{floor}"', '"glibc": "2.99"'))
    site.agent = agent
    said = refused()
    assert "error[agent-glibc]: the agent needs glibc 2.99 or newer, the image has 2." in said


def test_a_folder_that_is_no_agent(site: Site, refused: Refused) -> None:
    site.agent = site.folder
    assert "error[agent-unknown]" in refused()


def test_too_little_room_is_told_before_anything_is_written(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    said = refused()
    assert "error[disk-full]" in said
    assert "1,000,000 are free" in said
