"""The freezing itself: a clean environment, PyInstaller, and the tidying of what comes out.

The environment holds exactly what agent.lock and build.lock name, by their hashes. Both lists were made, and are
refreshed, with pip-tools from the .in files beside them:

    pip-compile --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links build.in
    pip-compile --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links agent.in

They name the hash of every file of a release, so that they hold for each Python from 3.11 on and each processor.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.freeze.agent import PROGRAM, write_manifest
from pxe_pack.freeze.portable import make_portable

HERE = Path(__file__).parent
AGENT_LOCK = HERE / "agent.lock"
BUILD_LOCK = HERE / "build.lock"
SPEC = HERE / "agent.spec"

_ENTRY = "from pxe_fetch.__main__ import main\nraise SystemExit(main())\n"

# 2001-09-09: any moment will do, as long as it is always the same.
_ENVIRONMENT: Mapping[str, str] = {
    "SOURCE_DATE_EPOCH": "1000000000",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": "",
    "PYTHONHOME": "",
    "PYTHONNOUSERSITE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    # Uncompressed bytecode is quicker to load, and smaller inside a compressed squashfs.
    "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0",
    # Paths of this machine stay out of systemd-python's extension and so out of its build id.
    "CFLAGS": "-g0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Frozen:
    """What freezing gave: the tree, and the libraries of this machine that were copied into it."""

    tree: Path
    libraries: tuple[Path, ...]


def freeze(sources: Path, *, version: str, work: Path) -> Frozen:
    """Freeze the package `pxe_fetch` at `sources`, of that `version`, inside `work`, a folder of its own.

    Raises WorkError.
    """
    python = _environment(work / "venv")
    _install(python)
    tree = _bundle(python, sources, work=work)
    make_portable(tree, work=work)
    write_manifest(tree, version=version)
    _normalise(tree)
    _check_start(tree)
    return Frozen(tree=tree, libraries=_libraries(work))


def _environment(folder: Path) -> Path:
    tools.run(sys.executable, "-m", "venv", folder, env=_ENVIRONMENT)
    return folder / "bin" / "python"


def _install(python: Path) -> None:
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes")
    try:
        tools.run(str(python), *pip, "--only-binary", ":all:", "--requirement", BUILD_LOCK, env=_ENVIRONMENT)
        # systemd-python comes as source alone. pip would keep the wheel it made of it, and take that one the next time,
        # whatever machine and flags it was made with: hence no cache.
        source = ("--no-cache-dir", "--no-build-isolation", "--no-binary", "systemd-python")
        tools.run(str(python), *pip, *source, "--requirement", AGENT_LOCK, env=_ENVIRONMENT)
    except tools.WorkError as error:
        said = error.problems[0].label
        raise tools.WorkError(
            Problem(
                reference="agent-environment-failed",
                message="the libraries that the agent is frozen from could not be installed",
                label=said,
                hint="pip needs a package index: see `pip config list`; or give a folder with a ready agent by --agent",
            )
        ) from error


def _bundle(python: Path, sources: Path, *, work: Path) -> Path:
    entry = work / "entry.py"
    entry.write_text(_ENTRY)
    tables = work / "tables" / "pxe_precompiled.py"
    tables.parent.mkdir()
    tools.run(str(python), "-OO", HERE / "precompile.py", sources.parent, tables, env=_ENVIRONMENT)
    out = work / "dist"
    folders = ("--distpath", out, "--workpath", work / "build")
    command = ("-m", "PyInstaller", "--noconfirm", "--log-level", "WARN", *folders)
    environment = {**_ENVIRONMENT, "PYINSTALLER_CONFIG_DIR": str(work / "configuration")}
    tools.run(str(python), *command, SPEC, "--", entry, sources.parent, tables, env=environment, cwd=work)
    _refuse_missing_modules(work / "build" / "agent" / "warn-agent.txt")
    return out / PROGRAM


def _refuse_missing_modules(warnings: Path) -> None:
    """Raise WorkError when a module of the agent imports one that was left out or isn't there."""
    # Lines read: `excluded module named pickle - imported by a.b (delayed, optional), c (top-level)`.
    problems = []
    for line in warnings.read_text(encoding="utf-8").splitlines():
        found = re.match(r"(?:missing|excluded) module named (\S+) - imported by (.*)", line)
        if not found:
            continue
        ours = [
            importer
            for importer, how in re.findall(r"([\w.]+) \(([^)]*)\)", found[2])
            if importer.partition(".")[0] == "pxe_fetch" and "optional" not in how
        ]
        if ours:
            name = found[1].strip("'")
            problems.append(
                Problem(
                    reference="agent-module-left-out",
                    message=f"{', '.join(ours)} imports {name}, which is not in the frozen agent",
                    hint=f"do without it, or take it off the list in {SPEC.name}",
                )
            )
    if problems:
        raise tools.WorkError(*problems)


def _libraries(work: Path) -> tuple[Path, ...]:
    """The shared libraries of this machine that PyInstaller copied, as its table of contents says it."""
    contents = (work / "build" / "agent" / "COLLECT-00.toc").read_text(encoding="utf-8")
    found = {Path(path) for path in re.findall(r"'(/[^'\n]+)',\s*'(?:BINARY|EXTENSION)'", contents)}
    return tuple(sorted(path for path in found if not path.is_relative_to(work)))


def _check_start(tree: Path) -> None:
    """Raise WorkError when the agent doesn't start, with nothing but the folder to start from."""
    with tools.start("env", "-i", tree / PROGRAM, "version", cwd=Path("/")) as process:
        _, errors = process.communicate()
    tools.check(f"the frozen agent's `{PROGRAM} version`", process.returncode, errors)


def _normalise(tree: Path) -> None:
    """Give every file and folder the same mode and time whatever the umask and the clock."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_symlink():
            continue
        executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (int(_ENVIRONMENT["SOURCE_DATE_EPOCH"]),) * 2)
