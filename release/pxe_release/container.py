"""The container image: a small Debian with the package, as an OCI image layout in a tar archive, made without a daemon.

Source: OCI Image Format Specification 1.1 (image-layout.md, manifest.md, config.md). It has one layer, which mmdebstrap
writes; `skopeo copy oci-archive:FILE docker://…` brings it to a registry, `podman load -i FILE` to a machine.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shlex
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from pxe_pack.freeze.environment import debian_mirrors
from pxe_release.source import Source

SUITE = "trixie"
# What the package recommends and suggests for packing, checking, signing and serving; not what boots a virtual machine.
_PACKAGES = "ca-certificates,minisign,osslsigncode,systemd-boot-efi,dnsmasq-base,nginx-light,iproute2"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def build(package: Path, output: Path, *, source: Source, work: Path) -> Path:
    """Build the image from the Debian `package`; its path in the folder `output`. Raises CalledProcessError."""
    work.mkdir()
    layer = work / "layer.tar"
    subprocess.run(["mmdebstrap", *_arguments(package, layer)], check=True, env=source.environment)
    layout = work / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    digest, compressed = _digest(layer), work / "layer.tar.gz"
    with layer.open("rb") as plain, gzip.GzipFile(compressed, "wb", compresslevel=6, mtime=0) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)
    created = datetime.fromtimestamp(source.epoch, tz=UTC).isoformat().replace("+00:00", "Z")
    config = {
        "created": created,
        "architecture": package.stem.rpartition("_")[2],
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/pxe-pack"],
            "Cmd": ["--help"],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            "WorkingDir": "/work",
            "Labels": {
                "org.opencontainers.image.title": "pxe-pack",
                "org.opencontainers.image.version": source.version,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": created, "created_by": "release/build"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(layout, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [_blob(layout, compressed, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    entry = _blob(layout, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": source.version}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    image = output / f"pxe-pack-{source.version}.oci.tar"
    _archive(layout, image, epoch=source.epoch)
    return image


def _arguments(package: Path, layer: Path) -> list[str | Path]:
    """The arguments of mmdebstrap, which writes the layer."""
    inside = f"/root/{package.name}"
    install = f"apt-get -q --yes --no-install-recommends -o Dpkg::Use-Pty=0 install {inside} && rm {inside}"
    hooks = (
        f"copy-in {shlex.quote(str(package))} /root",
        f'chroot "$1" sh -c {shlex.quote(install)}',
        'mkdir "$1/work"',
    )
    return [
        "--quiet",
        "--variant=apt",
        f"--include={_PACKAGES}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        *(f"--customize-hook={hook}" for hook in hooks),
        SUITE,
        layer,
        *debian_mirrors(SUITE),
    ]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _blob(layout: Path, content: bytes | Path, media_type: str) -> dict[str, object]:
    """Put `content` among the blobs; its descriptor."""
    if isinstance(content, bytes):
        digest, size = hashlib.sha256(content).hexdigest(), len(content)
        (layout / "blobs/sha256" / digest).write_bytes(content)
    else:
        digest, size = _digest(content), content.stat().st_size
        content.rename(layout / "blobs/sha256" / digest)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _archive(layout: Path, target: Path, *, epoch: int) -> None:
    """Write the layout as a tar archive that is the same for the same files."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime, member.mode = epoch, 0o755 if member.isdir() else 0o644
        return member

    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(layout.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(layout)), recursive=False, filter=plain)
