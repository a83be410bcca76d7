"""A node of an image that was made from a root filesystem's folder, booted by this machine's signed boot loaders."""

from __future__ import annotations

import pytest

from boot.nodes import Booted, Expected, Site
from fakes.server import Server
from liveos import shapes, unpacked

NOTE = Expected(dest="/srv/note.txt", body=b"beside a root filesystem\n", mode="640", gid=4)
CONFIG = """\
version: 1
pack: {boot_url: "http://10.0.0.1/made.iso", artifact_url: "http://10.0.0.1/other-user-artifacts/"}
artifacts:
  - {name: note, source: note.txt, dest: /srv/note.txt, mode: "0640", group: adm}
"""


@pytest.fixture(scope="module")
def made(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Booted:
    site = Site(server=server, folder=tmp_path_factory.mktemp("made"))
    (site.folder / "note.txt").write_bytes(NOTE.body)
    root = unpacked.unpack(shapes.SHAPES["ic16"], site.folder / "root")
    site.pack(CONFIG, image=root, inject="rootfs")
    assert (site.layout / "grub/grub.cfg").is_file(), "Debian's signed GRUB reads this one first"
    return site.boot()


def test_image_made_from_a_folder_boots_and_fetches(made: Booted) -> None:
    assert made.code == 0, made.shown
    assert made.has(NOTE)
    assert made.inspected["units"]["pxe-fetch.target"]["ActiveState"] == "active"


def test_nothing_in_it_fails(made: Booted) -> None:
    assert made.inspected["failed_units"] == []
