"""What the output folder holds: the layout, its checksums, its manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from packing.site import BOOT_URL, Site, files_of, listed, take_out
from pxe_fetch.contract import reader
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]


def outputs(site: Site) -> dict[str, dict[str, object]]:
    """Path -> what the manifest says of the file."""
    entries = site.manifest()["outputs"]
    assert isinstance(entries, list)
    return {entry["path"]: entry for entry in entries}


def test_the_layout_is_complete_and_its_sums_are_right(site: Site, packs: Packs) -> None:
    packs()
    found = {str(path.relative_to(site.output)) for path in site.output.rglob("*") if path.is_file()}
    assert found == {
        "SHA256SUMS", "azl-image-customizer/saved-configs.yaml", "boot.ipxe", "boot/grub2/grub.cfg",
        "boot/grub2/grubenv", "boot/initrd.img", "boot/vmlinuz", "bootx64.efi", "grub.cfg",
        "grubx64.efi", "liveos.iso", "manifest.json",
    }  # fmt: skip
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=site.output, check=True, capture_output=True)
    assert len(checked.stdout.splitlines()) == len(found) - 1
    image = files_of(site.image)
    for name, source in {"boot/vmlinuz": "boot/vmlinuz", "bootx64.efi": "efi/boot/bootx64.efi"}.items():
        assert (site.output / name).read_bytes() == image[source]


def test_upper_case_loaders_and_kernels_with_versions(site: Site, packs: Packs, tiny_guarded: Path) -> None:
    site.image = tiny_guarded
    packs()
    assert {"bootx64.efi", "grubx64.efi"} <= outputs(site).keys()
    names = {path for path in outputs(site) if path.startswith("boot/") and "grub2" not in path}
    assert len(names) == 2
    image = files_of(site.image)
    assert all((site.output / name).read_bytes() == image[name] for name in names)


def test_grub_boots_the_layout_from_its_url(site: Site, packs: Packs, tiny_guarded: Path) -> None:
    for image in (site.image, tiny_guarded):
        site.image = image
        packs()
        cfg = site.output / "boot/grub2/grub.cfg"
        subprocess.run(["grub-script-check", cfg], check=True)
        text = cfg.read_text()
        assert text.count(f"root=live:{BOOT_URL}") == 1
        assert "search" not in text
        assert "[ -f" not in text
        assert "192.0.2.1" not in text
        for argument in ("ip=dhcp", "rd.live.azldownloader=enable", "rd.live.overlay.nouserconfirmprompt"):
            assert text.count(argument) == 1


def test_the_manifest_tells_inputs_outputs_and_what_was_put_in(site: Site, packs: Packs) -> None:
    packs("--inject", "rootfs", "--input-digest")
    manifest = site.manifest()
    image = site.image.read_bytes()
    assert {
        "role": "image",
        "name": site.image.name,
        "size": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
    } in (
        manifest["inputs"]  # type: ignore[operator]
    )
    for path, entry in outputs(site).items():
        content = (site.output / path).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert outputs(site)["liveos.iso"]["url"] == BOOT_URL
    inject = manifest["inject"]
    assert isinstance(inject, dict)
    assert inject["how"] == "rootfs"
    assert {"path": "/etc/pxe-fetch/fetch.yaml", "type": "file", "mode": "0644"}.items() <= next(
        entry for entry in inject["payload"] if entry["path"].endswith("fetch.yaml")
    ).items()
    agent = manifest["agent"]
    assert isinstance(agent, dict)
    assert agent["version"] == "0.0.1"


def iso_input(site: Site) -> dict[str, object]:
    inputs = site.manifest()["inputs"]
    assert isinstance(inputs, list)
    return {key: value for key, value in inputs[0].items() if key not in ("role", "name", "size")}


@pytest.mark.parametrize(
    "line", ["{hex}", "{hex}  {name}", "{HEX} *./{name}", "SHA256 ({name}) = {hex}", "x\n{hex}\t{name}"]
)
def test_the_digest_of_the_iso_is_taken_from_the_file_beside_it(site: Site, packs: Packs, line: str) -> None:
    image = site.image = Path(shutil.copyfile(site.image, site.folder / "given.iso"))
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    packs("--inject", "updates")
    assert iso_input(site) == {"sha256": None}
    text = line.format(hex=digest, HEX=digest.upper(), name=image.name)
    Path(f"{image}.sha256").write_text(f"{text}\n")
    packs("--inject", "updates")
    assert iso_input(site) == {"sha256": digest, "sha256_from": "given.iso.sha256"}
    packs("--inject", "updates", "--input-digest")
    assert iso_input(site) == {"sha256": digest}


@pytest.mark.parametrize("line", ["{hex}  other.iso", "nothing", ""])
def test_a_file_that_is_about_another_image_says_nothing(site: Site, packs: Packs, line: str) -> None:
    image = site.image = Path(shutil.copyfile(site.image, site.folder / "given.iso"))
    Path(f"{image}.sha256").write_text(line.format(hex="0" * 64))
    packs("--inject", "updates", "--input-digest")
    assert iso_input(site) == {"sha256": hashlib.sha256(image.read_bytes()).hexdigest()}


@pytest.mark.parametrize("how", [("--inject", "updates", "--input-digest"), ("--inject", "initrd")])
def test_an_iso_that_is_not_the_one_that_was_published_is_not_packed(
    site: Site, capsys: pytest.CaptureFixture[str], how: tuple[str, ...]
) -> None:
    image = site.image = Path(shutil.copyfile(site.image, site.folder / "given.iso"))
    Path(f"{image}.sha256").write_text(f"{'0' * 64}  given.iso\n")
    assert cli.main(site.command("--quiet", *how)) == 1
    assert "error[image-differs]: the SHA-256 of" in capsys.readouterr().err
    assert not site.output.exists()
    assert not site.leftovers()


def test_a_local_artifact_is_exported_with_its_url_digest_and_size(site: Site, packs: Packs) -> None:
    content = b"weights " * 1000
    (site.folder / "files").mkdir()
    (site.folder / "files" / "a mödel#1.bin").write_bytes(content)
    local = {"name": "model", "source": "files/a mödel#1.bin", "dest": "/srv/m.bin", "mode": "0640"}
    remote = {"name": "other", "url": "http://10.0.0.9/o.bin", "sha256": "1" * 64, "dest": "/srv/o.bin"}
    site.rest = {"artifacts": [local, remote]}
    site.pack = {"artifact_url": "http://10.0.0.1/files/"}
    packs("--inject", "updates")
    assert (site.output / "other-user-artifacts" / "a mödel#1.bin").read_bytes() == content
    node = files_of(site.iso)["updates/etc/pxe-fetch/fetch.yaml"].decode()
    config = reader.read(node, name="fetch.yaml")
    assert config.artifacts[0].urls == ("http://10.0.0.1/files/a%20m%C3%B6del%231.bin",)
    assert config.artifacts[0].digest
    assert config.artifacts[0].digest.hex == hashlib.sha256(content).hexdigest()
    assert config.artifacts[0].size == len(content)
    assert config.artifacts[0].mode == 0o640
    assert config.artifacts[1].urls == ("http://10.0.0.9/o.bin",)
    assert "pack" not in yaml.safe_load(node)
    entry = outputs(site)["other-user-artifacts/a mödel#1.bin"]
    assert entry["url"] == "http://10.0.0.1/files/a%20m%C3%B6del%231.bin"
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=site.output, check=True, capture_output=True)


def two_sources(site: Site, one: bytes, other: bytes) -> None:
    for folder, content in (("a", one), ("b", other)):
        (site.folder / folder).mkdir()
        (site.folder / folder / "m.bin").write_bytes(content)
    artifacts = [{"name": name, "source": f"{name}/m.bin", "dest": f"/srv/{name}"} for name in ("a", "b")]
    site.rest = {"artifacts": artifacts}


def test_two_sources_of_one_name_and_content_share_a_file(site: Site, packs: Packs) -> None:
    two_sources(site, b"same", b"same")
    packs()
    assert [path.name for path in (site.output / "other-user-artifacts").iterdir()] == ["m.bin"]


def test_two_sources_of_one_name_and_different_content_are_refused(site: Site, refused: Refused) -> None:
    two_sources(site, b"this", b"that")
    said = refused()
    assert "error[source-name-clash]" in said
    assert f"{site.folder}/a/m.bin and {site.folder}/b/m.bin are different files" in said


def test_a_source_that_is_not_what_the_configuration_says_is_refused(site: Site, refused: Refused) -> None:
    (site.folder / "m.bin").write_bytes(b"content")
    site.rest = {"artifacts": [{"name": "m", "source": "m.bin", "sha256": "0" * 64, "size": 3, "dest": "/srv/m"}]}
    said = refused()
    assert "error[source-size]" in said
    assert "error[source-digest]" in said


def test_flags_win_over_the_configuration(site: Site, packs: Packs, tiny_guarded: Path) -> None:
    site.pack = {"image": "not-there.iso", "inject": "rootfs"}
    url = "http://boot.example/x/other%20name.iso"
    packs("--image", tiny_guarded, "--boot-url", url, "--inject", "updates", "--output", site.folder / "elsewhere")
    layout = site.folder / "elsewhere"
    assert (layout / "other name.iso").is_file()
    assert f"root=live:{url}" in (layout / "boot/grub2/grub.cfg").read_text()
    assert not site.output.exists()


def test_a_dry_run_shows_the_plan_and_does_nothing(site: Site, packs: Packs) -> None:
    said = packs("--dry-run")
    assert "root      liveos/rootfs.img: squashfs, gzip, 128 KiB blocks, 85 inodes" in said
    assert "inject    updates" in said
    assert sorted(path.name for path in site.folder.iterdir()) == ["fetch.yaml"]


def test_json_events_end_with_the_result(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(site.command("--json")) == 0
    lines = capsys.readouterr().out.splitlines()
    events = [json.loads(line) for line in lines]
    assert {"step", "say"} <= {event["event"] for event in events}
    result = events[-1]
    assert result["event"] == "result"
    assert result["output"] == str(site.output)
    assert {entry["path"] for entry in result["outputs"]} == outputs(site).keys()


def test_problems_are_events_too(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.pack = {"boot_url": "http://10.0.0.1/liveos.img"}
    assert cli.main(site.command("--json")) == 2
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines()]
    assert [event["reference"] for event in events if event["event"] == "problem"] == ["boot-url-invalid"]
    assert not captured.err


def test_a_former_output_is_replaced_as_a_whole(site: Site, packs: Packs, tiny_guarded: Path) -> None:
    packs()
    site.image = tiny_guarded
    packs()
    assert not (site.output / "boot/vmlinuz").exists()
    found = {str(path.relative_to(site.output)) for path in site.output.rglob("*") if path.is_file()}
    assert found == {*outputs(site), "manifest.json", "SHA256SUMS"}
    assert not site.leftovers()


def test_an_output_that_is_a_link_to_a_folder_stays_one(site: Site, packs: Packs) -> None:
    (site.folder / "real").mkdir()
    site.output.symlink_to("real")
    packs()
    assert site.output.is_symlink()
    assert (site.folder / "real" / "manifest.json").is_file()


def test_an_output_with_foreign_files_is_refused(site: Site, packs: Packs, refused: Refused) -> None:
    site.output.mkdir()
    (site.output / "thesis.tex").write_text("years of work")
    assert "contains a file that pxe-pack did not write: thesis.tex" in refused()
    shutil.rmtree(site.output)
    packs()
    (site.output / "boot" / "notes.txt").write_text("mine")
    assert "contains a file that pxe-pack did not write: boot/notes.txt" in refused()


@pytest.mark.parametrize("folder", ["mine", "boot/mine/inner"])
def test_an_empty_folder_in_the_output_is_not_lost(
    site: Site, packs: Packs, refused: Refused, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    packs()
    (site.output / folder).mkdir(parents=True)
    said = [refused()]
    for command in (
        ["relocate", str(site.output), "--boot-url", "http://192.0.2.7/x.iso"],
        ["remove", str(site.output)],
    ):
        assert cli.main(command) == 2
        said.append(capsys.readouterr().err)
    told = f"contains an empty folder that pxe-pack did not write: {folder}/"
    assert all(told in " ".join(one.split()) for one in said)
    assert (site.output / folder).is_dir()


def test_an_empty_output_folder_may_be_filled_but_one_with_folders_in_it_is_not(
    site: Site, packs: Packs, refused: Refused
) -> None:
    (site.output / "mine").mkdir(parents=True)
    assert "an empty folder that pxe-pack did not write: mine/" in refused()
    (site.output / "mine").rmdir()
    packs()


def test_the_iso_says_what_was_added_under_any_name(site: Site, packs: Packs) -> None:
    packs("--boot-url", "tftp://10.0.0.1/a.iso")
    assert "/updates/usr/lib/pxe-fetch/pxe-fetch" in listed(site.output / "a.iso")


def test_config_modes_do_not_depend_on_the_umask_of_the_config_file(site: Site, packs: Packs) -> None:
    site.write_config()
    site.config.chmod(0o600)
    packs("--inject", "updates")
    assert listed(site.iso)["/updates/etc/pxe-fetch/fetch.yaml"].startswith("-rw-r--r--")


def test_a_media_check_at_boot_is_warned_of(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = take_out(site.image, "boot/grub2/grub-pxe.cfg", tmp_path / "grub-pxe.cfg")
    cfg.write_text(cfg.read_text().replace("selinux=0", "rd.live.check"))
    target = tmp_path / "checked.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(target), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(cfg), "/boot/grub2/grub-pxe.cfg"], check=True, capture_output=True)
    site.image = target
    assert cli.main(site.command("--quiet")) == 0
    assert "warning[media-check]" in capsys.readouterr().err


def test_the_summary_names_files_and_the_next_command(site: Site, packs: Packs) -> None:
    said = packs()
    assert "boot/vmlinuz" in said
    assert f"pxe-pack boot {site.output}" in said
    assert "sha256sum -c SHA256SUMS" in said
