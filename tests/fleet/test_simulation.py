"""The figures of docs/fleet.md are those that the simulation prints; test_storm.py compares it with real nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = "python tests/fleet/simulate.py"


def test_the_page_has_the_table_that_the_command_prints() -> None:
    command = [sys.executable, *COMMAND.split()[1:]]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    page = (ROOT / "docs/fleet.md").read_text()
    assert COMMAND in page
    assert printed in page
    assert printed.count("\n") == 10
