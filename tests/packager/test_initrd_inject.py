"""`--inject initrd`: an archive is appended to the initrd, and everything else is unchanged."""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import shapes, tiny
from packing.site import Site, files_of, make_iso, take_out
from pxe_pack.image import liveos
from pxe_pack.image.initrd.cpio import Archives
from pxe_pack.inject import INJECTORS
from pxe_pack.inject.previous_payload import previous_payloads

AGENT = "usr/lib/pxe-fetch"
BOOTSTRAP, FULL_OS = "boot/initrd.img", f"boot/initramfs-{tiny.RELEASE}.img"

Packs = Callable[..., str]
Refused = Callable[..., str]


def unpacked(initrd: bytes, before: int, where: Path, *, program: str) -> dict[str, Path]:
    """The archives after the first `before` bytes, unpacked by cpio(1); path -> unpacked file."""
    behind = initrd[before:].lstrip(b"\0")
    where.mkdir()
    first = subprocess.run([program, "-dc"], input=behind, capture_output=True, check=False).stdout
    for archive in (first, behind[behind.rindex(b"070701", 0, behind.rindex(b"initrd.json")) :]):
        subprocess.run(["cpio", "-id", "--quiet", "-D", str(where)], input=archive, check=True, capture_output=True)
    return {str(path.relative_to(where)): path for path in where.rglob("*")}


def test_a_bootstrap_initrd_gets_the_payload_below_updates(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "initrd")
    before = files_of(site.image)[BOOTSTRAP]
    after = (site.output / BOOTSTRAP).read_bytes()
    assert after.startswith(before)
    files = unpacked(after, len(before), tmp_path / "found", program="gzip")
    assert {path.split("/")[0] for path in files} == {"updates"}
    assert files[f"updates/{AGENT}/pxe-fetch"].read_bytes() == Path("/bin/true").read_bytes()
    assert stat.S_IMODE(files[f"updates/{AGENT}/pxe-fetch"].stat().st_mode) == 0o755
    assert files["updates/etc/pxe-fetch/fetch.yaml"].is_file()
    wants = files["updates/usr/lib/systemd/system/multi-user.target.wants/pxe-fetch.target"]
    assert str(wants.readlink()) == "../pxe-fetch.target"
    assert site.iso.read_bytes() == site.image.read_bytes()


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
def test_a_full_os_initrd_gets_it_where_it_belongs(site: Site, packs: Packs, tmp_path: Path, compressor: str) -> None:
    shape = replace(shapes.SHAPES["full-os"], contents="tiny", compressor=compressor)  # type: ignore[arg-type]  # of a parameter's text
    site.image = shapes.cached(shape)
    site.pack = {"boot_url": None}
    packs()
    inject = site.manifest()["inject"]
    assert isinstance(inject, dict)
    assert inject["how"] == "initrd"
    assert "not `updates`: it has no ISO" in inject["why"]
    assert "not `rootfs`: its root filesystem is its initrd" in inject["why"]
    before = files_of(site.image)[FULL_OS]
    after = (site.output / FULL_OS).read_bytes()
    assert after.startswith(before)
    files = unpacked(after, len(before), tmp_path / "found", program=compressor)
    assert files[f"{AGENT}/pxe-fetch"].read_bytes() == Path("/bin/true").read_bytes()
    assert "updates" not in files
    assert not list(site.output.glob("*.iso"))


def test_every_kernels_initrd_gets_it_in_its_own_compression(site: Site, packs: Packs, tmp_path: Path) -> None:
    content: dict[str, str | bytes] = {**files_of(site.image)}
    first, cfg = content[BOOTSTRAP], content["boot/grub2/grub-pxe.cfg"]
    assert isinstance(first, bytes)
    assert isinstance(cfg, bytes)
    second = lzma.compress(gzip.decompress(first), check=lzma.CHECK_CRC32) + b"\0"  # an odd length, to be padded
    entry = cfg[cfg.index(b"menuentry") :]
    content["boot/initrd-2.img"], content["boot/vmlinuz-2"] = second, content["boot/vmlinuz"]
    other = entry.replace(b"initrd.img", b"initrd-2.img").replace(b"boot/vmlinuz", b"boot/vmlinuz-2")
    content["boot/grub2/grub-pxe.cfg"] = cfg + b"\n" + other
    site.image = make_iso(tmp_path / "two.iso", content)
    packs("--inject", "initrd")
    for name, before, program in ((BOOTSTRAP, first, "gzip"), ("boot/initrd-2.img", second, "xz")):
        after = (site.output / name).read_bytes()
        assert after.startswith(before)
        files = unpacked(after, len(before), tmp_path / program, program=program)
        assert f"updates/{AGENT}/pxe-fetch" in files
        archives = Archives(lambda offset, size, data=after: data[offset : offset + size])
        assert f"updates/{AGENT}/initrd.json" in [member.path for member in archives.members(lambda _: False)]
        assert archives.segments[-1].offset % 4 == 0


def test_the_initrd_is_read_as_the_one_that_it_was(site: Site, packs: Packs, tiny_full_os: Path) -> None:
    """Packing the layout again gives the same bytes: payloads do not pile up."""
    site.image = tiny_full_os
    site.pack = {"boot_url": None}
    packs()
    first = (site.output / FULL_OS).read_bytes()
    site.output.rename(site.folder / "packed")
    with liveos.opened(tiny_full_os, boot_url="") as was, liveos.opened(site.folder / "packed", boot_url="") as now:
        assert replace(now.initrds[FULL_OS], appended=None) == was.initrds[FULL_OS]
        payload = sum(path.stat().st_size for path in site.agent.rglob("*") if path.is_file())
        assert now.initrds[FULL_OS].unpacked >= was.initrds[FULL_OS].unpacked + payload
    site.image = site.folder / "packed"
    packs()
    assert (site.output / FULL_OS).read_bytes() == first


@pytest.mark.parametrize(("first", "then"), [(one, other) for one in INJECTORS for other in INJECTORS], ids=str)
def test_a_packed_layout_packed_again_has_the_last_payload_alone(
    site: Site, packs: Packs, first: str, then: str
) -> None:
    image = site.image
    packs("--inject", first)
    site.output.rename(site.folder / "packed")
    site.image = site.folder / "packed"
    packs("--inject", then)
    with liveos.opened(site.output, boot_url="") as packed:
        assert [one.how for one in previous_payloads(packed)] == [then]
        assert packed.live
        root = replace(packed.live.tree, with_graft=True)
        assert bool(root.stat([f"{AGENT}/pxe-fetch"]).get(f"{AGENT}/pxe-fetch")) == (then == "rootfs")
    assert any(path.startswith("updates/") for path in files_of(site.iso)) == (then == "updates")
    if then != "initrd":
        assert (site.output / BOOTSTRAP).read_bytes() == files_of(image)[BOOTSTRAP]


def test_the_same_inputs_give_the_same_bytes(site: Site, packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    packs("--inject", "initrd")
    first = (site.output / BOOTSTRAP).read_bytes()
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    before = os.umask(0o077)
    try:
        packs("--inject", "initrd")
    finally:
        os.umask(before)
    assert (site.output / BOOTSTRAP).read_bytes() == first


def test_auto_says_of_each_way_why_it_is_left(site: Site, packs: Packs) -> None:
    packs()
    inject = site.manifest()["inject"]
    assert isinstance(inject, dict)
    assert inject["how"] == "updates"
    assert "not `initrd`: works too, but nodes would download more over TFTP" in inject["why"]
    assert "not `rootfs`: works too, but packs more slowly" in inject["why"]


def test_initrd_is_refused_for_an_enforcing_image(site: Site, refused: Refused, tmp_path: Path) -> None:
    cfg = take_out(site.image, "boot/grub2/grub-pxe.cfg", tmp_path / "grub-pxe.cfg")
    cfg.write_text(cfg.read_text().replace("selinux=0", "enforcing=1"))
    target = tmp_path / "enforcing.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(target), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(cfg), "/boot/grub2/grub-pxe.cfg"], check=True, capture_output=True)
    site.image = target
    assert "SELinux is enforcing" in refused("--inject", "initrd")
