"""The names of an ISO's files are those Linux shows when it mounts it: Rock Ridge's, else Joliet's, else plain ones."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site, files_of
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]

OWN = {
    "other-user-artifacts/A long Name with Blanks.tar.gz": b"one",
    "other-user-artifacts/häßlich-名前.bin": b"two",
    "models/weights-2026-11-30-final.safetensors": b"three",
    "models/dots..": b"four",
}
PLAIN = {  # without extensions: upper case and a version on the medium
    "models/weights.bin": b"one",
    "models/readme": b"two",
}
SECTOR = 2048


def _iso(site: Site, tmp_path: Path, own: dict[str, bytes], *options: str) -> Path:
    """An ISO with the files of the site's image and these, written with these options of genisoimage."""
    return _written(tmp_path, {**files_of(site.image), **own}, *options)


def _written(tmp_path: Path, files: dict[str, bytes], *options: str) -> Path:
    stage, target = tmp_path / "stage", tmp_path / "made.iso"
    for name, content in files.items():
        if name != "boot.catalog":  # of the image that the files come from
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(content)
    subprocess.run(["genisoimage", "-quiet", "-V", "CDROM", *options, "-o", target, stage], check=True)
    shutil.rmtree(stage)
    return target


def _served(site: Site, names: dict[str, bytes]) -> None:
    assert {name: (site.output / name).read_bytes() for name in names} == names
    outputs = site.manifest()["outputs"]
    assert isinstance(outputs, list)
    additional = {entry["path"] for entry in outputs if entry["kind"] == "additional"}
    assert additional == {*names, "azl-image-customizer/saved-configs.yaml"}


@pytest.mark.parametrize("how", ["updates", "initrd", "rootfs"])
def test_an_iso_with_joliet_alone_has_joliets_names(site: Site, packs: Packs, tmp_path: Path, how: str) -> None:
    site.image = _iso(site, tmp_path, OWN, "-J", "-joliet-long", "-input-charset", "utf-8")
    packs("--inject", how)
    # Linux shows no full stops at a name's end
    _served(site, {name.rstrip("."): content for name, content in OWN.items()})
    if how != "initrd":
        assert files_of(site.iso)["other-user-artifacts/häßlich-名前.bin"] == b"two"


def test_an_iso_with_both_has_rock_ridges_names(site: Site, packs: Packs, tmp_path: Path) -> None:
    site.image = _iso(site, tmp_path, OWN, "-r", "-J", "-joliet-long", "-input-charset", "utf-8")
    packs()
    _served(site, OWN)


def test_an_iso_without_extensions_has_names_in_lower_case(site: Site, tmp_path: Path) -> None:
    site.image = _iso(site, tmp_path, PLAIN, "-iso-level", "3")
    data = site.image.read_bytes()
    assert b"WEIGHTS.BIN;1" in data
    shown = _shown(site.image)
    assert {"models/weights.bin", "models/readme"} <= {entry["path"] for entry in shown}
    site.image.write_bytes(data.replace(b"WEIGHTS.BIN;1", b"WEIGHTS.BIN;2"))
    assert "models/weights.bin.2" in {entry["path"] for entry in _shown(site.image)}


def test_rock_ridge_with_an_empty_root_gives_way_to_joliet(site: Site, tmp_path: Path) -> None:
    """As Linux does for such "broken CDs" (fs/isofs/inode.c, rootdir_empty)."""
    site.image = _iso(site, tmp_path, OWN, "-r", "-J", "-joliet-long", "-input-charset", "utf-8")
    assert "models/dots.." in {entry["path"] for entry in _shown(site.image)}
    data = bytearray(site.image.read_bytes())
    root = struct.unpack_from("<I", data, 16 * SECTOR + 156 + 2)[0] * SECTOR
    rest = root + data[root] + data[root + data[root]]  # after "." and ".."
    data[rest : root + SECTOR] = bytes(root + SECTOR - rest)
    site.image.write_bytes(data)
    assert "models/dots" in {entry["path"] for entry in _shown(site.image)}


def _shown(image: Path) -> list[dict[str, object]]:
    found = subprocess.run(["pxe-pack", "show", "--json", image], check=True, capture_output=True, text=True).stdout
    entries = json.loads(found.splitlines()[-1])["additional_files"]
    assert isinstance(entries, list)
    return entries


@pytest.mark.parametrize("how", ["updates", "rootfs"])
def test_a_root_filesystem_found_without_case_is_not_written_where_case_counts(
    site: Site, packs: Packs, refused: Refused, tmp_path: Path, how: str
) -> None:
    """Xorriso adds Rock Ridge, whose names Linux looks for case-sensitively: dracut would no longer find it."""
    files = files_of(site.image)
    root = files.pop("liveos/rootfs.img")
    site.image = _written(tmp_path, {**files, "LIVEOS/rootfs.img": root}, "-J")
    assert "Joliet's names have no case" in " ".join(refused("--inject", how).split())
    packs()
    assert site.manifest()["inject"]["how"] == "initrd"  # type: ignore[index]
    assert cli.main(["check", str(site.output), "--offline"]) == 0
