"""The documentation as a site: it builds without a warning, and each of its links leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pxe_pack import parser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command: list[str | Path] = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "release"), "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page


def test_every_command_and_flag_is_in_the_reference(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "commands.html").read_text())
    tree = parser.build_parser()
    commands = next(action.choices for action in parser.actions(tree) if isinstance(action.choices, dict))
    for name, command in commands.items():
        assert f"pxe-pack {name}" in text
        for action in parser.actions(command):
            assert all(flag in text for flag in action.option_strings), (name, action.option_strings)


def test_links_of_the_repository_lead_to_pages_or_are_text(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]  # whose links are absolute
    assert len(pages) > 60
    for page in pages:
        for target in re.findall(r'<a [^>]*href="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / target).exists(), (page.relative_to(site), target)


def test_pages_name_no_script_style_or_font_of_another_server(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(https?:[^"]+\.(?:js|css|woff2?))"', text) == []
