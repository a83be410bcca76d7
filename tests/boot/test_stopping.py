"""Boots that get nowhere, or are broken off: short ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from boot.nodes import PXE_PACK

PATIENCE = 900  # seconds on a busy machine; the firmware takes five


def boot(layout: Path) -> tuple[int, Mapping[str, Any]]:
    """The exit code and the result of a boot that is expected to fail soon."""
    command: list[str | Path] = [PXE_PACK, "boot", layout, "--json", "--timeout", str(PATIENCE)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE + 300)
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    (result,) = [event for event in events if event["event"] == "result"]
    return ran.returncode, result


def test_missing_boot_loader_is_told_from_the_firmwares_own_words(bare_layout: Path) -> None:
    (bare_layout / "bootx64.efi").unlink()
    code, result = boot(bare_layout)
    assert code == 1
    assert result["stage"] == "TFTP"
    assert "PXE-E" in result["failure"]["message"]
    assert "bootx64.efi" in result["failure"]["hint"]
    assert "NBP filename is bootx64.efi" in Path(result["serial_log"]).read_text(errors="replace")


def test_missing_grub_cfg_is_told_from_grubs_prompt(bare_layout: Path) -> None:
    (bare_layout / "boot/grub2/grub.cfg").unlink()
    code, result = boot(bare_layout)
    assert code == 1
    assert result["stage"] == "GRUB"
    assert "prompt" in result["failure"]["message"]
    assert "grub.cfg" in result["failure"]["hint"]


@pytest.mark.parametrize(
    ("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_runs_on_when_it_is_broken_off(
    bare_layout: Path, tmp_path: Path, end: signal.Signals, code: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (bare_layout / "boot/grub2/grub.cfg").write_text("sleep 300\n")
    log = tmp_path / "serial.log"
    running = subprocess.Popen(
        [PXE_PACK, "boot", bare_layout, "--serial-log", log],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + PATIENCE
    while not (log.exists() and log.stat().st_size) and time.monotonic() < until:
        time.sleep(0.1)
    machines = children(running.pid)
    assert machines, "no machine was started"
    running.send_signal(end)
    assert running.wait(timeout=PATIENCE) == code
    while any(map(runs, machines)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in machines if runs(pid)]
    if end != signal.SIGKILL:  # nobody is left then to tidy up
        assert list(scratch.iterdir()) == []


def children(pid: int) -> list[int]:
    """The processes that `pid` started."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def runs(pid: int) -> bool:
    """Whether the process has not ended; in a container, nobody may wait for one whose parent was killed (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
