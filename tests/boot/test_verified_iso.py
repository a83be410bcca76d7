"""A node that is served another ISO than the one that was packed. In the other boots, nodes verify the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from boot.nodes import Site
from boot.sites import PLAIN
from fakes.server import Server
from liveos import shapes

CONFIG = """\
version: 1
pack: {{boot_url: http://10.0.0.1/liveos.iso, verify_iso: true}}
artifacts: [{{name: plain, url: "{base}/plain.txt", sha256: {plain}, dest: /srv/plain.txt}}]
"""


def test_an_iso_with_one_bit_changed_stops_the_node_with_one_line(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = Site(server=server, folder=tmp_path_factory.mktemp("changed"))
    site.pack(
        CONFIG.format(base=site.url(""), plain=PLAIN.sha256),
        image=shapes.cached(shapes.SHAPES["ic16"]),
        inject="updates",
    )
    with (site.layout / "liveos.iso").open("r+b") as iso:
        iso.seek(-1, 2)
        last = iso.read(1)[0]
        iso.seek(-1, 2)
        iso.write(bytes([last ^ 1]))
    booted = site.boot()
    assert booted.code == 1, booted.shown
    assert (booted.result["stage"], booted.result["node"]) == ("livenet", None)
    message = booted.result["failure"]["message"]
    assert "the node refused the ISO: the ISO at http://10.0.0.1/liveos.iso has the sha256 " in message
    assert "it was fetched 3 times, and is not booted" in message
    log = Path(booted.result["serial_log"]).read_text(errors="replace")
    assert log.count("is not booted") == 1
    assert "Switching root" not in log
