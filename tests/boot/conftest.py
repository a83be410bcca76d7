"""Nodes: each layout is packed once, and booted as seldom as can be, for a boot takes a minute or two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from boot import shares
from boot.nodes import HOST, PXE_PACK, Booted, Site
from boot.sites import (
    BESIDE,
    CONFIGS,
    CORRUPT,
    ELSEWHERE,
    ELSEWHERE_URL,
    LARGE,
    LICENCE,
    MADE,
    NOTE,
    OTHER,
    PLAIN,
    SMALL,
    SOUND,
    TROUBLED,
    WOBBLY,
)
from boot.trouble import killed_at
from fakes import caches, ports
from fakes.faults import Flip, Serve, Status
from fakes.ganesha import ganesha
from fakes.nginx import Nginx, nginx
from fakes.process import WebServer
from fakes.server import Script, Server
from liveos import shapes, unpacked
from packing.keys import KeyPair, key_pair, sign
from pxe_pack.caches import CACHES
from pxe_pack.caches.cache import Cache, origin_of


def image(shape: str) -> Path:
    """The LiveOS ISO of a shape: built when first asked for, then kept in a cache of the user's."""
    return shapes.cached(shapes.SHAPES[shape])


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The sites' web server, which also takes what the image's probe posts."""
    scripts = {
        "/wobbly.bin": Script(body=WOBBLY.body, faults=[Status(503), Status(503), Serve(until=0.5)]),
        "/corrupt.bin": Script(body=CORRUPT.body, then=Flip()),
        "/plain.txt": Script(body=PLAIN.body),
        "/other.txt": Script(body=OTHER.body),
    }
    with Server(scripts) as running:
        yield running


@pytest.fixture(scope="session")
def troubled(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Booted:
    """A node whose image was rewritten (`rootfs`), with a server in trouble."""
    site = Site(server=server, folder=tmp_path_factory.mktemp("troubled"))
    (site.folder / "note.txt").write_bytes(NOTE.body)
    config = TROUBLED.format(base=site.url(""), wobbly=WOBBLY.sha256, corrupt=CORRUPT.sha256)
    site.pack(config, image=image("ic08"), inject="rootfs")
    return site.boot()


@pytest.fixture(scope="session")
def sound(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A layout whose image has the payload beside its root file system (`updates`), where all is well."""
    site = Site(server=server, folder=tmp_path_factory.mktemp("sound"))
    key_pair(site.folder)
    (site.folder / "files").mkdir()
    (site.folder / "files/large file.bin").write_bytes(LARGE.body)
    (site.folder / "files/klein.conf").write_bytes(SMALL.body)
    config = SOUND.format(base=site.url(""), plain=PLAIN.sha256, configs=CONFIGS.sha256, licence=LICENCE.sha256)
    site.pack(config, image=image("ic16"), inject="updates")
    return site


@pytest.fixture(scope="session")
def booted(sound: Site) -> Booted:
    """A node of the layout where all is well."""
    return sound.boot()


@pytest.fixture(scope="session")
def pinned(sound: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The same layout with a configuration that is not in the image: elsewhere.yaml, signed and pinned."""
    site = Site(server=sound.server, folder=tmp_path_factory.mktemp("pinned"))
    shutil.copytree(sound.layout, site.layout, copy_function=os.link)
    config = elsewhere(site.folder, sound, serial=3)
    command: list[str | Path] = [
        PXE_PACK,
        "pin",
        site.layout,
        config,
        "--url",
        ELSEWHERE_URL,
        "--sign",
        sound.folder / "site.key",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return site


@pytest.fixture(scope="session")
def replayed(sound: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of another one, which is signed by the same key, and older than the packed one."""
    config = elsewhere(tmp_path_factory.mktemp("replayed"), sound, serial=1)
    keys = KeyPair(public=sound.folder / "site.pub", secret=sound.folder / "site.key")
    for path, file in {"/older.yaml": config, "/older.yaml.minisig": sign(config, keys)}.items():
        sound.server.scripts[path] = Script(body=file.read_bytes())
    return sound.url("/older.yaml")


@dataclass(frozen=True, kw_only=True)
class IsoCache:
    """A cache of the ISO that nodes have for their proxy, and its origin."""

    cache: WebServer
    origin: Nginx
    size: int  # of the ISO


@pytest.fixture(scope="session")
def iso_cache(sound: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsoCache]:
    """The printed cache of the layout's server."""
    folder = tmp_path_factory.mktemp("cache")
    iso = folder / "root/images/liveos.iso"
    iso.parent.mkdir(parents=True)
    os.link(sound.layout / "liveos.iso", iso)
    port = ports.free()
    with nginx(folder / "origin", root=folder / "root") as origin:
        known = Cache(origin=origin_of("http://10.0.1.7:8080"), port=port, folder=str(folder / "cached"))
        # Only the node knows a server at that address.
        printed = CACHES["nginx-cache"](known).replace("server 10.0.1.7:8080;", f"server 127.0.0.1:{origin.port};")
        with caches.cache("nginx-cache", folder / "server", printed=printed, port=port) as cache:
            yield IsoCache(cache=cache, origin=origin, size=iso.stat().st_size)


@pytest.fixture(scope="session")
def behind_a_cache(sound: Site, replayed: str, iso_cache: IsoCache) -> Booted:
    """A node that fetches its ISO through a cache, and is told of a configuration that is a replay."""
    return sound.boot(append=f"pxe-fetch.config={replayed} proxy=http://{HOST}:{iso_cache.cache.port}")


def elsewhere(folder: Path, site: Site, *, serial: int) -> Path:
    """A configuration with one artifact of the site's web server."""
    file = folder / "elsewhere.yaml"
    file.write_text(ELSEWHERE.format(base=site.url(""), other=OTHER.sha256, serial=serial))
    return file


@pytest.fixture(scope="session")
def made(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Booted:
    """A node of an image made from a root filesystem's folder, by this machine's signed boot loaders.

    It has artifacts from a share too, where this user may serve one.
    """
    site = Site(server=server, folder=tmp_path_factory.mktemp("made"))
    (site.folder / "note.txt").write_bytes(BESIDE.body)
    root = unpacked.unpack(shapes.SHAPES["ic16"], site.folder / "root")
    if os.geteuid() != 0:
        site.pack(MADE, image=root, inject="rootfs")
        return _booted(site)
    with (
        shares.exported() as exported,
        ganesha(site.folder / "ganesha", root=exported, export=shares.EXPORT) as share,
    ):
        shares.lay(root, port=share.port)
        server.scripts |= shares.mirrors(share)
        site.pack(MADE + shares.artifacts(base=site.url("")), image=root, inject="rootfs")
        with killed_at(share, taken=shares.TAKEN):
            return _booted(site)


def _booted(site: Site) -> Booted:
    assert (site.layout / "grub/grub.cfg").is_file(), "Debian's signed GRUB reads this one first"
    return site.boot()


@pytest.fixture
def bare_layout(tmp_path: Path) -> Path:
    """A layout with boot loaders that work, and a kernel that is none; written by hand, to be broken by the tests."""
    layout = tmp_path / "pxe"
    iso = tmp_path / "tiny.iso"
    shutil.copyfile(image("tiny"), iso)
    taken = {"/efi/boot/bootx64.efi": "bootx64.efi", "/efi/boot/grubx64.efi": "grubx64.efi"}
    taken |= {"/boot/grub2/grub-pxe.cfg": "boot/grub2/grub.cfg", "/boot/vmlinuz": "boot/vmlinuz"}
    for path in taken.values():
        (layout / path).parent.mkdir(parents=True, exist_ok=True)
    extract = [word for source, path in taken.items() for word in ("-extract", source, str(layout / path))]
    subprocess.run(["xorriso", "-osirrox", "on", "-indev", iso, *extract], check=True, capture_output=True)
    outputs = [{"path": path, "size": (layout / path).stat().st_size} for path in taken.values()]
    (layout / "manifest.json").write_text(json.dumps({"version": 1, "outputs": outputs}))
    return layout
