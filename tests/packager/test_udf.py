"""An ISO with UDF beside ISO 9660, as genisoimage makes it: nodes mount its UDF."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packing.site import Site, files_of
from pxe_pack.image.iso.reader import contiguous, open_iso
from pxe_pack.image.iso.udf import has_udf, udf_span

Packs = Callable[..., str]
Refused = Callable[..., str]


def bridge(image: Path, target: Path) -> Path:
    """The files of `image` in an ISO with both file systems."""
    stage = target.with_suffix(".stage")
    for name, content in files_of(image).items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_bytes(content)
    command = [
        "genisoimage",
        "-quiet",
        "-udf",
        "-allow-limited-size",
        "-R",
        "-V",
        "CDROM",
        "-o",
        str(target),
        str(stage),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


def type_of(image: Path) -> str:
    """What blkid, and so dracut, takes it for."""
    command = ["blkid", "-p", "-s", "TYPE", "-o", "value", str(image)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_it_is_recognised_as_blkid_recognises_it(site: Site) -> None:
    both = bridge(site.image, site.folder / "both.iso")
    for image, expected in ((site.image, "iso9660"), (both, "udf")):
        with open_iso(image) as opened:
            assert type_of(image) == expected
            assert has_udf(opened) == (expected == "udf")


@pytest.mark.parametrize("damaged", [20 * 2048 - 2047, 256 * 2048])
def test_without_its_sequence_or_its_anchors_it_is_none(site: Site, damaged: int) -> None:
    both = bridge(site.image, site.folder / "both.iso")
    with both.open("r+b") as file:
        size = both.stat().st_size
        for at in (damaged,) if damaged < 256 * 2048 else (damaged, size - 257 * 2048, size - 2048):
            file.seek(at)
            file.write(bytes(6))
    with open_iso(both) as opened:
        assert (type_of(both), has_udf(opened)) == ("iso9660", False)


def test_updates_are_refused_because_nodes_would_not_see_them(site: Site, refused: Refused) -> None:
    site.image = bridge(site.image, site.folder / "both.iso")
    said = " ".join(refused("--inject", "updates").split())
    assert "the ISO has a UDF file system too, which nodes mount, and additions would be in ISO 9660 only" in said
    assert "hint: use --inject" in said


def test_another_way_is_chosen(site: Site, packs: Packs) -> None:
    site.image = bridge(site.image, site.folder / "both.iso")
    packs()
    chosen = site.manifest()["inject"]
    assert isinstance(chosen, dict)
    assert chosen["how"] == "initrd"
    assert "not `updates`: the ISO has a UDF file system too" in chosen["why"]
    assert site.iso.read_bytes() == site.image.read_bytes()


def test_a_changed_root_filesystem_is_in_the_only_file_system_left(site: Site, packs: Packs) -> None:
    """Xorriso writes a new ISO, and knows no UDF."""
    site.image = bridge(site.image, site.folder / "both.iso")
    packs("--inject", "rootfs")
    assert type_of(site.iso) == "iso9660"


def test_a_root_filesystem_that_is_not_in_the_udf_is_refused(site: Site, refused: Refused) -> None:
    site.image = bridge(site.image, site.folder / "both.iso")
    image = site.image.read_bytes()
    assert image.count(b"\x08rootfs.img") == 1
    site.image.write_bytes(image.replace(b"\x08rootfs.img", b"\x08rootfs.old"))
    said = " ".join(refused().split())
    assert "has a UDF file system, which nodes mount, but liveos/rootfs.img is not the same in it" in said


def test_each_file_is_found_where_both_file_systems_have_it(site: Site) -> None:
    with open_iso(bridge(site.image, site.folder / "both.iso")) as image:
        files = [entry for entry in image.entries.values() if entry.is_file and entry.size]
        assert len(files) > 5
        for entry in files:
            assert udf_span(image, entry.path) == contiguous(entry)
        assert udf_span(image, "liveos") != contiguous(files[0])
        assert udf_span(image, "nowhere/at-all") is None


@given(data=st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_udf_is_no_crash(tmp_path_factory: pytest.TempPathFactory, tiny: Path, data: st.DataObject) -> None:
    both = tmp_path_factory.getbasetemp() / "damaged.iso"
    if not both.exists():
        bridge(tiny, both)
    with both.open("r+b") as file:
        for at in data.draw(
            st.lists(st.integers(256 * 2048, 300 * 2048) | st.integers(32 * 2048, 40 * 2048), max_size=8)
        ):
            file.seek(at)
            file.write(bytes([data.draw(st.integers(0, 255))]))
    with open_iso(both) as image:
        if has_udf(image):
            udf_span(image, "liveos/rootfs.img")
