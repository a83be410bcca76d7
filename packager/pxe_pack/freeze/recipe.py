"""The freezing itself: PyInstaller in the environment made for it, and the tidying of what comes out."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.freeze.agent import PROGRAM, write_manifest
from pxe_pack.freeze.components import frozen_components
from pxe_pack.freeze.environment import HERE, SUITE, Environment, run_inside
from pxe_pack.freeze.machines import THIS_MACHINE

SPEC = HERE / "agent.spec"

_ENTRY = "from pxe_fetch.__main__ import main\nraise SystemExit(main())\n"
_PYTHON = "python3.11"
_WORK = "/work"  # in the environment

# 2001-09-09: any moment will do, as long as it is always the same.
_EPOCH = 1_000_000_000
_VARIABLES: Mapping[str, str] = {
    "HOME": _WORK,
    "SOURCE_DATE_EPOCH": str(_EPOCH),
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Uncompressed bytecode is quicker to load, and smaller inside a compressed squashfs.
    "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "0",
}


def freeze(sources: Path, *, version: str, work: Path, environment: Environment) -> Path:
    """Freeze the package `pxe_fetch` at `sources`, of that `version`, inside `work`; the folder that holds the agent.

    `work` is a folder of the caller's, on the environment's file system. Raises WorkError.
    """
    root = work / "root"
    environment.copy(root)
    inside = root / _WORK.lstrip("/")
    inside.mkdir()
    shutil.copytree(sources, inside / sources.name)
    shutil.copy(SPEC, inside)
    (inside / "entry.py").write_text(_ENTRY)
    folders = ("--distpath", f"{_WORK}/dist", "--workpath", f"{_WORK}/build")
    command = (_PYTHON, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN", *folders, f"{_WORK}/{SPEC.name}")
    run_inside(root, *command, "--", f"{_WORK}/entry.py", _WORK, variables=_VARIABLES)
    warnings = inside / "build" / "agent" / "warn-agent.txt"
    refuse_missing_modules(warnings.read_text(encoding="utf-8"), root=root)
    tree = inside / "dist" / PROGRAM
    collected = json.loads((inside / "collected.json").read_bytes())
    components = frozen_components(collected, owners=environment.owners, suite=SUITE)
    write_manifest(tree, version=version, components=components)
    _normalise(tree)
    _check_start(tree, inside=root if environment.machine != THIS_MACHINE else None)
    return tree


def refuse_missing_modules(warnings: str, *, root: Path) -> None:
    """Raise WorkError when a module of the agent imports one that was left out, or that the environment doesn't have.

    `warnings` is the text of PyInstaller's list of those. A module that it found no file for may be there all the same:
    one that is made while another is imported (collections.abc, os.path). Python in the environment at `root` is asked.
    """
    # Lines read: `excluded module named pickle - imported by a.b (delayed, optional), c (top-level)`.
    importers: dict[str, list[str]] = {}
    missing = []
    for line in warnings.splitlines():
        found = re.match(r"(missing|excluded) module named (\S+) - imported by (.*)", line)
        if not found:
            continue
        name = found[2].strip("'")
        for importer, how in re.findall(r"([\w.]+) \(([^)]*)\)", found[3]):
            if importer.partition(".")[0] == "pxe_fetch" and "optional" not in how:
                importers.setdefault(name, []).append(importer)
        if found[1] == "missing" and name in importers:
            missing.append(name)
    for name in _importable(missing, root=root):
        del importers[name]
    if importers:
        raise tools.WorkError(
            *(
                Problem(
                    reference="agent-module-left-out",
                    message=f"{', '.join(ours)} imports {name}, which is not in the frozen agent",
                    hint=f"do without it, add its library to agent.in, or take it off the list in {SPEC.name}",
                )
                for name, ours in importers.items()
            )
        )


def _importable(names: Sequence[str], *, root: Path) -> list[str]:
    """Those of `names` that can be imported in the environment."""
    if not names:
        return []
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError:\n"
        "        continue\n"
        "    print(name)\n"
    )
    return run_inside(root, _PYTHON, "-c", program, *names, variables=_VARIABLES).decode().split()


def _check_start(tree: Path, *, inside: Path | None) -> None:
    """Raise WorkError when the agent doesn't start, with nothing but the folder to start from.

    One for another processor starts in the root directory `inside`, which has a C library for it.
    """
    if inside:
        run_inside(inside, f"/{tree.relative_to(inside) / PROGRAM}", "version", variables={})
        return
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
        os.utime(path, (_EPOCH, _EPOCH))
