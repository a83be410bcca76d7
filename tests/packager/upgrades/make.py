"""Writes layouts.tar.xz, for test_upgrades.py: a small image, and what former commits of this repository packed of it.

It needs the repository's history, so its output is kept. Add a commit for each version that is released, and run it in
tests/prepare's environment. Each layout is in COMMIT-WAY/; beside them are the images and, in keys/, what the signed
layouts are signed with: a key that signs nothing else.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from liveos import fullos, grubcfg, iso, newc, squash, tiny, tree  # noqa: E402  of the path above
from liveos.bootloader import BootLoaders  # noqa: E402
from liveos.cache import Cache  # noqa: E402
from liveos.grubcfg import Kernel  # noqa: E402
from liveos.newc import Entry  # noqa: E402
from liveos.programs import EPOCH  # noqa: E402
from liveos.specials import Inode  # noqa: E402
from packing.keys import KeyPair, key_pair  # noqa: E402
from packing.signing import Authority, authority  # noqa: E402

IMAGES = {
    "updates": "image",
    "rootfs": "image",
    "initrd": "image-full-os",
    "verified": "image-verifiable",  # nodes verify the ISO, and a signed configuration by URL
    "signed": "image-verifiable",  # Secure Boot, the ISO verified, a configuration by URL pinned by its digest
}
INJECTED, TRUSTED = ("updates", "rootfs", "initrd"), ("verified", "signed")
# What each of them was the first, or the last, to write. All but the last called themselves 0.1.0.
COMMITS = {
    "2026-11-29": ("e77a4b2", INJECTED),  # a manifest without `kind`, an ISO without a record of its original
    "2026-11-30-morning": ("ca0a772", INJECTED),  # with both
    "2026-11-30-trust": ("95f3802", TRUSTED),  # the first with a verified ISO, a signed boot and pins
    # A manifest that says what is neither verified nor signed; the first that signs again only what was signed.
    "2026-11-30-noon": ("338d6f0", INJECTED + TRUSTED),
    "0.2.0": ("44939c4", INJECTED + TRUSTED),
}
_LIBC = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 0x3E) + bytes(44) + b"GLIBC_2.36\0"
_CONFIG = """\
version: 1
pack:
  boot_url: http://10.0.0.1/liveos.iso
  artifact_url: http://10.0.0.1/other-user-artifacts/
artifacts:
  - {name: motd, source: motd.txt, dest: /srv/motd.txt}
  - {name: model, url: "http://10.0.0.1/m.bin", sha256: "%s", dest: /srv/m.bin}
""" % ("0" * 64)
_FLEET = "http://10.0.0.1/fleet.yaml"
# As dracut's script, which the injected one takes the place of; and what computes the digest there.
_IN_INITRD = {
    "usr/sbin/livenetroot": b"#!/bin/sh\nimgfile=$(fetch_url $liveurl)\nexec /sbin/dmsquash-live-root $imgfile\n",
    "usr/bin/sha256sum": _LIBC,
}


@dataclass(frozen=True)
class Keys:
    """What the trusted layouts are signed with."""

    configuration: KeyPair
    boot: Authority


def _verifying() -> Iterator[Entry]:
    """What an initrd needs beside its own files so that nodes can verify the ISO, parents first."""
    for folder in ("usr", "usr/sbin", "usr/bin"):
        yield Entry(folder, stat.S_IFDIR | 0o755)
    for path, data in _IN_INITRD.items():
        yield Entry(path, stat.S_IFREG | 0o755, data)


def contents() -> list[Inode]:
    """A tiny image's root filesystem whose programs have a few bytes, enough to read the C library's version from."""
    return [replace(one, data=_LIBC) if one.data.startswith(b"\x7fELF") else one for one in tiny.tree()]


def images(work: Path) -> None:
    """Write the images to `work`, each with the suffix .iso."""
    grub = work / "grub.efi"
    modules = ("normal", "configfile", "linux", "test", "efinet", "net", "tftp", "http", "search", "search_label")
    subprocess.run(["grub-mkimage", "-O", "x86_64-efi", "-p", "/boot/grub2", "-o", grub, *modules], check=True)
    loaders = BootLoaders(shim=grub, grub=grub)
    boot, kernel = tiny.boot_files(Cache()), Kernel("vmlinuz", "initrd.img")
    common: dict[str, Path | str] = {"boot/grub2/grubenv": grubcfg.GRUBENV, "boot/vmlinuz": boot.kernel}
    inodes = contents()
    root, whole = work / "rootfs.img", work / "whole.img"
    squash.squash(
        root, compressor="gzip", block_size=128 << 10, feed=lambda stream: tree.write(stream, base=None, over=inodes)
    )
    fullos.make(whole, base=None, over=inodes, compression="gzip", work=work)
    verifying = work / "verifying.img"
    verifying.write_bytes(boot.initrd.read_bytes() + gzip.compress(newc.archive(_verifying()), mtime=0))
    files: dict[str, dict[str, Path | str]] = {
        "image": {
            "boot/grub2/grub.cfg": grubcfg.iso(kernel),
            "boot/grub2/grub-pxe.cfg": grubcfg.pxe(kernel),
            "boot/initrd.img": boot.initrd,
            "liveos/rootfs.img": root,
        },
        "image-full-os": {"boot/grub2/grub.cfg": grubcfg.full_os(kernel, search=True), "boot/initrd.img": whole},
    }
    files["image-verifiable"] = {**files["image"], "boot/initrd.img": verifying}
    for name, own in files.items():
        stage = work / f"{name}.work"
        stage.mkdir()
        iso.write(work / f"{name}.iso", files={**common, **own}, loaders=loaders, efi_dir="efi/boot", work=stage)


def pack(commit: str, way: str, *, output: Path, code: Path, keys: Keys, work: Path) -> None:
    """Pack in one way by the sources in `code`."""
    agent = work / f"agent-{commit}"
    environment = {**os.environ, "PYTHONPATH": f"{code}/agent:{code}/packager", "SOURCE_DATE_EPOCH": str(EPOCH)}
    if not agent.exists():
        (agent / "_internal").mkdir(parents=True)
        shutil.copyfile("/bin/true", agent / "pxe-fetch")
        (agent / "pxe-fetch").chmod(0o755)
        manifest = "import sys; from pathlib import Path; from pxe_pack.freeze.agent import write_manifest as w; "
        manifest += "w(Path(sys.argv[1]), version='0.1.0')"
        subprocess.run([sys.executable, "-P", "-c", manifest, agent], env=environment, check=True, cwd=work)
    (work / "motd.txt").write_text("hello\n")
    (work / "fetch.yaml").write_text(_CONFIG + ("serial: 5\n" if way in TRUSTED else ""))
    (work / "fleet.yaml").write_text("version: 1\nserial: 5\nartifacts: []\n")
    signing: list[str | Path] = []
    if way == "signed":
        signing = ["--secure-boot-key", keys.boot.key, "--secure-boot-cert", keys.boot.certificate]
    trusting: list[str | Path] = []
    if way in TRUSTED:
        trusting = ["--verify-iso", "true", "--trust", keys.configuration.public]
    injector = "updates" if way in TRUSTED else way

    def run(*words: str | Path) -> None:
        subprocess.run([sys.executable, "-P", "-m", "pxe_pack", *words], env=environment, check=True, cwd=work)

    files = ("--image", work / f"{IMAGES[way]}.iso", "--output", output, "--agent", agent)
    run("--agent-config", "fetch.yaml", "--inject", injector, *files, *trusting, *signing)
    if way in TRUSTED:
        (work / "fleet.yaml.minisig").unlink(missing_ok=True)  # `pin` would take it instead of the digest
        by_signature: list[str | Path] = ["--sign", keys.configuration.secret] if way == "verified" else []
        run("pin", output, "fleet.yaml", "--url", _FLEET, *by_signature, *signing)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        images(work)
        own = work / "layouts/keys"
        own.mkdir(parents=True)
        # Tests sign with it for years.
        keys = Keys(configuration=key_pair(work), boot=authority(own, "Former Site", days=36500))
        for label, (commit, ways) in COMMITS.items():
            code = work / f"code-{label}"
            code.mkdir()
            archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x"], cwd=code, input=archive, check=True)
            for way in ways:
                pack(commit, way, output=work / "layouts" / f"{label}-{way}", code=code, keys=keys, work=work)
        for image in {*IMAGES.values()}:
            shutil.copyfile(work / f"{image}.iso", work / "layouts" / f"{image}.iso")
        target = HERE / "layouts.tar.xz"
        smallest = 9 | lzma.PRESET_EXTREME
        with lzma.open(target, "wb", preset=smallest) as packed, tarfile.open(fileobj=packed, mode="w|") as out:
            for path in sorted((work / "layouts").rglob("*")):
                out.add(path, arcname=path.relative_to(work / "layouts").as_posix(), recursive=False, filter=_plain)
        print(f"{target}: {target.stat().st_size:,} bytes")


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = EPOCH
    return member


if __name__ == "__main__":
    main()
