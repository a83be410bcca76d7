"""What the project's own files say is true."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pxe_fetch

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == pxe_fetch.__version__


def test_figures_are_refreshed_where_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Figures\n\n<!-- figures of one.py -->\nold\n<!-- end of figures -->\n\nafter\n")
    (tmp_path / "one.py").write_text("import sys; print('figure', *sys.argv[1:])\n")
    (tmp_path / "two.py").write_text("print('second')\n")
    (tmp_path / "bad.py").write_text("print('half'); raise SystemExit(3)\n")

    def refresh(*words: str) -> int:
        command: list[str | Path] = [sys.executable, ROOT / "tests/bench/refresh.py", "--page", page, *words]
        return subprocess.run(command, check=False, capture_output=True).returncode

    assert refresh() == 0
    assert refresh("two.py") == 0
    text = page.read_text()
    assert "old" not in text
    assert text.index("```text\nfigure\n```") < text.index("\nafter\n") < text.index("```text\nsecond\n```")
    assert refresh("one.py", "--", "--rounds", "3") == 0
    text = page.read_text()
    assert "```text\nfigure\n```" in text
    assert "```text\nfigure --rounds 3\n```" in text
    page.write_text(text.replace("figure --rounds 3", "old"))
    assert refresh() == 0
    assert "```text\nfigure --rounds 3\n```" in page.read_text()
    assert refresh("--", "--rounds", "3") == 2
    before = page.read_text()
    assert refresh("bad.py") == 1
    assert page.read_text() == before
