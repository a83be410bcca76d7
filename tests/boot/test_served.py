"""Nodes that boot from `pxe-pack serve`: firmware, shim, GRUB, kernel, the ISO, and the agent's artifact."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boot.nodes import Site
from boot.rack import WITHOUT_PXE, can_run, rack
from fakes.server import Server
from liveos import shapes

CONFIG = """\
version: 1
pack: {boot_url: http://10.0.0.1/images/liveos.iso, report: auto}
artifacts: [{name: note, source: note.txt, dest: /srv/note.txt}]
"""
MAC = "52:54:00:00:00:01"

pytestmark = pytest.mark.skipif(not can_run(), reason="needs a network card of its own (tun)")


@pytest.fixture(scope="module")
def site(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Site:
    packed = Site(server=server, folder=tmp_path_factory.mktemp("served"))
    (packed.folder / "note.txt").write_text("from the layout\n")
    packed.pack(CONFIG, image=shapes.cached(shapes.SHAPES["ic16"]), inject="updates")
    return packed


def test_a_node_gets_all_it_needs_by_the_firmwares_pxe(site: Site, tmp_path: Path) -> None:
    """Until it asks for the ISO: what follows is the same as after HTTP boot, below."""
    with rack(site.layout, tmp_path, "--dhcp", "full") as made, made.machine(MAC) as node:
        node.wait_until(lambda: "images/liveos.iso" in made.asked(), why=made.said)
        asked, sent = made.asked(), made.log("dnsmasq.log")
    assert asked["images/liveos.iso"] == ("200", "curl")
    for name in ("bootx64.efi", "grubx64.efi", "boot/grub2/grub.cfg", "boot/vmlinuz"):
        assert re.search(rf"sent \S+/{name}\S* to 10\.0\.0\.1\d\d", sent), sent


def test_a_node_is_done_by_the_firmwares_http_boot(site: Site, tmp_path: Path) -> None:
    with rack(site.layout, tmp_path, "--dhcp", "full") as made, made.machine(MAC, *WITHOUT_PXE) as node:
        node.wait_until(lambda: "images/liveos.iso" in made.asked(), why=made.said)
        node.wait_until(lambda: any(path.endswith("/note.txt") for path in made.asked()), why=made.said)
        node.wait_until(lambda: made.nodes()[MAC]["state"] == "done", why=made.said)
        by = made.asked()
    assert by["bootx64.efi"] == ("200", "UefiHttpBoot")
    assert by["grubx64.efi"] == ("200", "UefiHttpBoot")
    # Debian 13's GRUB 2.12 reads files through the firmware's HTTP, older ones have their own.
    client = by["boot/grub2/grub.cfg"][1]
    assert client in {"GRUB", "UefiHttpBoot"}
    kernels = [facts for path, facts in by.items() if path.startswith(("boot/vmlinuz", "boot/init"))]
    assert [by["boot/grub2/grub.cfg"], *kernels] == [("200", client)] * 3
    assert by["images/liveos.iso"] == ("200", "curl")
