"""What lies on the image's medium and has no part in the boot is served, where it lay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site, files_of, with_files
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]
CONFIGS = "azl-image-customizer/saved-configs.yaml"
NOTE = "other-user-artifacts/a nöte#1.txt"
MORE = {NOTE: b"carried\n", "docs/en/read me.md": b"# Read me\n", "top.bin": b"\0" * 5000}


@pytest.fixture
def rich(site: Site, tmp_path: Path) -> Site:
    """A site whose image has files of its own."""
    site.image = with_files(site.image, tmp_path / "rich.iso", MORE)
    return site


@pytest.fixture
def rich_dir(site: Site, tiny_pxe_dir: Path, tmp_path: Path) -> Site:
    """A site with a pxe-dir that has files of its own: `additionalFiles` of Image Customizer."""
    site.image = tmp_path / "pxe-dir"
    shutil.copytree(tiny_pxe_dir, site.image)
    for name, content in MORE.items():
        (site.image / name).parent.mkdir(parents=True, exist_ok=True)
        (site.image / name).write_bytes(content)
    return site


def additional(site: Site) -> dict[str, str | None]:
    """Path -> URL of the additional files in the manifest."""
    outputs = site.manifest()["outputs"]
    assert isinstance(outputs, list)
    return {entry["path"]: entry.get("url") for entry in outputs if entry["kind"] == "additional"}


def carried(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in MORE}


def check_sums(site: Site) -> None:
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=site.output, check=True)
    sums = (site.output / "SHA256SUMS").read_text()
    assert all(f"  {name}\n" in sums for name in MORE)


def test_files_of_an_iso_are_served_where_they_lay(rich: Site, packs: Packs) -> None:
    said = packs()
    assert carried(rich.output) == MORE
    base = "http://10.0.0.1:8080/images"
    assert additional(rich) == {
        CONFIGS: f"{base}/{CONFIGS}",
        NOTE: f"{base}/other-user-artifacts/a%20n%C3%B6te%231.txt",
        "docs/en/read me.md": f"{base}/docs/en/read%20me.md",
        "top.bin": f"{base}/top.bin",
    }
    check_sums(rich)
    assert f"  {NOTE} " in said
    assert f"Serve by HTTP:  other-user-artifacts/ as {base}/other-user-artifacts/\n" in said
    assert f"Serve by HTTP:  docs/ as {base}/docs/\n" in said


@pytest.mark.parametrize("how", ["rootfs", "updates", "initrd"])
def test_files_are_served_whichever_way_the_payload_goes_in(rich: Site, packs: Packs, how: str) -> None:
    packs("--inject", how)
    assert carried(rich.output) == MORE
    assert len(additional(rich)) == len(MORE) + 1


def test_a_plan_lists_them_and_a_dry_run_writes_none(
    rich: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    said = packs("--dry-run")
    assert "file      docs/en/read me.md (10 bytes) as http://10.0.0.1:8080/images/docs/en/read%20me.md\n" in said
    assert not rich.output.exists()
    assert cli.main(rich.command("--dry-run", "--json")) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]
    assert [entry["path"] for entry in plan["additional_files"]] == sorted([CONFIGS, *MORE])


def test_a_plan_of_many_files_is_short(site: Site, packs: Packs, tmp_path: Path) -> None:
    many = {f"many/{number:03}": b"x" for number in range(100)}
    site.image = with_files(site.image, tmp_path / "many.iso", many)
    said = packs("--dry-run")
    assert said.count("\nfile      ") == 20
    assert "and 81 more of the image's files, 81 bytes" in said


def test_files_in_the_artifacts_folder_are_below_the_artifact_url(rich: Site, packs: Packs) -> None:
    rich.pack = {"artifact_url": "http://10.0.0.2/files/"}
    packs()
    assert additional(rich)[NOTE] == "http://10.0.0.2/files/a%20n%C3%B6te%231.txt"
    assert additional(rich)["top.bin"] == "http://10.0.0.1:8080/images/top.bin"


def test_files_of_a_pxe_dir_are_served(rich_dir: Site, packs: Packs) -> None:
    packs()
    assert carried(rich_dir.output) == MORE
    assert additional(rich_dir).keys() == {CONFIGS, *MORE}
    check_sums(rich_dir)


def test_files_of_a_pxe_tar_are_those_of_its_folder(rich_dir: Site, packs: Packs, tmp_path: Path) -> None:
    packs()
    expected = {
        path: path.read_bytes() for path in rich_dir.output.rglob("*") if path.name in ("top.bin", "read me.md")
    }
    with tarfile.open(tmp_path / "image.tar.gz", "w:gz") as out:
        out.add(rich_dir.image, arcname=".")
    rich_dir.image = tmp_path / "image.tar.gz"
    packs()
    assert {path: path.read_bytes() for path in expected} == expected
    assert additional(rich_dir).keys() == {CONFIGS, *MORE}


def test_files_of_a_full_os_image_are_served(site: Site, packs: Packs, tiny_full_os: Path, tmp_path: Path) -> None:
    """There is no ISO whose URL could tell their own: it is the artifacts' that does, or none is known."""
    site.image = with_files(tiny_full_os, tmp_path / "rich.iso", MORE)
    for artifact_url, url in {
        None: None,
        "http://10.0.0.1/x/other-user-artifacts/": "http://10.0.0.1/x/top.bin",
        "http://10.0.0.1/files/": "http://10.0.0.1/top.bin",
    }.items():
        site.pack = {"boot_url": None, "artifact_url": artifact_url}
        packs()
        assert carried(site.output) == MORE
        assert additional(site)["top.bin"] == url
        assert additional(site).keys() == {CONFIGS, *MORE}


def test_what_boots_the_image_is_not_served_a_second_time(
    site: Site, packs: Packs, tiny_guarded: Path, tiny_full_os: Path, tiny_pxe_dir: Path
) -> None:
    """Neither El Torito's catalog and images, nor root filesystem, grub-pxe.cfg or the other loaders."""
    for image in (site.image, tiny_guarded, tiny_full_os, tiny_pxe_dir):
        site.image = image
        packs()
        assert additional(site).keys() == {CONFIGS}, image


def left_behind(site: Site) -> dict[str, str]:
    """Path -> why of what the manifest says is left behind."""
    entries = site.manifest()["left_behind"]
    assert isinstance(entries, list)
    return {entry["path"]: entry["why"] for entry in entries}


@pytest.fixture
def bootable(site: Site, tmp_path: Path) -> Site:
    """A site whose image has more of what boots a medium than the layout uses."""
    there = files_of(site.image)
    loader, kernel, initrd = (there[name] for name in ("efi/boot/bootx64.efi", "boot/vmlinuz", "boot/initrd.img"))
    fat = there["boot/grub2/efiboot.img"]
    boot = {
        "EFI/BOOT/mmx64.efi": loader, "EFI/BOOT/BOOTX64.CSV": b"\xff\xfes\0", "EFI/fedora/grub.cfg": b"x\n",
        "EFI/fedora/grubenv": b"# GRUB Environment Block\n", "isolinux/isolinux.cfg": b"x\n",
        "isolinux/vesamenu.c32": b"x\n", "isolinux/vmlinuz": kernel, "boot/loader/entries/a.conf": b"title A\n",
        "boot/grub/efi.img": fat, "grub.cfg": b"x\n", "grub/grub.cfg": b"x\n",
        "boot/vmlinuz-spare": kernel, "boot/initramfs-spare.img": initrd,
    }  # fmt: skip
    site.image = with_files(site.image, tmp_path / "more.iso", {**boot, "updates/etc/motd": b"x\n"})
    return site


def test_what_boots_only_the_medium_is_left_behind_and_the_plan_says_why(bootable: Site, packs: Packs) -> None:
    plan = packs("--dry-run")
    assert "left behind  EFI/fedora/grub.cfg: GRUB's configuration for the medium; the layout has its own\n" in plan
    assert "left behind  isolinux/vesamenu.c32: only BIOS boots it\n" in plan
    packs()
    assert additional(bootable).keys() == {CONFIGS}
    found = left_behind(bootable)
    assert found.keys() == {
        "EFI/BOOT/mmx64.efi", "EFI/BOOT/BOOTX64.CSV", "EFI/fedora/grub.cfg", "EFI/fedora/grubenv",
        "isolinux/isolinux.cfg", "isolinux/vesamenu.c32", "isolinux/vmlinuz", "boot/loader/entries/a.conf",
        "boot/grub/efi.img", "grub.cfg", "grub/grub.cfg", "boot/vmlinuz-spare", "boot/initramfs-spare.img",
        # of every image
        "boot/grub2/grub.cfg", "boot/grub2/efiboot.img", "boot.catalog",
    }  # fmt: skip
    assert found["boot/vmlinuz-spare"] == "a kernel, but no menu entry boots it"
    assert found["boot.catalog"] == "the boot catalog of the medium"
    assert all(f"left behind  {path}: {why}\n" in plan for path, why in found.items())


def test_files_that_only_have_the_name_of_a_boot_file_are_served(site: Site, packs: Packs, tmp_path: Path) -> None:
    names = [
        "boot/initrd-notes.txt", "boot/vmlinuz.md", "boot/config-spare", "isolinux/notes.txt", "grub-pxe.cfg",
        "EFI/tools/memtest.bin", "EFI/BOOT/shim.efi", "EFI/a/b/grub.cfg", "EFI/BOOT/bootnotes.csv",
        "shimx64.efi", "loader/entries/more/a.conf", "boot/grub2/efi.img", "other-user-artifacts/grub.cfg",
        "other-user-artifacts/vmlinuz-of-others", "docs/updates/etc/motd", "EFI/x/grubenv",
    ]  # fmt: skip
    site.image = with_files(site.image, tmp_path / "more.iso", dict.fromkeys(names, b"of the user\n"))
    themes = "boot/grub2/themes/a/grub.cfg"  # GRUB may load it
    site.image = with_files(site.image, tmp_path / "theme.iso", {themes: b"theme\n"})
    packs()
    assert additional(site).keys() == {CONFIGS, *names}
    assert not left_behind(site).keys() & {*names}
    assert (site.output / themes).read_bytes() == b"theme\n"


def test_a_layout_that_is_packed_again_says_the_same_of_what_was_left_behind(
    bootable: Site, packs: Packs, tmp_path: Path
) -> None:
    packs()
    first = left_behind(bootable)
    bootable.image = tmp_path / "first"
    shutil.copytree(bootable.output, bootable.image)
    packs()
    assert left_behind(bootable) == first


def test_they_follow_the_layout_to_other_urls_and_stay_when_the_payload_goes(rich: Site, packs: Packs) -> None:
    (rich.folder / "m.bin").write_bytes(b"weights")
    rich.rest = {"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m.bin"}]}
    packs()
    new, files = "http://192.0.2.7/live.iso", "http://192.0.2.8/files/"
    command = ["relocate", str(rich.output), "--boot-url", new, "--artifact-url", files, "--quiet"]
    assert cli.main(command) == 0
    moved = {
        CONFIGS: f"http://192.0.2.7/{CONFIGS}",
        NOTE: f"{files}a%20n%C3%B6te%231.txt",
        "docs/en/read me.md": "http://192.0.2.7/docs/en/read%20me.md",
        "top.bin": "http://192.0.2.7/top.bin",
    }
    assert additional(rich) == moved
    assert cli.main(["remove", str(rich.output), "--quiet"]) == 0
    assert additional(rich) == moved
    assert carried(rich.output) == MORE
    assert not (rich.output / "other-user-artifacts/m.bin").exists()
    check_sums(rich)


def test_an_archive_has_them(rich: Site, packs: Packs) -> None:
    packs("--format", "tar", "--output", rich.folder / "pxe.tar")
    with tarfile.open(rich.folder / "pxe.tar") as tar:
        found = {name: member.read() for name in MORE if (member := tar.extractfile(name))}
    assert found == MORE


@pytest.mark.parametrize("again", ["folder", "archive", "iso"])
def test_packing_what_was_packed_gives_the_same_files_and_nothing_twice(
    rich: Site, packs: Packs, tmp_path: Path, again: str
) -> None:
    """What the first pack added is not taken for the image's own: artifacts, manifest, iPXE's script."""
    (rich.folder / "m.bin").write_bytes(b"weights")
    rich.rest = {"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m.bin"}]}
    packs("--inject", "initrd")
    rich.image = tmp_path / "first"
    if again == "archive":
        with tarfile.open(rich.image, "w") as out:
            out.add(rich.output, arcname=".")
    elif again == "iso":
        shutil.copyfile(rich.iso, rich.image)
    else:
        shutil.copytree(rich.output, rich.image)
    first = {path: path.read_bytes() for path in rich.output.rglob("*") if path.is_file()}
    (rich.folder / "m.bin").rename(rich.folder / "n.bin")
    rich.rest = {"artifacts": [{"name": "m", "source": "n.bin", "dest": "/srv/m.bin"}]}
    packs("--inject", "initrd")
    assert carried(rich.output) == MORE
    assert additional(rich).keys() == {CONFIGS, *MORE}
    found = {path for path in rich.output.rglob("*") if path.is_file()}
    artifact = rich.output / "other-user-artifacts/n.bin"
    assert found - {artifact} == first.keys() - {rich.output / "other-user-artifacts/m.bin"}
    assert artifact.read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["docs/*", "*.bin"], {CONFIGS, NOTE}),
        (["docs"], {CONFIGS, NOTE, "top.bin"}),
        (["/docs/", "azl-image-customizer"], {NOTE, "top.bin"}),
        (["**/*.md", "**/top.bin"], {CONFIGS, NOTE}),
        (["*"], set()),
    ],
)
def test_what_leave_out_names_is_not_served(rich: Site, packs: Packs, patterns: list[str], left: set[str]) -> None:
    rich.pack = {"leave_out": patterns}
    assert "left out  " in packs("--dry-run")
    packs()
    assert additional(rich).keys() == left
    assert {name for name in MORE if (rich.output / name).exists()} == left - {CONFIGS}


def test_the_flag_leave_out_wins_over_the_key(rich: Site, packs: Packs) -> None:
    rich.pack = {"leave_out": ["docs"]}
    packs("--leave-out", "*.bin", "--leave-out", "azl-image-customizer")
    assert additional(rich).keys() == {NOTE, "docs/en/read me.md"}


def test_a_pattern_that_matches_nothing_is_told(rich: Site, capsys: pytest.CaptureFixture[str]) -> None:
    rich.pack = {"leave_out": ["dosc/*", "docs/*"]}
    assert cli.main(rich.command("--quiet")) == 0
    said = capsys.readouterr().err
    assert "warning[leave-out-unused]: leave_out has 'dosc/*'" in said
    assert "'docs/*'" not in said


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("other-user-artifacts/m.bin", "would be in the place of the artifact "),
        ("other-user-artifacts/big.bin.chunks", "would be in the place of the chunk digests of "),
        ("other-user-artifacts/m.bin/inside", "would be in the place of the artifact "),
        ("other-user-artifacts", "would be in the place of the folder of other-user-artifacts/big.bin"),
        ("manifest.json", "would be in the place of the layout's manifest"),
        ("SHA256SUMS", "would be in the place of the layout's checksums"),
        ("boot.ipxe", "would be in the place of the script for iPXE"),
        ("liveos.iso", "would be in the place of the ISO, which is named by the boot_url http://10.0.0.1:8080/"),
    ],
)
def test_a_name_that_the_layout_needs_is_an_error(
    site: Site, refused: Refused, packs: Packs, name: str, told: str
) -> None:
    (site.folder / "m.bin").write_bytes(b"weights")
    (site.folder / "big.bin").write_bytes(bytes(33 << 20))
    sources = [{"name": name, "source": f"{name}.bin", "dest": f"/srv/{name}"} for name in ("m", "big")]
    site.rest = {"artifacts": sources}
    site.image = with_files(site.image, site.folder / "clash.iso", {name: b"mine\n"})
    said = refused()
    assert "error[additional-name-clash]: " in said
    assert f"the image's file {name} {told}" in said
    assert f"--leave-out {name}" in said
    packs("--leave-out", name)
    assert name not in additional(site)


def test_two_files_at_one_url_are_an_error(rich: Site, refused: Refused, tmp_path: Path) -> None:
    rich.image = with_files(rich.image, tmp_path / "twice.iso", {"other-user-artifacts/top.bin": b"another"})
    rich.pack = {"artifact_url": "http://10.0.0.1:8080/images/"}
    assert "would be served at http://10.0.0.1:8080/images/top.bin, as would other-user-artifacts/top.bin" in refused()


def test_many_errors_are_not_all_shown(rich: Site, refused: Refused, tmp_path: Path) -> None:
    many = {f"manifest.json/{number}": b"x" for number in range(50)}
    rich.image = with_files(rich.image, tmp_path / "many.iso", many)
    said = refused()
    assert said.count("error[additional-name-clash]") == 21
    assert "30 more of the image's files would be in the place of others" in said


def test_a_file_at_the_url_of_a_kernel_is_an_error(rich: Site, refused: Refused, tmp_path: Path) -> None:
    """An HTTP boot gets it from there."""
    rich.image = with_files(rich.image, tmp_path / "kernel.iso", {"vmlinuz": b"another"})
    rich.pack = {"boot_url": "http://10.0.0.1/boot/x.iso"}
    assert "would be served at http://10.0.0.1/boot/vmlinuz, as would boot/vmlinuz" in refused()


def test_links_on_an_iso_stand_for_files_and_others_are_told(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links = {
        "latest.txt": "docs/v2/notes.txt", "docs/again": "../latest.txt", "docs/current": "v2",
        "rescue.img": "liveos/rootfs.img", "live.cfg": "boot/grub2/grub.cfg", "docs/shadow": "/etc/shadow",
         "up": "../../etc/passwd",
        "gone": "docs/nothing", "loop": "loop2", "loop2": "loop", "via": "docs/current/notes.txt",
    }  # fmt: skip
    site.image = with_files(site.image, tmp_path / "links.iso", {"docs/v2/notes.txt": b"two\n"}, links=links)
    assert cli.main(site.command("--quiet")) == 0
    said = capsys.readouterr().err
    served = {"latest.txt", "docs/again", "via", "docs/v2/notes.txt"}
    assert additional(site).keys() == {CONFIGS, *served}
    assert {(site.output / name).read_bytes() for name in served} == {b"two\n"}
    assert not any((site.output / name).is_symlink() for name in served)
    assert "docs/shadow, up (a link that leads out of the image)" in said
    assert "docs/current (a link to a folder, whose files are served at their own paths)" in said
    assert "gone (a link to a file that does not exist)" in said
    assert "loop, loop2 (a link that leads to itself)" in said


def test_what_is_no_file_or_has_no_name_for_a_url_is_told(rich_dir: Site, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(rich_dir.image / "docs/pipe")
    (rich_dir.image / "docs/line\nbreak").write_text("x")
    Path(os.fsdecode(os.fsencode(rich_dir.image) + b"/docs/latin-\xe9")).write_text("x")
    (rich_dir.image / "docs/link").symlink_to("en")
    (rich_dir.image / "docs/EN").mkdir()
    (rich_dir.image / "docs/EN/Read Me.md").write_text("x")
    (rich_dir.image / "Boot.iPXE").write_text("x")
    assert cli.main(rich_dir.command("--quiet")) == 0
    said = capsys.readouterr().err
    assert additional(rich_dir).keys() == {CONFIGS, "Boot.iPXE", "docs/EN/Read Me.md", *MORE}
    assert said.count("warning[additional-not-served]") == 4
    assert "docs/pipe (not a regular file)" in said
    assert "'docs/line\\nbreak' (a name that contains a control character)" in said
    assert "'docs/latin-\\udce9' (a name that is not UTF-8)" in said
    pairs = "boot.ipxe and Boot.iPXE, docs/EN/Read Me.md and docs/en/read me.md"
    assert f"warning[additional-case]: names in the layout differ only in case: {pairs}" in said


def test_a_link_to_the_iso_of_a_pxe_dir_is_no_second_one(rich_dir: Site, packs: Packs) -> None:
    (rich_dir.image / "docs/latest.iso").symlink_to("../image.iso")
    (rich_dir.image / "docs/note").symlink_to(rich_dir.image / NOTE)
    packs()
    assert additional(rich_dir).keys() == {CONFIGS, "docs/note", *MORE}
    assert (rich_dir.output / "docs/note").read_bytes() == MORE[NOTE]


def test_warnings_about_files_that_are_left_out_are_not_shown(
    rich_dir: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(rich_dir.image / "docs/pipe")
    assert cli.main(rich_dir.command("--quiet", "--leave-out", "docs/pipe")) == 0
    assert not capsys.readouterr().err


def test_show_and_check_know_them(rich: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["show", str(rich.image)]) == 0
    assert "file      top.bin, 5,000 bytes\n" in capsys.readouterr().out
    rich.image = with_files(rich.image, tmp_path / "clash.iso", {"boot.ipxe": b"#!ipxe\n"})
    rich.write_config()
    assert cli.main(["check", str(rich.image), "--offline", "--agent-config", str(rich.config)]) == 3
    assert "error[additional-name-clash]" in capsys.readouterr().out


def test_the_root_filesystem_of_a_packed_iso_is_what_it_was(rich: Site, packs: Packs) -> None:
    """The files stay on the ISO too."""
    packs("--inject", "updates")
    assert {name: content for name, content in files_of(rich.iso).items() if name in MORE} == MORE
