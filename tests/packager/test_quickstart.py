"""The quickstart's configuration, as far as it goes without a boot."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from liveos import shapes

PXE_PACK = Path(sys.executable).with_name("pxe-pack")
QUICKSTART = Path(__file__).resolve().parents[2] / "examples/quickstart"


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """A copy of it, with what `run` makes up."""
    folder = tmp_path / "quickstart"
    made = shutil.ignore_patterns("pxe", "*.log", "weights.bin", "liveos.iso")
    shutil.copytree(QUICKSTART, folder, ignore=made)
    (folder / "files/weights.bin").write_bytes(b"weights" * 1000)
    shutil.copyfile(shapes.cached(shapes.SHAPES["tiny"]), folder / "liveos.iso")
    return folder


def test_quickstart_is_planned_from_its_configuration_alone(quickstart: Path) -> None:
    command: list[str | Path] = [PXE_PACK, "--agent-config", quickstart / "fetch.yaml", "--dry-run", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert not [event for event in events if event["event"] == "problem"]
    for name in ("greeting.txt", "weights.bin", "motd.txt"):
        assert f"http://10.0.0.1/other-user-artifacts/{name}" in ran.stdout
    assert not (quickstart / "pxe").exists()


def test_quickstart_shows_a_mistake_at_its_line(quickstart: Path) -> None:
    config = quickstart / "fetch.yaml"
    config.write_text(config.read_text().replace("required: false", "requierd: false"))
    command: list[str | Path] = [PXE_PACK, "--agent-config", config, "--dry-run"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    line = config.read_text().splitlines().index("    requierd: false") + 1
    assert ran.returncode == 2
    assert f"fetch.yaml:{line}:5" in ran.stderr
    assert "requierd" in ran.stderr
