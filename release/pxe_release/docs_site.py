"""Hooks of mkdocs: the pages of the site that are generated, and those that lie outside docs/.

Source: mkdocs' user guide, "Plugins", "Events". Links of all pages are written as they work in the repository; here
they get to lead to the site's pages. A link to a file that is on no page becomes its text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pxe_release import command_reference

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(\[[^\]\n]*\])\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for name, text in {"commands.md": command_reference.page(), **_lists()}.items():
        files.append(File.generated(config, name, content=text))
    for site, repository in _outside().items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / repository)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have the links lead to pages of the site."""
    del config
    sources = {site: repository for repository, site in reversed([*_pages(files)])}
    here = PurePosixPath(page.file.src_uri)
    source = PurePosixPath(sources.get(str(here), f"docs/{here}"))
    sites = dict(_pages(files))

    def leading(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        path, hash_sign, anchor = target.partition("#")
        if not path or "://" in target or str(here) == "commands.md":
            return found[0]
        repository = os.path.normpath(source.parent / path)
        site = sites.get(repository) or sites.get(f"{repository}/README.md")
        if site is None and (ROOT / repository).exists():
            return text[1:-1]
        return f"{text}({os.path.relpath(site or repository, here.parent)}{hash_sign}{anchor})"

    return _LINK.sub(leading, markdown)


def _pages(files: Files) -> Iterator[tuple[str, str]]:
    """Each page's path in the repository and on the site."""
    yield from ((repository, site) for site, repository in _outside().items())
    yield from (
        (f"docs/{file.src_uri}", file.src_uri) for file in files.documentation_pages() if file.generated_by is None
    )
    yield from (("docs/decisions", "decisions.md"), ("examples", "examples.md"), ("README.md", "index.md"))


def _outside() -> dict[str, str]:
    """Page of the site -> file of the repository."""
    names = ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "RELEASE", "SECURITY")
    return {f"project/{name.lower()}.md": f"{name}.md" for name in names}


def _lists() -> dict[str, str]:
    """The pages that list others: decisions and examples, the latter as a whole."""
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    titles = [f"- [{_title(file)}](decisions/{file.name})" for file in decisions]
    examples = [_in_docs(file) for file in sorted((ROOT / "examples").glob("*/README.md"))]
    return {
        "decisions.md": "# Decisions\n\nEach with its reasons, by number.\n\n" + "\n".join(titles) + "\n",
        "examples.md": "# Examples\n\n" + "\n".join(re.sub(r"(?m)^#", "##", text) for text in examples),
    }


def _in_docs(file: Path) -> str:
    """The text of `file` with links as they would be in docs/."""

    def moved(found: re.Match[str]) -> str:
        path = "" if "://" in found[2] else os.path.relpath(file.parent / found[2].partition("#")[0], ROOT / "docs")
        return f"{found[1]}({path}{''.join(found[2].partition('#')[1:])})" if path else found[0]

    return _LINK.sub(moved, file.read_text())


def _title(file: Path) -> str:
    return file.read_text().splitlines()[0].removeprefix("# ")
