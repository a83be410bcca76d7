"""A node whose artifacts are larger than /run: `check` refuses them, and with `live_space` they are placed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from boot.nodes import PXE_PACK, Booted, Site
from fakes.server import Server
from liveos import shapes
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.paths import MessageId

MEMORY = 1024  # MiB: with more of it, there would be more to fetch and to hash under emulation
SIZE = 220 << 20  # bytes; /run of such a node has about 190 MiB
CONFIG = """\
version: 1
pack:
  boot_url: http://10.0.0.1/liveos.iso
  artifact_url: http://10.0.0.1/other-user-artifacts/
  {memory}
{live_space}
artifacts:
  - {{name: model, source: model.bin, dest: /srv/model.bin}}
"""


def found(site: Site, image: Path) -> dict[str, str]:
    """What `check` finds for nodes with that memory: the severity of each reference."""
    config = site.folder / "fetch.yaml"
    command: list[str | Path] = [
        PXE_PACK,
        "check",
        image,
        "--agent-config",
        config,
        "--node-memory",
        f"{MEMORY}MiB",
        "--offline",
        "--json",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = json.loads(ran.stdout.splitlines()[-1])["findings"]
    return {one["reference"]: one["severity"] for one in findings}


@pytest.fixture(scope="module")
def booted(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Booted:
    """The node that got the artifacts which `check` had refused."""
    site = Site(server=server, folder=tmp_path_factory.mktemp("live-space"))
    with (site.folder / "model.bin").open("wb") as model:
        model.truncate(SIZE)
    image = shapes.cached(shapes.SHAPES["ic16"])
    (site.folder / "fetch.yaml").write_text(CONFIG.format(memory="", live_space=""))
    assert found(site, image)["node-memory-half"] == "error"
    text = CONFIG.format(memory=f"node_memory: {MEMORY}MiB", live_space="live_space: 60%")
    site.pack(text, image=image, inject="updates")
    assert "node-memory-half" not in found(site, image)
    return site.boot(memory=MEMORY)


def test_artifacts_larger_than_run_are_placed_with_live_space(booted: Booted) -> None:
    assert booted.node["exit_code"] == Exit.DONE, booted.shown
    assert booted.files["/srv/model.bin"]["size"] == SIZE


def test_the_journal_says_what_live_space_did(booted: Booted) -> None:
    said = [entry["MESSAGE"] for entry in booted.journal if entry.get("MESSAGE_ID") == MessageId.STATUS]
    (sentence,) = [one for one in said if "live_space" in one]
    assert sentence.startswith("/run (tmpfs) has 5")
    assert sentence.endswith("as `live_space: 60%` asks for")
    assert booted.inspected["failed_units"] == []
