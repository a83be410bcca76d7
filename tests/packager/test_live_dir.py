"""Where the root filesystem is looked for on the ISO: where dracut's dmsquash-live-root mounts it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site, files_of, make_iso

Packs = Callable[..., str]
Refused = Callable[..., str]

ARGUMENTS = "rd.live.dir=liveos rd.live.squashimg=rootfs.img"
ROOT = "liveos/rootfs.img"


def _image(site: Site, arguments: str, files: dict[str, str], *, options: tuple[str, ...] = ()) -> Path:
    """The ISO with these kernel arguments; of `files`, name -> the name of the one whose content it has, or a text."""
    given: dict[str, str | bytes] = {**files_of(site.image)}
    root = given.pop(ROOT)
    for name in ("boot/grub2/grub.cfg", "boot/grub2/grub-pxe.cfg"):
        text = given[name]
        assert isinstance(text, bytes)
        given[name] = text.decode().replace(ARGUMENTS, arguments)
    given |= {name: root if content == ROOT else content for name, content in files.items()}
    return make_iso(site.folder / "image.iso", given, options=options)


FOUND = {
    "a slash at the end": ("rd.live.dir=liveos/ rd.live.squashimg=rootfs.img", ROOT),
    "slashes around it": ("rd.live.dir=/liveos/ rd.live.squashimg=rootfs.img", ROOT),
    "the top": ("rd.live.dir=. rd.live.squashimg=rootfs.img", "rootfs.img"),
    "the top as a slash": ("rd.live.dir=/ rd.live.squashimg=root.squashfs", "root.squashfs"),
    "a path": ("rd.live.dir=./a//b/ rd.live.squashimg=c/../rootfs.img", "a/b/rootfs.img"),
    "an empty value": ("rd.live.dir= rd.live.squashimg=", "LiveOS/squashfs.img"),
    "the last of several": ("rd.live.dir=a rd.live.dir=liveos rd.live.squashimg=rootfs.img", ROOT),
    "an older name": ("live_dir=liveos rd.live.squashimg=rootfs.img", ROOT),
    "the newer name before the older one": ("rd.live.dir=liveos live_dir=a rd.live.squashimg=rootfs.img", ROOT),
    "the older name where the newer one is empty": ("rd.live.dir= live_dir=liveos rd.live.squashimg=rootfs.img", ROOT),
    "a name without a value": ("live_dir=a rd.live.dir rd.live.squashimg=rootfs.img", "LiveOS/rootfs.img"),
    "another name in the same folder": ("rd.live.dir=liveos", ROOT),
}


@pytest.mark.parametrize("kind", FOUND)
def test_the_root_filesystem_is_found_where_dracut_mounts_it(site: Site, packs: Packs, kind: str) -> None:
    arguments, path = FOUND[kind]
    site.image = _image(site, arguments, {path: ROOT})
    packs()
    assert site.manifest()["image"]["root"]["path"] == path  # type: ignore[index]


NOT_FOUND = {
    "upper and lower case": ("rd.live.squashimg=rootfs.img", {ROOT: ROOT}, "upper and lower case differ"),
    "the default name beside another": (
        "rd.live.dir=liveos rd.live.squashimg=root.img",
        {"liveos/squashfs.img": ROOT},
        "liveos/root.img does not exist",
    ),
    "a name that dracut does not know": (
        "live.dir=liveos rd_live_dir=liveos rd.live.squashimg=rootfs.img",
        {ROOT: ROOT},
        "LiveOS/rootfs.img does not exist",
    ),
    "a folder above the ISO": ("rd.live.dir=/.. rd.live.squashimg=rootfs.img", {"rootfs.img": ROOT}, "does not exist"),
    "a file that is none": (
        "rd.live.dir=liveos",
        {"liveos/squashfs.img": "not a squashfs", ROOT: ROOT},
        "liveos/squashfs.img is not a file system",
    ),
}


@pytest.mark.parametrize("kind", NOT_FOUND)
def test_a_root_filesystem_that_dracut_would_not_mount_is_not_found(site: Site, refused: Refused, kind: str) -> None:
    arguments, files, words = NOT_FOUND[kind]
    site.image = _image(site, arguments, files)
    said = " ".join(refused().split())
    assert "error[image-no-liveos]" in said
    assert words in said


def test_joliet_names_have_no_case(site: Site, packs: Packs) -> None:
    files = {"liveos/rootfs.img": ROOT}
    site.image = _image(site, "rd.live.dir=LiveOS rd.live.squashimg=rootfs.img", files, options=("-J", "--norock"))
    packs("--inject", "initrd")
