"""The nodes of one rack as `pxe-pack nodes` and the page show them, beside another DHCP server (`--dhcp proxy`).

One is done, by the firmware's PXE; one got a corrupt artifact, by iPXE; the kernel of one panics; and the plug of one
was pulled before it had its boot loader. The screenshots are in `work/screenshots`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from boot.nodes import Site
from boot.rack import OTHER_DHCP_LOG, PATIENCE, Rack, can_run, rack
from fakes import ports
from fakes.process import Process, running
from fakes.server import Server
from fakes.waiting import until
from liveos import shapes
from page.chromium import chromium, find, opened, screenshot, text

CONFIG = """\
version: 1
pack: {boot_url: http://10.0.0.1/images/liveos.iso, report: auto}
defaults: {retry: {attempts_without_progress: 2, base: 200ms, max: 1s}}
artifacts:
  - {name: note, source: note.txt, dest: /srv/note.txt}
  - {name: model, source: model.bin, dest: /srv/model.bin}
"""
MODEL = b"weights " * 200_000
DONE, PANICKED, UNPLUGGED, CORRUPTED = (f"52:54:00:00:00:0{number}" for number in range(1, 5))
SILENT_AFTER = 180  # seconds (docs/collector.md)

pytestmark = pytest.mark.skipif(not can_run(), reason="needs a network card of its own (tun)")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A rack all of whose nodes have ended, or stopped."""

    rack: Rack
    nodes: dict[str, dict[str, Any]]  # by MAC address, as `pxe-pack nodes --json` has them
    url: str  # of the page, from this machine


@pytest.fixture(scope="module")
def shown(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """All four nodes, booted one after the other."""
    site = Site(server=server, folder=tmp_path_factory.mktemp("nodes"))
    (site.folder / "note.txt").write_text("from the layout\n")
    (site.folder / "model.bin").write_bytes(MODEL)
    site.pack(CONFIG, image=shapes.cached(shapes.SHAPES["ic16"]), inject="updates")
    folder = tmp_path_factory.mktemp("rack")
    with rack(site.layout, folder, "--dhcp", "proxy", with_dhcp_server=True) as made:
        began = time.monotonic()
        is_unplugged_early(made)
        panics(made, site)
        runs(made, DONE, "done")
        with corrupted(site):
            runs(made, CORRUPTED, "failed", by_ipxe=True)
        until(lambda: time.monotonic() > began + SILENT_AFTER, within=SILENT_AFTER)
        until(lambda: [made.nodes()[mac]["state"] for mac in (PANICKED, UNPLUGGED)] == ["silent"] * 2, within=PATIENCE)
        with page(made) as url:
            yield Shown(rack=made, nodes=made.nodes(), url=url)


def is_unplugged_early(made: Rack) -> None:
    """A machine that got its address, and no boot loader."""
    with made.machine(UNPLUGGED, memory=512) as node:
        node.wait_until(lambda: "DHCPACK" in made.log(OTHER_DHCP_LOG), why=made.said)
        node.unplug()
        assert "bootx64.efi to" not in made.log("dnsmasq.log")


def panics(made: Rack, site: Site) -> None:
    """A machine with an entry of its own in GRUB: no initrd, and a root= that it does not have."""
    grub = site.layout / "boot/grub2"
    lines = (grub / "grub.cfg").read_text().splitlines(keepends=True)
    entry = "".join(line for line in lines if not line.lstrip().startswith("initrd"))
    own = grub / f"grub.cfg-01-{PANICKED.replace(':', '-')}"
    own.write_text(re.sub(r"root=live:\S+", "root=/dev/sda9", entry))
    with made.machine(PANICKED, memory=1024) as node:
        node.wait_until(lambda: "Kernel panic - not syncing: VFS" in node.console, why=made.said)
    own.unlink()


def runs(made: Rack, mac: str, state: str, *, by_ipxe: bool = False) -> None:
    """A machine whose agent's run ends so."""
    with made.machine(mac, by_ipxe=by_ipxe) as node:
        while made.nodes().get(mac, {}).get("state") != state:
            began = time.monotonic()
            node.wait_until(lambda began=began: time.monotonic() > began + 3, why=made.said)  # type: ignore[misc]


@contextlib.contextmanager
def corrupted(site: Site) -> Iterator[None]:
    """One byte of the model on the server is another one, for as long as the context lasts."""
    (model,) = site.layout.rglob("model.bin")
    model.write_bytes(MODEL[:-1] + b"!")
    yield
    model.write_bytes(MODEL)


@contextlib.contextmanager
def page(made: Rack) -> Iterator[str]:
    """The URL of the page, which listens on the loopback of `serve`, for a browser on this machine's."""
    port = ports.free()
    forward = ["/usr/lib/systemd/systemd-socket-proxyd", "127.0.0.1:8787"]
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", *made.wire.at_server(*forward)]
    with running(Process(command=command, is_ready=lambda: ports.accepts(port), output=made.folder / "forward.log")):
        yield f"http://localhost:{port}"


def test_each_node_is_shown_once_with_its_stage_and_state(shown: Shown) -> None:
    found = {mac: (one["state"], one["stage"]) for mac, one in shown.nodes.items()}
    assert found == {
        DONE: ("done", "done"),
        PANICKED: ("silent", "kernel"),
        UNPLUGGED: ("silent", "DHCP"),
        CORRUPTED: ("failed", "artifacts"),
    }


def test_node_with_a_corrupt_artifact_is_shown_with_its_cause_and_what_to_do(shown: Shown) -> None:
    node = shown.nodes[CORRUPTED]
    assert (node["cause"], node["exit_code"]) == ("integrity", 76)
    assert "model" in node["message"]
    assert "do not have the configured digest" in node["advice"]


def test_nodes_that_have_stopped_are_shown_with_the_time_since_and_what_to_do(shown: Shown) -> None:
    assert "kernel panic" in shown.nodes[PANICKED]["advice"]
    assert "UDP port 69" in shown.nodes[UNPLUGGED]["advice"]
    assert min(shown.nodes[mac]["stage_seconds"] for mac in (PANICKED, UNPLUGGED)) >= SILENT_AFTER


def test_node_beside_another_dhcp_server_is_shown_at_every_stage_of_its_boot(shown: Shown) -> None:
    with chromium() as browser:
        opened(browser, f"{shown.url}/nodes/{shown.nodes[DONE]['id']}")
        until(lambda: text(browser, "#timeline"))
        timeline = [one.text for one in find(browser, "#timeline").find_elements("css selector", "b")]
        screenshot(browser, "real-node-done.png")
    assert [*dict.fromkeys(timeline)][:6] == ["DHCP", "shim", "GRUB", "kernel", "initrd", "ISO"]
    assert timeline[-1] == "done"
    assert "next-server (siaddr) 10.0.0.1" in shown.rack.log("served"), "the GRUB of this image is 2.06"


def test_page_shows_the_real_nodes(shown: Shown) -> None:
    with chromium(size=(1360, 900)) as browser:
        opened(browser, shown.url)
        until(lambda: len(browser.find_elements("css selector", "#rows tr")) == 4)
        until(lambda: "at most" in text(browser, "#throughput-text"), within=40)
        states = [find(browser, f"#states .{state} b").text for state in ("failed", "silent", "done")]
        screenshot(browser, "real-nodes.png")
        for mac, words in ((CORRUPTED, ("integrity", "What to do")), (PANICKED, ("kernel", "What to do"))):
            opened(browser, f"{shown.url}/nodes/{shown.nodes[mac]['id']}")
            until(lambda: text(browser, "#timeline"))
            said = find(browser, "main").text
            assert [word for word in words if word not in said] == []
            screenshot(browser, f"real-node-{shown.nodes[mac]['state']}.png")
    assert states == ["1", "2", "1"]
