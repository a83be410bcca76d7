"""Writes layouts.tar.xz, for test_upgrades.py: a small image, and what former commits of this repository packed of it.

It needs the repository's history, so its output is kept. Add a commit for each version that is released, and run it in
tests/prepare's environment. Each layout is in COMMIT-WAY/, and its image in image.iso or image-full-os.iso beside them.
"""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from liveos import fullos, grubcfg, iso, squash, tiny, tree  # noqa: E402  of the path above
from liveos.bootloader import BootLoaders  # noqa: E402
from liveos.cache import Cache  # noqa: E402
from liveos.grubcfg import Kernel  # noqa: E402
from liveos.programs import EPOCH  # noqa: E402
from liveos.specials import Inode  # noqa: E402

# What each of them was the first, or the last, to write. All called themselves 0.1.0.
COMMITS = {
    "2026-11-29": "e77a4b2",  # a manifest without `kind`, an ISO without a record of its original
    "2026-11-30-morning": "ca0a772",  # with both
    "2026-11-30-noon": "338d6f0",  # whose manifest says that it has no keys and no verified ISO
}
WAYS = {"updates": "image", "rootfs": "image", "initrd": "image-full-os"}
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


def contents() -> list[Inode]:
    """A tiny image's root filesystem whose programs have a few bytes, enough to read the C library's version from."""
    return [replace(one, data=_LIBC) if one.data.startswith(b"\x7fELF") else one for one in tiny.tree()]


def images(work: Path) -> None:
    """Write image.iso and image-full-os.iso to `work`."""
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
    files: dict[str, dict[str, Path | str]] = {
        "image": {
            "boot/grub2/grub.cfg": grubcfg.iso(kernel),
            "boot/grub2/grub-pxe.cfg": grubcfg.pxe(kernel),
            "boot/initrd.img": boot.initrd,
            "liveos/rootfs.img": root,
        },
        "image-full-os": {"boot/grub2/grub.cfg": grubcfg.full_os(kernel, search=True), "boot/initrd.img": whole},
    }
    for name, own in files.items():
        stage = work / f"{name}.work"
        stage.mkdir()
        iso.write(work / f"{name}.iso", files={**common, **own}, loaders=loaders, efi_dir="efi/boot", work=stage)


def pack(commit: str, image: Path, way: str, *, output: Path, code: Path, work: Path) -> None:
    """Pack `image` by the sources in `code`."""
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
    (work / "fetch.yaml").write_text(_CONFIG)
    command = [sys.executable, "-P", "-m", "pxe_pack", "--agent-config", "fetch.yaml", "--inject", way]
    command += ["--image", str(image), "--output", str(output), "--agent", str(agent)]
    subprocess.run(command, env=environment, check=True, cwd=work)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        images(work)
        for label, commit in COMMITS.items():
            code = work / f"code-{label}"
            code.mkdir()
            archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x"], cwd=code, input=archive, check=True)
            for way, image in WAYS.items():
                output = work / "layouts" / f"{label}-{way}"
                output.parent.mkdir(exist_ok=True)
                pack(commit, work / f"{image}.iso", way, output=output, code=code, work=work)
        for image in {*WAYS.values()}:
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
