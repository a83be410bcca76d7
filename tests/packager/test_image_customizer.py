"""`pxe-pack payload --format image-customizer`: valid for Image Customizer, which makes of it what a pack makes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from liveos import tiny as tiny_root
from liveos.specials import Inode
from packing.site import Site, files_of, image_with_root
from pxe_fetch.contract.model import FetchConfig
from pxe_pack import cli
from pxe_pack.config import read

Packs = Callable[..., str]
SCHEMA = json.loads((Path(__file__).parent / "image-customizer/schema.json").read_text())
EXAMPLE = Path(__file__).parents[2] / "examples/image-customizer"
UNITS = "usr/lib/systemd/system"


@pytest.fixture
def writes(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., Path]:
    """Write the payload of the site's configuration; its folder. The exit code has to be 0."""

    def run(*words: str) -> Path:
        site.write_config()
        output = site.folder / "payload"
        code = cli.main([*command(site, output), *words])
        assert code == 0, capsys.readouterr().err
        return output

    return run


def command(site: Site, output: Path) -> list[str]:
    words = ["payload", str(site.config), "--format", "image-customizer", "--agent", str(site.agent)]
    return [*words, "-o", str(output), "--quiet"]


def valid(text: str) -> Any:  # noqa: ANN401  YAML
    """A configuration that Image Customizer takes by its published schema."""
    document = yaml.safe_load(text)
    jsonschema.validate(document, SCHEMA)
    return document


def customize(payload: Path, root: Path) -> None:
    """Do to the folder `root` what Image Customizer does to an image, in its order.

    additionalFiles: safechroot.AddFiles and FileCopyBuilder, which make missing folders. Services: `systemctl enable`.
    Scripts: /bin/sh in the image.
    """
    document = valid((payload / "image-customizer.yaml").read_text())
    for file in document["os"]["additionalFiles"]:
        target = root / file["destination"].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(payload / file["source"], target)
        target.chmod(int(file["permissions"], 8))
    subprocess.run(
        ["systemctl", f"--root={root}", "enable", *document["os"]["services"]["enable"]],
        check=True,
        capture_output=True,
    )
    (root / "bin").mkdir(exist_ok=True)
    shutil.copyfile("/bin/busybox", root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for script in document["scripts"]["postCustomization"]:
        inside = "for each in mkdir ln; do busybox ln -s busybox /bin/$each; done\n" + script["content"]
        run = ["unshare", "-r", "chroot", root, "/bin/busybox", "sh", "-c", inside]
        subprocess.run(run, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    shutil.rmtree(root / "bin")


def tree(root: Path) -> dict[str, tuple[str, bytes | str]]:
    """Path -> mode and content, of files and links."""
    return {
        str(path.relative_to(root)): (
            f"{path.lstat().st_mode:o}",
            str(path.readlink()) if path.is_symlink() else path.read_bytes(),
        )
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_an_image_that_was_customized_has_what_a_packed_image_has(
    site: Site, packs: Packs, writes: Callable[..., Path], tmp_path: Path
) -> None:
    site.rest = {"artifacts": site.rest["artifacts"], "allowed_roots": ["/srv", "/var/cache/models"]}
    site.pack = {"report": "http://10.0.0.1:8787/report"}
    root = tmp_path / "root"
    root.mkdir()
    customize(writes("--systemd", "255"), root)
    packs("--inject", "updates")
    packed = {
        path.removeprefix("updates/"): content
        for path, content in files_of(site.iso).items()
        if path.startswith("updates/")
    }
    found = tree(root)
    links = {path: target for path, (mode, target) in found.items() if mode.startswith("12")}
    assert {path: content for path, (_, content) in found.items() if path not in links} == packed
    enabled = "etc/systemd/system/multi-user.target.wants/pxe-fetch.target"
    assert links == {"usr/bin/pxe-fetch": "/usr/lib/pxe-fetch/pxe-fetch", enabled: f"/{UNITS}/pxe-fetch.target"}
    assert {mode for mode, _ in found.values()} == {"100755", "100644", "100600", "120777"}
    assert found["etc/pxe-fetch/credentials/pxe-fetch.report"][0] == "100600"
    assert found["usr/lib/pxe-fetch/pxe-fetch"][0] == "100755"
    for folder in ("srv", "var/cache/models"):
        assert (root / folder).stat().st_mode & 0o7777 == 0o755


def test_an_image_that_was_customized_is_shown_with_the_agent_in_it(
    tiny: Path, writes: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    customize(writes(), root)
    inodes = [Inode(path, data=content) for path, (_, content) in tree(root).items() if isinstance(content, bytes)]
    image = image_with_root(tiny, [*tiny_root.tree(), *folders(inodes), *inodes], tmp_path)
    capsys.readouterr()
    assert cli.main(["show", str(image), "--json"]) == 0
    (result,) = map(json.loads, capsys.readouterr().out.splitlines())
    (found,) = result["injected"]
    assert (found["how"], found["agent"], found["configured"]) == ("rootfs", "0.0.1", True)


def folders(inodes: list[Inode]) -> list[Inode]:
    """The folders above `inodes` that a tiny image does not have."""
    there = {inode.path for inode in tiny_root.tree()}
    above = {str(parent) for inode in inodes for parent in Path(inode.path).parents} - {".", *there}
    return [Inode(path, tarfile.DIRTYPE, mode=0o755) for path in sorted(above)]


def test_the_units_are_for_the_images_systemd(writes: Callable[..., Path]) -> None:
    unit = f"files/{UNITS}/pxe-fetch.service"
    assert "ImportCredential=" in (writes("--systemd", "255") / unit).read_text()
    assert "LoadCredential=" in (writes("--systemd", "252") / unit).read_text()
    assert "Credential=" not in (writes() / unit).read_text()


def test_local_artifacts_are_beside_it_and_named_by_their_urls(site: Site, writes: Callable[..., Path]) -> None:
    (site.folder / "model.bin").write_bytes(b"weights")
    site.rest = {"artifacts": [{"name": "m", "source": "model.bin", "dest": "/srv/m"}]}
    payload = writes("--artifact-url", "https://10.0.0.1/files/")
    assert (payload / "other-user-artifacts/model.bin").read_bytes() == b"weights"
    config = fetched(payload)
    assert config.artifacts[0].urls == ("https://10.0.0.1/files/model.bin",)
    assert config.artifacts[0].digest is not None
    assert not [
        one
        for one in valid((payload / "image-customizer.yaml").read_text())["os"]["additionalFiles"]
        if "model" in one["source"]
    ]


def fetched(payload: Path) -> FetchConfig:
    """The configuration that the image has."""
    return read((payload / "files/etc/pxe-fetch/fetch.yaml").read_text(), name="fetch.yaml").fetch


def test_live_space_needs_to_know_the_kind_of_image(
    site: Site, writes: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site.rest["live_space"] = "60%"
    site.write_config()
    assert cli.main(command(site, site.folder / "payload")) == 2
    assert "error[initramfs-type-missing]" in capsys.readouterr().err
    for kind, where in (("bootstrap", "size=60%% /run"), ("full-os", "size=60%% rootfs /")):
        payload = writes("--initramfs-type", kind)
        assert where in (payload / f"files/{UNITS}/pxe-fetch-live-space.service").read_text()
    root = tmp_path / "root"
    root.mkdir()
    customize(payload, root)
    link = root / UNITS / "pxe-fetch.service.wants/pxe-fetch-live-space.service"
    assert str(link.readlink()) == "../pxe-fetch-live-space.service"


def test_a_payload_is_replaced_and_a_folder_of_somebody_else_is_not(
    site: Site, writes: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    payload = writes()
    (payload / "files/etc/pxe-fetch/fetch.yaml").write_text("stale\n")
    writes()
    assert "stale" not in (payload / "files/etc/pxe-fetch/fetch.yaml").read_text()
    (payload / "image-customizer.yaml").write_text("os: {}\n")
    assert cli.main(command(site, payload)) == 2
    assert "error[output-foreign]" in capsys.readouterr().err
    assert (payload / "image-customizer.yaml").read_text() == "os: {}\n"
    assert site.leftovers() == []


@pytest.mark.parametrize("name", ["mine.yaml", "files/etc/motd", "scripts/own.sh", ".git/config"])
def test_a_payload_with_a_file_of_somebody_else_in_it_is_not_replaced(
    site: Site, writes: Callable[..., Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    payload = writes()
    (payload / name).parent.mkdir(parents=True, exist_ok=True)
    (payload / name).write_text("by hand\n")
    assert cli.main(command(site, payload)) == 2
    assert f"did not write: {name}" in capsys.readouterr().err
    assert (payload / name).read_text() == "by hand\n"
    assert site.leftovers() == []


def test_sources_without_a_url_to_serve_them_at_are_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "model.bin").write_bytes(b"weights")
    site.rest = {"artifacts": [{"name": "m", "source": "model.bin", "dest": "/srv/m"}]}
    site.pack = {"boot_url": None}
    site.write_config()
    assert cli.main(command(site, site.folder / "payload")) == 2
    assert "error[artifact-url-missing]" in capsys.readouterr().err
    assert not (site.folder / "payload").exists()


def test_the_example_is_valid_and_inherits_from_what_its_command_writes(agent: Path, tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    readme = (folder / "README.md").read_text()
    (line,) = (line for line in readme.splitlines() if line.startswith("pxe-pack payload"))
    words = line.split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "pxe_pack", *words, "--agent", agent],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = valid((folder / "image.yml").read_text())
    (base,) = document["baseConfigs"]
    inherited = folder / base["path"]
    for file in valid(inherited.read_text())["os"]["additionalFiles"]:
        assert (inherited.parent / file["source"]).is_file()
        assert file["destination"].startswith("/")
    assert document["previewFeatures"] == ["base-configs"]
    assert (folder / "payload/other-user-artifacts/motd.txt").is_file()
