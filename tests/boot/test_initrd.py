"""Nodes whose payload came behind the initrd: of an image that fetches an ISO, and of one that is all in its initrd."""

from __future__ import annotations

import pytest

from boot.nodes import Booted, Site
from boot.sites import NOTE, PLAIN
from fakes.server import Server
from liveos import shapes
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.paths import UNIT_NAME

CONFIG = """\
version: 1
pack:
  artifact_url: http://10.0.0.1/other-user-artifacts/
{boot_url}
artifacts:
  - {{name: plain, url: "{base}/plain.txt", sha256: {plain}, dest: /srv/plain.txt}}
  - {{name: note, source: note.txt, dest: /srv/note.txt}}
"""


def boot(server: Server, folder_of: pytest.TempPathFactory, shape: str, *, boot_url: str) -> Booted:
    """A node of an image that was packed by `initrd`."""
    site = Site(server=server, folder=folder_of.mktemp(shape))
    (site.folder / "note.txt").write_bytes(NOTE.body)
    config = CONFIG.format(base=site.url(""), plain=PLAIN.sha256, boot_url=boot_url)
    site.pack(config, image=shapes.cached(shapes.SHAPES[shape]), inject="initrd")
    assert ("pxe-fetch.iso.sha256=" in (site.layout / "boot/grub2/grub.cfg").read_text()) == bool(boot_url)
    return site.boot()


def check(booted: Booted) -> None:
    assert booted.code == 0, booted.shown
    assert booted.node["exit_code"] == Exit.DONE
    assert booted.has(PLAIN)
    assert booted.has(NOTE)
    assert booted.inspected["failed_units"] == []
    assert booted.inspected["units"]["pxe-fetch.target"]["ActiveState"] == "active"
    assert booted.journal[0]["PXE_FETCH_URL"] == "/etc/pxe-fetch/fetch.yaml"
    # By this they are found when journald gets to them after the agent's end, as it does in some of these boots.
    assert {entry["OBJECT_SYSTEMD_UNIT"] for entry in booted.journal} == {UNIT_NAME}


def test_bootstrap_image_boots_with_the_payload_in_its_initrd(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The ISO that it fetches is the image's own, untouched, and its initrd verifies that."""
    booted = boot(server, tmp_path_factory, "ic08", boot_url="  boot_url: http://10.0.0.1/liveos.iso")
    check(booted)
    assert "http://10.0.0.1/liveos.iso" in [served["url"] for served in booted.result["served"]]


def test_full_os_image_boots_with_the_payload_in_its_initrd(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(boot(server, tmp_path_factory, "full-os", boot_url=""))
