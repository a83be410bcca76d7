"""Images with the GRUB configurations of several producers, packed: what comes out parses, and lost nothing.

Each folder of grubcfg/ has the text files of a medium, written afresh in the structure of its producer's, and what a
node has to get: kernels, initrds, and every argument that was the image's own.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packing.grub_emu import tried
from packing.site import BOOT_URL, Site, files_of, make_iso
from pxe_pack import cli
from pxe_pack.layout.entries import menu

Packs = Callable[..., str]
Refused = Callable[..., str]

CORPUS = Path(__file__).with_name("grubcfg")
NAMES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
# what packing adds where it is not there
ADDED = {f"root=live:{BOOT_URL}", "ip=dhcp", "rd.live.azldownloader=enable", "rd.live.overlay.nouserconfirmprompt"}
OVER_TFTP_NEVER = (" -f ", " -e ", " -s ", " -d ", "blscfg", "search ", "set root=", "set prefix=")


def medium(name: str, source: Path, target: Path) -> tuple[Path, dict[str, Any]]:
    """An ISO with the configuration `name`, made of the tiny image's files; and what is expected of it."""
    expected = json.loads((CORPUS / name / "expected.json").read_text())
    given = files_of(source)
    files: dict[str, str | bytes] = {path: data for path, data in given.items() if path.endswith(".efi")}
    top = CORPUS / name / "medium"
    files |= {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    files |= dict.fromkeys(expected["kernels"], given["boot/vmlinuz"])
    files |= dict.fromkeys(expected["initrds"], given["boot/initrd.img"])
    files[expected["root"]] = given["liveos/rootfs.img"]
    return make_iso(target, files), expected


def by_grub(text: str) -> None:
    """Have GRUB's own parser read it."""
    done = subprocess.run(["grub-script-check"], input=text.encode(), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode() + text


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_of_the_corpus_is_one_for_grub(name: str) -> None:
    for path in (CORPUS / name / "medium").rglob("*.cfg"):
        if "Environment Block" not in path.read_text():
            by_grub(path.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_producers_image_is_packed_and_loses_nothing(site: Site, packs: Packs, name: str) -> None:
    site.image, expected = medium(name, site.image, site.folder / f"{name}.iso")
    packs()
    text = (site.output / "boot/grub2/grub.cfg").read_text()
    by_grub(text)
    commands = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not [word for word in OVER_TFTP_NEVER if word in commands.replace("load_env -f", "load_env")]
    entries = menu(text, read=lambda path: (site.output / path.lstrip("/")).read_text()).entries
    assert len(entries) == len(expected["entries"])
    for entry, wanted in zip(entries, expected["entries"], strict=True):
        assert (entry.kernel, list(entry.initrds)) == (f"/{wanted['kernel']}", [f"/{one}" for one in wanted["initrds"]])
        for path in (entry.kernel, *entry.initrds):
            assert (site.output / path.lstrip("/")).is_file()
        arguments = [argument for argument in entry.arguments if "$" not in argument]
        assert len(set(arguments)) == len(arguments)
        assert [argument for argument in arguments if argument.startswith("root=")] == [f"root=live:{BOOT_URL}"]
        own = shlex.split(wanted["arguments"])
        assert [argument for argument in arguments if argument in own] == own
        assert set(arguments) - set(own) <= ADDED


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_producers_image_passes_its_check(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    site.image, _ = medium(name, site.image, site.folder / f"{name}.iso")
    packs()
    assert cli.main(["check", str(site.output), "--offline"]) in (0, 3)
    said = capsys.readouterr().out
    errors = {line.split("]")[0] for line in said.splitlines() if line.startswith("error[")}
    # the corpus has one initrd for all: of Azure Linux's tiny kernel
    assert errors <= {"error[kernel-other-initrd"}, said


def test_an_image_of_live_boot_is_refused_by_what_it_lacks(site: Site, refused: Refused) -> None:
    """Debian's own live media are not dracut's: live-boot fetches a squashfs, and knows no updates/."""
    image, _ = medium("debian-live", site.image, site.folder / "dracut.iso")
    files: dict[str, str | bytes] = {**files_of(image)}
    text = (CORPUS / "debian-live/medium/boot/grub/grub.cfg").read_text()
    own = text.replace("root=live:LABEL=CDROM rd.live.image rd.live.dir=live", "boot=live components").replace(
        "rd.live.squashimg=filesystem.squashfs", "findiso=${iso_path}"
    )
    assert "rd.live" not in own
    files["boot/grub/grub.cfg"] = own
    site.image = make_iso(site.folder / "debian.iso", files)
    image.unlink()
    assert "no entry boots a LiveOS" in refused()


@pytest.mark.parametrize("saved", ["6.12.9", "6.12.57"])
def test_saved_entry_chooses_among_files_of_entries(site: Site, packs: Packs, saved: str) -> None:
    """The id begins with a digit, which Debian's GRUB would take for a number: the layout's grub.cfg helps it."""
    image, _ = medium("azure-linux-4", site.image, site.folder / "azl4.iso")
    files: dict[str, str | bytes] = {**files_of(image)}
    environment = files["boot/grub2/grubenv"]
    assert isinstance(environment, bytes)
    files["boot/grub2/grubenv"] = environment.replace(b"saved_entry=4e1f-6.12.57", f"saved_entry=4e1f-{saved}".encode())
    site.image = make_iso(site.folder / "saved.iso", files)
    packs()
    grub_cfg = site.output / "boot/grub2/grub.cfg"
    by_grub(grub_cfg.read_text())
    script = (site.output / "boot.ipxe").read_text()
    default = re.search(r"^goto entry(\d)$", script, re.MULTILINE)
    assert default
    assert f"\nkernel boot/vmlinuz-{saved}-1" in script[script.index(f":entry{default[1]}\n") :][:200]
    folder = site.folder / "emulated"
    folder.mkdir()
    shutil.copy(site.output / "boot/grub2/grubenv", folder)
    text = grub_cfg.read_text().replace("set timeout=1", "set timeout=0")
    assert tried(text, folder)[0][0] == f"/boot/vmlinuz-{saved}-1.azl4.x86_64"
