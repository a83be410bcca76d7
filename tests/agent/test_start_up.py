"""What each command imports: every import is paid for at every boot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"requests", "urllib3", "yaml", "tenacity", "argparse", "dataclasses", "typing", "re", "logging", "pathlib"}


def imported_by(*words: str, setup: str = "", folder: Path) -> set[str]:
    """The modules that `pxe-fetch WORDS` has imported when it is done."""
    program = (
        "import sys; before = set(sys.modules); from pxe_fetch import __main__, idle\n"
        f"{setup}\n"
        f"sys.argv = ['pxe-fetch', *{list(words)!r}]; code = __main__.main()\n"
        "sys.stderr.write('\\nimported ' + ' '.join(set(sys.modules) - before)); sys.exit(code)"
    )
    environment = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(folder)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"sys_path = {sys.path!r}\nimport sys\nsys.path[:] = sys_path\n{program}"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stderr.rpartition("imported ")[2].split())


def test_version_imports_next_to_nothing(tmp_path: Path) -> None:
    imported = imported_by("version", folder=tmp_path)
    assert not imported & HEAVY
    assert not any(name.startswith("pxe_fetch.contract.") and name != "pxe_fetch.contract.paths" for name in imported)


@pytest.mark.parametrize("reason", ["NO_CONFIGURATION", "SWITCHED_OFF"])
def test_run_with_nothing_to_do_imports_next_to_nothing(tmp_path: Path, reason: str) -> None:
    imported = imported_by("run", setup=f"idle.reason = lambda: idle.{reason}", folder=tmp_path)
    assert not imported & (HEAVY | {"json", "socket", "threading"})
    assert (tmp_path / "state.json").exists()


def test_status_needs_no_library_beyond_json(tmp_path: Path) -> None:
    imported = imported_by("run", setup="idle.reason = lambda: idle.SWITCHED_OFF", folder=tmp_path)
    imported = imported_by("status", folder=tmp_path)
    assert not imported & (HEAVY - {"re"})


def test_run_of_which_everything_is_kept_does_not_import_requests(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "m").write_bytes(b"here")
    config = tmp_path / "fetch.yaml"
    config.write_text(
        f"version: 1\nallowed_roots: [{tmp_path}]\nartifacts:\n  - {{name: m, url: 'http://127.0.0.1:1/m', "
        f"sha256: {hashlib.sha256(b'here').hexdigest()}, dest: {tmp_path}/m}}\n"
    )
    imported = imported_by("run", "--config", str(config), folder=tmp_path)
    assert not imported & {"requests", "urllib3", "tarfile", "subprocess", "argparse", "ctypes"}
