"""What each command imports: requests and PyYAML take 0.1 s to import, which only `run` and `check` need to spend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.node import FakeNode

HEAVY = {"requests", "urllib3", "yaml", "tenacity", "ssl", "http.client", "logging", "tarfile", "argparse"}


def imported_by(program: str, *words: str, folder: Path) -> set[str]:
    """The modules that the Python program `program` has imported when it is done, with `words` as its arguments."""
    setup = f"import sys; sys.path[:] = {sys.path!r}; sys.argv[1:] = {list(words)!r}; before = set(sys.modules)\n"
    end = "\nsys.stderr.write('\\nimported ' + ' '.join(set(sys.modules) - before))"
    environment = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(folder)}
    command = [sys.executable, "-S", "-c", setup + program + end]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("imported ")[2].split())


@pytest.mark.parametrize("command", ["version", "status"])
def test_commands_that_fetch_nothing_import_no_library(node: FakeNode, command: str) -> None:
    assert node.run("run").code == 0
    program = "from pxe_fetch import __main__; assert __main__.main() == 0"
    imported = imported_by(program, command, folder=node.state_file.parent)
    assert "pxe_fetch.cli" in imported
    assert not imported & HEAVY
    assert "pxe_fetch.run" not in imported


def test_run_imports_what_reports_before_it_begins(tmp_path: Path) -> None:
    """Imported at the end of a run, while a small node starts all its services, it took most of the report's time."""
    imported = imported_by("from pxe_fetch import run", folder=tmp_path)
    assert {"pxe_fetch.reporting.webhook_reporter", "pxe_fetch.systemctl"} <= imported


@pytest.mark.parametrize(
    ("scheme", "others"),
    [
        ("http", {"ftplib"}),
        ("ftp", {"requests", "urllib3"}),
        ("tftp", {"requests", "urllib3", "ftplib", "ssl"}),
    ],
)
def test_a_scheme_imports_its_own_library_alone(scheme: str, others: set[str]) -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom pxe_fetch.transport import Transports\n"
        f"Transports().of('{scheme}://h/m'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert f"pxe_fetch.transport.{scheme}" in imported
    assert not imported & others
