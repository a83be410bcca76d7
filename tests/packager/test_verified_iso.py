"""A verified ISO, from packing to removing: what is appended to the initrd, and what is on the kernel command line."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from liveos import tiny
from liveos.newc import Entry
from liveos.specials import Inode
from packing import altered
from packing.checking import Checked
from packing.site import BOOT_URL, Site, files_of, image_with_root
from pxe_pack import cli
from pxe_pack.image.initrd.cpio import Archives
from pxe_pack.inject import INJECTORS

Packs = Callable[..., str]
Refused = Callable[..., str]

INITRD = "boot/initrd.img"
FOLDER = "usr/lib/pxe-fetch-iso"
LIVENETROOT = b"#!/bin/sh\nimgfile=$(fetch_url $liveurl)\nexec /sbin/dmsquash-live-root $imgfile\n"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
ARGUMENT = re.compile(r" pxe-fetch\.iso\.sha256=([0-9a-f]{64})")


def program(path: str = "/usr/bin/sha256sum") -> dict[str, bytes]:
    """A program of this machine with its libraries, by their paths in an image."""
    listed = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    found = {name: Path(at) for name, at in re.findall(r"(\S+) => (\S+)", listed)}
    return {path.lstrip("/"): Path(path).read_bytes()} | {
        f"{LIBRARIES}/{name}": at.read_bytes() for name, at in found.items()
    }


def with_root(image: Path, files: dict[str, bytes], where: Path) -> Path:
    """The image with these files in its root filesystem too."""
    contents = {one.path: one for one in tiny.tree()}
    contents |= {path: Inode(path, data=data, mode=0o755) for path, data in files.items()}
    return image_with_root(image, list(contents.values()), where)


def with_initrd(image: Path, files: dict[str, bytes], target: Path, *, gone: Sequence[str] = ()) -> Path:
    """The image with these files in its initrd too."""

    def edit(entries: dict[str, Entry]) -> None:
        for path, data in files.items():
            for parent in reversed(Path(path).parents):
                entries.setdefault(str(parent), Entry(str(parent), stat.S_IFDIR | 0o755))
            entries[path] = Entry(path, stat.S_IFREG | 0o755, data)
        for path in gone:
            del entries[path]

    return altered.with_initrd(image, target, edit)


@pytest.fixture(scope="module")
def verifiable(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny image whose nodes can verify the ISO: its livenetroot looks like dracut's, and it has a sha256sum."""
    where = tmp_path_factory.mktemp("verifiable")
    own = {"usr/sbin/livenetroot": LIVENETROOT, **dict(list(program().items())[1:])}
    own[f"{LIBRARIES}/ld-linux-x86-64.so.2"] = Path("/lib64/ld-linux-x86-64.so.2").read_bytes()
    own["lib64/ld-linux-x86-64.so.2"] = own[f"{LIBRARIES}/ld-linux-x86-64.so.2"]
    return with_initrd(with_root(tiny, program(), where), own, where / "verifiable.iso")


@pytest.fixture
def site(site: Site, verifiable: Path) -> Site:
    site.image = verifiable
    return site


def appended(site: Site) -> dict[str, Any]:
    """What the initrd has behind the image's: path -> member."""
    before, after = files_of(site.image)[INITRD], (site.output / INITRD).read_bytes()
    assert after.startswith(before)
    archives = Archives(lambda offset, size: after[len(before) + offset :][:size])
    return {member.path: member for member in archives.members(lambda _: True)}


def digests(site: Site, name: str = "boot/grub2/grub.cfg") -> list[str]:
    """The digests on the kernel command lines of a file of the layout."""
    return ARGUMENT.findall((site.output / name).read_text())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("injector", INJECTORS)
def test_the_digest_of_the_packed_iso_is_in_grub_cfg_and_boot_ipxe(site: Site, packs: Packs, injector: str) -> None:
    assert "Nodes verify the ISO" in packs("--inject", injector)
    for name in ("boot/grub2/grub.cfg", "boot.ipxe"):
        assert digests(site, name) == [sha256(site.iso)]
    files = appended(site)
    assert b"pxe-fetch.iso.sha256=" in files["usr/sbin/livenetroot"].content
    assert stat.S_IMODE(files["usr/sbin/livenetroot"].mode) == 0o755
    assert files[f"{FOLDER}/livenetroot"].content == LIVENETROOT
    assert files[f"{FOLDER}/sha256sum"].content == Path("/usr/bin/sha256sum").read_bytes()
    assert ("updates/usr/lib/pxe-fetch/pxe-fetch" in files) == (injector == "initrd")
    folders = {path for path, member in files.items() if stat.S_ISDIR(member.mode) and not path.startswith("updates")}
    assert folders == {FOLDER}, "an entry for `lib` or `sbin` would replace the initrd's link by an empty folder"
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=site.output, check=True)


def test_the_initrds_own_libraries_are_used_if_they_are_the_images(site: Site, packs: Packs) -> None:
    packs()
    assert not any(".so" in path for path in appended(site))


@pytest.mark.parametrize("other", [{f"{LIBRARIES}/libc.so.6": b"another build"}, {}], ids=["other", "missing"])
def test_a_library_that_differs_is_added_apart_and_the_initrds_stays(
    site: Site, packs: Packs, tmp_path: Path, other: dict[str, bytes]
) -> None:
    gone = [] if other else [f"{LIBRARIES}/libc.so.6"]
    site.image = with_initrd(site.image, other, tmp_path / "other.iso", gone=gone)
    packs()
    files = appended(site)
    assert f"{LIBRARIES}/libc.so.6" not in files
    for name in ("ld.so", "libc.so.6", "sha256sum"):
        path = tmp_path / "run" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files[f"{FOLDER}/{name}"].content)
        path.chmod(0o755)
    run = tmp_path / "run"
    command: list[str | Path] = [run / "ld.so", "--library-path", run, run / "sha256sum"]
    ran = subprocess.run(command, input=b"abc", check=True, capture_output=True)
    assert ran.stdout.split()[0] == hashlib.sha256(b"abc").hexdigest().encode()


def test_an_initrd_with_a_sha256sum_gets_no_other(site: Site, packs: Packs, tmp_path: Path) -> None:
    site.image = with_initrd(site.image, {"usr/bin/sha256sum": b"its own"}, tmp_path / "own.iso")
    packs()
    assert f"{FOLDER}/sha256sum" not in appended(site)
    assert digests(site) == [sha256(site.iso)]


def test_false_leaves_the_initrd_as_it_is(site: Site, packs: Packs) -> None:
    site.pack = {"verify_iso": False}
    packs()
    assert (site.output / INITRD).read_bytes() == files_of(site.image)[INITRD]
    assert digests(site) == []
    assert site.manifest()["verify_iso"] == {"on": False, "why": "switched off"}
    packs("--verify-iso", "true")
    assert digests(site) == [sha256(site.iso)]


def broken(site: Site, what: str, where: Path) -> Path:
    """The site's image without one thing that verifying needs."""
    target = where / "broken.iso"
    match what:
        case "script":
            return with_initrd(site.image, {"usr/sbin/livenetroot": b"#!/bin/sh\nexec downloader\n"}, target)
        case "squashed":
            (where / "inner").mkdir()
            squashfs = where / "squashfs-root.img"
            subprocess.run(["mksquashfs", where / "inner", squashfs, "-quiet"], check=True, capture_output=True)
            return with_initrd(site.image, {"squashfs-root.img": squashfs.read_bytes()}, target)
        case "program":
            return with_root(site.image, {}, where)
        case "library":
            return with_root(site.image, {**program(), f"{LIBRARIES}/libc.so.6": b"none"}, where)
    raise ValueError(what)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("script", "no script sbin/livenetroot of dracut's"),
        ("squashed", "boots from an image inside it"),
        ("program", "no usr/bin/sha256sum in its root filesystem"),
        ("library", "libc.so.6 is not an ELF file"),
    ],
)
def test_auto_says_why_an_image_cannot_have_it_and_true_refuses_it(  # noqa: PLR0917  fixtures
    site: Site, packs: Packs, refused: Refused, tmp_path: Path, what: str, why: str
) -> None:
    site.image = broken(site, what, tmp_path)
    plan = json.loads(packs("--dry-run", "--json").splitlines()[-1])["plan"]
    assert not plan["verify_iso"]["on"]
    assert why in plan["verify_iso"]["why"]
    said = refused("--verify-iso", "true")
    assert "error[iso-unverifiable]" in said
    assert why in " ".join(said.split())


def test_an_iso_on_a_share_and_a_full_os_image_have_none(
    site: Site, packs: Packs, tiny_full_os: Path, tmp_path: Path
) -> None:
    site.image = with_initrd(site.image, {"usr/lib/nfs-lib.sh": b""}, tmp_path / "nfs.iso")
    shown = packs("--dry-run", "--json", "--boot-url", "nfs://10.0.0.1/s/l.iso")
    plan = json.loads(shown.splitlines()[-1])["plan"]
    assert "mounted from the share" in plan["verify_iso"]["why"]
    site.image, site.pack = tiny_full_os, {"boot_url": None}
    packs()
    assert site.manifest()["verify_iso"] == {
        "on": False,
        "why": "there is none: the initrd is the root filesystem",
    }


def test_packing_a_packed_layout_again_gives_the_same_initrd_and_one_digest(site: Site, packs: Packs) -> None:
    packs("--inject", "initrd")
    site.output.rename(site.folder / "packed")
    original = site.image
    site.image = site.folder / "packed"
    packs("--inject", "updates")
    first = (site.output / INITRD).read_bytes()
    assert digests(site) == [sha256(site.iso)]
    shutil.rmtree(site.output)
    site.image = original
    packs("--inject", "updates")
    assert (site.output / INITRD).read_bytes() == first
    site.image = site.folder / "packed"
    packs("--verify-iso", "false")
    assert (site.output / INITRD).read_bytes() == files_of(original)[INITRD]
    assert digests(site) == digests(site, "boot.ipxe") == []


@pytest.mark.parametrize("injector", INJECTORS)
def test_remove_restores_the_initrd_and_takes_the_digest_away(site: Site, packs: Packs, injector: str) -> None:
    packs("--inject", injector)
    assert cli.main(["remove", str(site.output)]) == 0
    assert (site.output / INITRD).read_bytes() == files_of(site.image)[INITRD]
    assert site.iso.read_bytes() == site.image.read_bytes()
    assert digests(site) == digests(site, "boot.ipxe") == []
    assert "verify_iso" not in site.manifest()


def test_a_relocation_keeps_the_digest_and_a_share_has_none(site: Site, packs: Packs) -> None:
    packs()
    before = (site.output / "boot/grub2/grub.cfg").read_bytes()
    digest = sha256(site.iso)
    for url, expected in (
        ("http://192.0.2.7/other/liveos.iso", [digest]),
        ("tftp://192.0.2.7/liveos.iso", [digest]),
        ("nfs://192.0.2.7/srv/liveos.iso", []),
        (BOOT_URL, [digest]),
    ):
        assert cli.main(["relocate", str(site.output), "--boot-url", url]) == 0
        assert digests(site) == digests(site, "boot.ipxe") == expected, url
    assert (site.output / "boot/grub2/grub.cfg").read_bytes() == before


def test_check_compares_the_iso_with_the_kernel_command_line(
    site: Site, packs: Packs, checked: Callable[..., Checked]
) -> None:
    packs()
    assert not {name for name in checked(site.output).found if name.startswith("iso-")}
    cfg = site.output / "boot/grub2/grub.cfg"
    text = cfg.read_text()
    with site.iso.open("r+b") as iso:  # one bit, where no file system looks
        iso.seek(-1, 2)
        last = iso.read(1)[0]
        iso.seek(-1, 2)
        iso.write(bytes([last ^ 1]))
    assert checked(site.output).severity("iso-digest-differs") == "error"
    cfg.write_text(ARGUMENT.sub("", text))
    assert checked(site.output).severity("iso-digest-missing") == "warning"
    cfg.write_text(text)
    (site.output / INITRD).write_bytes(files_of(site.image)[INITRD])
    assert checked(site.output).severity("iso-digest-unread") == "warning"


def test_show_says_that_nodes_verify_the_iso(site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]) -> None:
    packs()
    assert cli.main(["show", str(site.output)]) == 0
    assert "verifies the ISO before mounting it" in capsys.readouterr().out
    assert cli.main(["show", str(site.output), "--json"]) == 0
    (initrd,) = json.loads(capsys.readouterr().out.splitlines()[-1])["initrds"]
    assert initrd["verifies_iso"] is True


def test_each_entry_that_boots_the_iso_has_it_before_what_is_for_init(site: Site, packs: Packs, tmp_path: Path) -> None:
    cfg = files_of(site.image)["boot/grub2/grub-pxe.cfg"].decode()
    entry = re.sub(r"(linux\S* .*)", r"\1 -- single", cfg[cfg.index("menuentry") :])
    site.image = altered.with_files(site.image, tmp_path / "two.iso", {"boot/grub2/grub-pxe.cfg": f"{cfg}\n{entry}"})
    packs()
    digest = sha256(site.iso)
    assert digests(site) == digests(site, "boot.ipxe") == [digest] * 2
    assert f"pxe-fetch.iso.sha256={digest} -- single" in (site.output / "boot/grub2/grub.cfg").read_text()
