"""What the project's own files say is true."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pxe_fetch

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == pxe_fetch.__version__
