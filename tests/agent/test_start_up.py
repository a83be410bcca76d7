"""What each command imports: every import is paid for at every boot."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.node import FakeNode
from pxe_fetch import idle
from pxe_fetch.contract import cmdline

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


def test_run_of_which_everything_is_kept_imports_nothing_to_fetch_with(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "m").write_bytes(b"here")
    config = tmp_path / "fetch.yaml"
    config.write_text(
        f"version: 1\nallowed_roots: [{tmp_path}]\nartifacts:\n  - {{name: m, url: 'http://127.0.0.1:1/m', "
        f"sha256: {hashlib.sha256(b'here').hexdigest()}, dest: {tmp_path}/m}}\n"
    )
    imported = imported_by("run", "--config", str(config), folder=tmp_path)
    assert not imported & {"http.client", "ssl", "urllib3", "tarfile", "subprocess", "argparse", "ctypes"}


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


def test_quick_look_for_nothing_to_do_agrees_with_the_run(node: FakeNode) -> None:
    root = str(node.root)
    assert idle.reason(root) == idle.NO_CONFIGURATION
    for arguments, expected in {
        "pxe-fetch=off": idle.SWITCHED_OFF,
        "pxe_fetch=OFF quiet": idle.SWITCHED_OFF,
        "pxe-fetch=on pxe-fetch=0 pxe-fetch.debug": idle.SWITCHED_OFF,
        "pxe-fetch=off pxe-fetch=on": None,
        'other="pxe-fetch=off"': None,
        "pxe-fetch.config=http://h/": None,
        "xpxe-fetch=off": None,
    }.items():
        node.boot_with(arguments)
        assert idle.reason(root) == expected, arguments
    node.boot_with("quiet")
    node.write("/etc/pxe-fetch/fetch.yaml", "version: 1\n")
    assert idle.reason(root) is None


PLAIN = ["pxe-fetch=off", "pxe_fetch=0", "pxe-fetch=on", "pxe-fetch=OFF", "pxe-fetch", "pxe-fetch.debug", "quiet", "="]
ODD = [
    "pxe-fetch.config=http://h/",
    'a="b',
    'pxe-fetch="off"',
    '"pxe-fetch=off"',
    "x=pxe-fetch=off",
    "pxe-fetchx=off",
    '"',
]
words = st.sampled_from([*PLAIN, *ODD])


@given(st.lists(words | st.text(max_size=8), max_size=6).map(" ".join))
def test_quick_look_never_decides_otherwise_than_the_kernel_command_line_says(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "proc").mkdir()
        (Path(folder) / "proc/cmdline").write_text(text, errors="replace")
        decided = idle.reason(folder)
    if decided is None:
        return
    arguments = cmdline.parse(text)  # what is wrong there is left to the run
    assert arguments.off == (decided == idle.SWITCHED_OFF)
    assert arguments.off or arguments.config is None
