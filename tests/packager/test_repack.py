"""Packing an image that was packed before replaces; removing leaves no byte of what was put in."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import specials, tiny
from packing.site import ARTIFACT, Site, files_of, image_with_root, listed, make_iso, partitioned, take_out
from packing.trees import tree_of
from pxe_pack import cli

Packs = Callable[..., str]
ROOT = "liveos/rootfs.img"
SIGNED = "https://store.example/m.bin?sig=kept-from-everybody"
WAYS = {
    "updates": ("--inject", "updates"),
    "rootfs": ("--inject", "rootfs"),
    "initrd": ("--inject", "initrd"),
    "rewrite": ("--inject", "rootfs", "--compressor", "zstd", "--level", "1"),
}
IMPLANTED = b"ISO MD5SUM = 0123456789abcdef0123456789abcdef;SKIPSECTORS = 15;RHLISOSTATUS=1;THIS IS NOT THE SAME"
APPLICATION_USE = 16 * 2048 + 883  # ECMA-119 8.4.32; libimplantisomd5.c writes there


def implanted(site: Site, where: Path) -> Path:
    """The site's image as implantisomd5 leaves it."""
    target = where / "implanted.iso"
    shutil.copyfile(site.image, target)
    implant(target)
    return target


def implant(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(APPLICATION_USE)
        file.write(IMPLANTED.ljust(512))


def unaligned_tail(site: Site, where: Path) -> Path:
    """The site's image with bytes behind its volume, as signatures are, and a size of no whole sector."""
    target = where / "tail.iso"
    target.write_bytes(site.image.read_bytes() + os.urandom(70_001))
    return target


def many_files(site: Site, where: Path) -> Path:
    """An image with a few hundred files, links and folders, some of which share their content."""
    content: dict[str, str | bytes] = {**files_of(site.image)}
    content |= {f"other/{n % 7}/file-{n}": f"{n}" * n for n in range(300)}
    return make_iso(where / "many.iso", content, options=["-J", "-iso-level", "3"])


SHAPES: dict[str, Callable[[Site, Path], Path]] = {
    "plain": lambda site, _: site.image,
    "partitioned": partitioned,
    "implanted": implanted,
    "tail": unaligned_tail,
    "many": many_files,
}


def signed_site(site: Site, text: str = SIGNED) -> None:
    site.rest = {"artifacts": [{"name": "model", "url": text, "sha256": "0" * 64, "dest": "/srv/m", "insecure": True}]}


def ordinary_site(site: Site) -> None:
    site.rest = {"artifacts": [ARTIFACT]}


def moved(site: Site, name: str) -> Path:
    """The layout's ISO, moved to a folder of its own under the name that the image has."""
    folder = site.folder / name
    folder.mkdir()
    shutil.move(site.iso, folder / site.image.name)
    shutil.rmtree(site.output)
    return folder / site.image.name


def layout(site: Site) -> dict[str, bytes]:
    files = (path for path in site.output.rglob("*") if path.is_file())
    return {path.relative_to(site.output).as_posix(): path.read_bytes() for path in files}


def removed(site: Site, image: Path, name: str) -> bytes:
    output = site.folder / name
    assert cli.main(["remove", str(image), "-o", str(output), "--quiet"]) == 0
    assert not site.leftovers()
    return output.read_bytes()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["updates", "rootfs"])
def test_any_number_of_packs_is_one_and_remove_gives_the_image_back(
    site: Site, packs: Packs, tmp_path: Path, way: str, shape: str
) -> None:
    image = site.image = SHAPES[shape](site, tmp_path)
    packs(*WAYS[way])
    once = layout(site)
    for number in range(2):
        signed_site(site, f"{SIGNED}-{number}")
        packs(*WAYS[way], "--image", moved(site, f"packed-{number}"))
        assert site.iso.stat().st_size < len(once["liveos.iso"]) + 4096
    ordinary_site(site)
    packs(*WAYS[way], "--image", moved(site, "packed"))
    again = layout(site)
    assert [name for name in once if once[name] != again[name]] == []
    assert removed(site, site.iso, "back.iso") == image.read_bytes()


@pytest.mark.parametrize("given", ["layout", "archive", "its ISO"])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "rewrite"])  # a rewrite has no way back
def test_packing_an_output_again_gives_it_whole_with_its_manifest(
    site: Site, packs: Packs, way: str, given: str
) -> None:
    """It names the image that was packed first."""
    shutil.copyfile(site.image, site.folder / "first.iso")
    digest = hashlib.sha256(site.image.read_bytes()).hexdigest()
    (site.folder / "first.iso.sha256").write_text(f"{digest}  first.iso\n")
    packs(*WAYS[way], "--image", site.folder / "first.iso")
    once = layout(site)
    for number in range(2):
        image = site.folder / f"again-{number}"
        if given == "archive":
            with tarfile.open(image, "w") as out:
                out.add(site.output, arcname=".")
            shutil.rmtree(site.output)
        else:
            shutil.move(site.output, image)
        packs(*WAYS[way], "--image", image / "liveos.iso" if given == "its ISO" else image)
        again = layout(site)
        assert [name for name in {**once, **again} if once.get(name) != again.get(name)] == []
    assert b'"name": "first.iso"' in once["manifest.json"]


def test_an_iso_with_much_that_is_in_no_file_gets_no_record_and_loses_the_payload(
    site: Site, packs: Packs, tmp_path: Path
) -> None:
    """A record would be as large as that."""
    image = tmp_path / "appended.iso"
    image.write_bytes(site.image.read_bytes() + os.urandom(40 << 20))
    site.image = image
    signed_site(site)
    packs(*WAYS["rootfs"])
    assert site.iso.stat().st_size < image.stat().st_size
    packed = site.iso.rename(site.folder / "packed.iso")
    ordinary_site(site)
    packs(*WAYS["updates"], "--image", packed)
    removed(site, site.iso, "back.iso")
    before, after = files_of(image), files_of(site.folder / "back.iso")
    assert {name for name in before if before[name] != after.get(name)} <= {"boot.catalog"}
    assert before.keys() == after.keys()


@pytest.mark.parametrize("then", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_a_pack_over_another_is_that_pack_alone(site: Site, packs: Packs, first: str, then: str) -> None:
    packs(*WAYS[then])
    once = layout(site)
    shutil.rmtree(site.output)
    signed_site(site)
    packs(*WAYS[first])
    ordinary_site(site)
    packed = site.folder / "packed"
    site.output.rename(packed)
    site.image = packed
    packs(*WAYS[then])
    again = layout(site)
    if first == "rewrite" and then != "rewrite":  # the root filesystem stays recompressed
        assert SIGNED.encode() not in again["liveos.iso"]
        return
    differing = {name for name in once if once[name] != again[name]}
    assert differing <= {"manifest.json", "SHA256SUMS"}  # which name the image


@pytest.mark.parametrize("way", WAYS)
def test_what_remove_gives_back_has_nothing_of_the_payload(site: Site, packs: Packs, way: str) -> None:
    """Two payloads that differ in a secret leave the same bytes."""
    left = []
    for text in (SIGNED, SIGNED.upper()):
        signed_site(site, text)
        packs(*WAYS[way])
        assert cli.main(["remove", str(site.output), "--quiet"]) == 0
        left.append(layout(site))
        assert not [name for name, data in left[-1].items() if b"kept-from-everybody" in data]
        shutil.rmtree(site.output)
    assert left[0] == left[1]
    if way != "rewrite":
        assert left[0]["liveos.iso"] == site.image.read_bytes()


def test_what_remove_gives_back_of_a_rewritten_root_packs_to_the_same(site: Site, packs: Packs) -> None:
    packs(*WAYS["rewrite"])
    once = site.iso.read_bytes()
    site.image = site.folder / "back.iso"
    removed(site, site.iso, "back.iso")
    packs(*WAYS["rewrite"])
    assert site.iso.read_bytes() == once
    packs("--inject", "rootfs")
    assert site.iso.read_bytes() == once


def test_an_implanted_md5_does_not_void_the_record(site: Site, packs: Packs) -> None:
    packs(*WAYS["updates"])
    implant(site.iso)
    assert removed(site, site.iso, "back.iso") == site.image.read_bytes()


@pytest.mark.parametrize("command", ["-dev", "-indev"])
@pytest.mark.parametrize("way", ["updates", "rootfs"])
def test_an_iso_that_was_changed_after_the_pack_keeps_the_change_and_loses_the_payload(
    site: Site, packs: Packs, tmp_path: Path, way: str, command: str
) -> None:
    signed_site(site)
    packs(*WAYS[way])
    mine, changed = tmp_path / "mine", site.folder / "changed.iso"
    mine.write_text("of the user")
    if command == "-dev":
        shutil.copyfile(site.iso, changed)
        drives = ["-dev", str(changed), "-boot_image", "any", "keep"]
    else:
        drives = ["-indev", str(site.iso), "-outdev", str(changed), "-boot_image", "any", "replay"]
    subprocess.run(["xorriso", *drives, "-map", str(mine), "/mine"], check=True, capture_output=True)
    data = removed(site, changed, "back.iso")
    assert b"kept-from-everybody" not in data
    before, after = files_of(site.image), files_of(site.folder / "back.iso")
    assert after.pop("mine") == b"of the user"
    assert {name: content for name, content in after.items() if name != "boot.catalog"} == {
        name: content for name, content in before.items() if name != "boot.catalog"
    }
    assert listed(site.folder / "back.iso").keys() - {"/mine"} == listed(site.image).keys()


def squashed(site: Site, where: Path, text: str) -> Path:
    """The site's image with a payload in its root filesystem that no record tells from the rest."""
    payload = [
        *(specials.folder(path) for path in ("usr/lib/pxe-fetch", "etc/pxe-fetch")),
        specials.Inode("usr/lib/pxe-fetch/pxe-fetch", data=b"an agent"),
        specials.Inode("etc/pxe-fetch/fetch.yaml", data=text.encode() * 9),
    ]
    where.mkdir()
    return image_with_root(site.image, [*tiny.tree(), *payload], where)


def test_a_payload_that_someone_has_squashed_is_not_in_what_remove_gives_back(site: Site, tmp_path: Path) -> None:
    """The root filesystem is compressed anew."""
    left = [
        removed(site, squashed(site, tmp_path / text, text), f"{text}.iso") for text in ("one secret", "another one")
    ]
    assert left[0] == left[1]
    plain = image_with_root(site.image, [*tiny.tree()], tmp_path)
    old = tree_of(take_out(plain, ROOT, tmp_path / "old"))
    new = tree_of(take_out(site.folder / "one secret.iso", ROOT, tmp_path / "new"))
    assert {path: inode for path, inode in new.items() if path in old} == old
    assert new.keys() - old.keys() <= {"etc/pxe-fetch"}


def test_a_pack_over_such_a_payload_leaves_nothing_of_it_either(site: Site, packs: Packs, tmp_path: Path) -> None:
    packed = []
    image = site.image
    for text in ("one secret", "another one"):
        site.image = squashed(replace(site, image=image), tmp_path / text, text)
        packs("--inject", "rootfs")
        packed.append(site.iso.read_bytes())
    assert packed[0] == packed[1]


def with_packed_initrd(site: Site, packs: Packs, text: str) -> Path:
    """An ISO that someone has built with the initrd of a packed layout."""
    signed_site(site, text)
    packs(*WAYS["initrd"])
    target = site.folder / f"{len(text)}-built.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(target), "-boot_image", "any", "replay"]
    initrd = "boot/initrd.img"
    subprocess.run([*command, "-map", str(site.output / initrd), f"/{initrd}"], check=True, capture_output=True)
    return target


@pytest.mark.parametrize("way", [None, *WAYS])
def test_an_initrd_with_a_payload_on_an_iso_comes_back_too(site: Site, packs: Packs, way: str | None) -> None:
    left = []
    for text in (SIGNED, f"{SIGNED}-with-more"):
        built = with_packed_initrd(site, packs, text)
        ordinary_site(site)
        if way:
            packs(*WAYS[way], "--image", built)
            data = site.iso.read_bytes()
        else:
            data = removed(site, built, f"{len(text)}.iso")
            assert files_of(site.folder / f"{len(text)}.iso").keys() == files_of(site.image).keys()
        left.append(data)
    assert left[0] == left[1]


def test_a_configuration_whose_agent_is_gone_is_removed_too(site: Site, packs: Packs) -> None:
    signed_site(site)
    packs(*WAYS["updates"])
    half = site.folder / "half.iso"
    command = ["xorriso", "-indev", str(site.iso), "-outdev", str(half), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-rm_r", "/updates/usr", "--"], check=True, capture_output=True)
    assert b"kept-from-everybody" in half.read_bytes()
    assert b"kept-from-everybody" not in removed(site, half, "back.iso")
    assert files_of(site.folder / "back.iso").keys() == files_of(site.image).keys()
