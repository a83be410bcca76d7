"""The Debian package: pxe-pack with its libraries in a folder of its own, for the Pythons of Debian 12 and 13.

Debian 12 has older versions of four libraries than pxe-pack needs (decision 53), so the package brings all of them:

    /usr/bin/pxe-pack                    starts the environment whose Python is installed
    /usr/bin/pxe-pack-collector          the same for the collector
    /usr/lib/pxe-pack/lib/               the wheel
    /usr/lib/pxe-pack/3.11/, 3.13/       environments as venv(5) describes them, with the libraries of runtime.lock
"""

from __future__ import annotations

import gzip
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from pxe_pack import tools
from pxe_pack.freeze.wheels import install_wheels
from pxe_release.sbom import LOCK, SOURCES
from pxe_release.source import Source

PYTHONS = ("3.11", "3.13")  # of Debian 12 and 13
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HOME = "usr/lib/pxe-pack"
_PROGRAMS = {"pxe-pack": "pxe_pack", "pxe-pack-collector": "pxe_pack.collector"}

_CONTROL = """\
Package: pxe-pack
Version: {version}
Architecture: {architecture}
Maintainer: the authors of pxe-pack <pxe-pack@localhost>
Section: admin
Priority: optional
Installed-Size: {size}
Depends: {pythons}, squashfs-tools, squashfs-tools-ng, xorriso, mtools, dosfstools, cpio, zstd
Recommends: minisign, osslsigncode, systemd, dnsmasq-base, nginx-light | nginx, iproute2
Suggests: qemu-system-x86, ovmf, systemd-boot-efi, mmdebstrap, uidmap, python3-pip
Description: last mile of network boot for LiveOS images
 pxe-pack puts a small agent and its configuration into a LiveOS image and exports
 a PXE layout that is ready to serve. The agent, pxe-fetch, fetches, verifies and
 installs a node's artifacts at each boot.
 .
 This package brings the Python libraries that it needs, and a ready agent.
"""
_START = """\
#!/bin/sh
for python in /usr/lib/pxe-pack/3.*/bin/python3; do
  [ ! -x "$python" ] || exec "$python" -m {module} "$@"
done
echo 'pxe-pack: no Python that it was packaged for is installed' >&2
exit 1
"""
# Debian's Python compiles what is installed (py3compile(1)); these folders are no place that it looks at.
_AFTER_INSTALL = """\
#!/bin/sh
set -e
for python in /usr/lib/pxe-pack/3.*/bin/python3; do
  [ ! -x "$python" ] || "$python" -m compileall -q /usr/lib/pxe-pack/lib "${python%/bin/python3}/lib" || true
done
"""
_BEFORE_REMOVAL = """\
#!/bin/sh
set -e
find /usr/lib/pxe-pack -depth -type d -name __pycache__ -exec rm -rf {} +
"""
_COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: pxe-pack

Files: *
Copyright: the authors of pxe-pack
License: Apache-2.0

Files: usr/lib/pxe-pack/3.*
Copyright: the authors of each library
License: see the METADATA and the licenses in each *.dist-info
"""


def build(wheel: Path, output: Path, *, source: Source, work: Path) -> Path:
    """Build the package from the `wheel`; its path in the folder `output`. Raises WorkError, CalledProcessError."""
    architecture = _ARCHITECTURES[platform.machine()]
    root = work / "root"
    home = root / _HOME
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(home / "lib")
    for python in PYTHONS:
        _environment(home / python, python=python, source=source, work=work / python)
    for program, module in _PROGRAMS.items():
        _write(root / "usr/bin" / program, _START.format(module=module), mode=0o755)
    documents = root / "usr/share/doc/pxe-pack"
    _write(documents / "copyright", _COPYRIGHT)
    _compressed(documents / "changelog.gz", (source.folder / "CHANGELOG.md").read_bytes())
    _compressed(root / "usr/share/man/man1/pxe-pack.1.gz", source.run("-m", "pxe_pack", "man"))
    completion = source.run("-m", "pxe_pack", "completion", "bash").decode()
    _write(root / "usr/share/bash-completion/completions/pxe-pack", completion)
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file()) // 1024
    pythons = " | ".join(f"python{python}" for python in PYTHONS)
    control = _CONTROL.format(version=source.version, architecture=architecture, size=size, pythons=pythons)
    _write(root / "DEBIAN/control", control)
    _write(root / "DEBIAN/postinst", _AFTER_INSTALL, mode=0o755)
    _write(root / "DEBIAN/prerm", _BEFORE_REMOVAL, mode=0o755)
    _normalise(root, epoch=source.epoch)
    package = output / f"pxe-pack_{source.version}_{architecture}.deb"
    command: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, package]
    subprocess.run(command, check=True, env=source.environment, stdout=subprocess.DEVNULL)
    return package


def _environment(folder: Path, *, python: str, source: Source, work: Path) -> None:
    """Make a virtual environment for /usr/bin/python`python`, without running that. Raises WorkError."""
    libraries = folder / f"lib/python{python}/site-packages"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    tools.run(
        *pip, "--require-hashes", "--requirement", source.folder / SOURCES, "--wheel-dir", work, env={"PYTHONPATH": ""}
    )
    install_wheels(libraries, locks=[source.folder / LOCK], python=python, machine=platform.machine(), wheels=work)
    shutil.rmtree(libraries / "bin", ignore_errors=True)
    for record in libraries.glob("*.dist-info/*"):
        # They name files that are gone, this build's folder, and the version of what built the wheel.
        if record.name in {"RECORD", "direct_url.json", "WHEEL"}:
            record.unlink()
    (libraries / "pxe-pack.pth").write_text(f"/{_HOME}/lib\n")
    # What a freeze asks for, pip, is Debian's.
    _write(folder / "pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {python}\n")
    (folder / "bin").mkdir()
    (folder / "bin/python3").symlink_to(f"/usr/bin/python{python}")


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _compressed(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))


def _normalise(root: Path, *, epoch: int) -> None:
    """Give all files modes and times that do not depend on this machine."""
    for path in [*root.rglob("*"), root]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
