"""ARCHITECTURE.md is true: what it names exists, it names each module of the agent, and in the order of the layers.

So are references to docs/decisions: their numbers have no gaps, and each file that refers to one names one that exists.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
AGENT, PACKAGER = ROOT / "agent/pxe_fetch", ROOT / "packager/pxe_pack"
RELEASE = ROOT / "release/pxe_release"
DECISIONS = sorted((ROOT / "docs/decisions").iterdir())


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def named(text: str) -> list[str]:
    """The files and folders that `text` names, in their order."""
    return re.findall(r"`((?:\w+/)*(?:\w+\.(?:py|spec|toml)|\w+/))`", text)


def layers() -> list[list[str]]:
    """The rows of the page's table of layers: the modules of each, without `.py` and `/`."""
    rows = [row for row in section("What may import what").splitlines() if row.startswith("| ")][1:]
    return [[name.removesuffix("/").removesuffix(".py") for name in named(row)] for row in rows]


def test_what_the_page_names_exists() -> None:
    for title, folder in {
        "One artifact's path through the agent": AGENT,
        "One ISO's path through the packager": PACKAGER,
    }.items():
        names = named(section(title))
        assert len(names) > 10
        assert not [name for name in names if not (folder / name).exists() and not (ROOT / name).exists()]
    steps = named(section("Releases and the site"))
    assert len(steps) > 5
    assert not [name for name in steps if not (RELEASE / name).exists() and not (ROOT / name).exists()]
    rest = PAGE.split("\n## One artifact")[0] + section("Tests")
    assert not [name for name in named(rest) if not (ROOT / name).exists() and not (AGENT / name).exists()]


def test_page_names_each_module_of_the_agent() -> None:
    modules = {path.stem for path in AGENT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for row in layers() for name in row} == modules - {"__init__"}


def test_page_has_the_layers_that_the_linter_enforces() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (enforced,) = [one["layers"] for one in contracts if one["type"] == "layers"]
    order = [set(re.split(r" [|:] ", layer)) for layer in enforced]
    shown = [set(row) for row in layers()]
    assert shown[0] == order[0] | order[1]  # the command line, in one row
    assert shown[1:] == order[2:]


def test_decisions_are_numbered_without_gaps_and_by_their_titles() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == [*range(1, len(numbers) + 1)]
    for number, path in zip(numbers, DECISIONS, strict=True):
        assert path.read_text().startswith(f"# {number}. "), path.name


def test_decisions_that_files_refer_to_exist() -> None:
    kinds = ("*.py", "*.md", "*.spec", "*.toml", "*.service", "*.yaml")
    folders = [AGENT, PACKAGER, ROOT / "docs", ROOT / "tests", ROOT / "units", ROOT / "examples"]
    files = [*ROOT.glob("*.*"), *(file for folder in folders for file in folder.rglob("*.*"))]
    numbers = {path.name[:4] for path in DECISIONS}
    found = 0
    for file in files:
        if file.is_file() and any(map(file.match, kinds)):
            named = re.findall(r"decisions/(\d{4})|\(decisions? (\d+)\)", file.read_text())
            found += len(named)
            assert {f"{int(path or number):04}" for path, number in named} <= numbers, file
    assert found > 10
