"""The worked examples in CONTRIBUTING.md: each is applied to a copy of the sources, and then used."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from liveos import tiny
from liveos.specials import Inode
from packing.site import Site, image_with_root

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def applied(name: str, folder: Path) -> Path:
    """A copy of the sources with an example of the page."""
    for part in ("agent", "packager", "units"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (text,) = re.findall(rf"<!-- example: {name} -->\n(.*?)<!-- end of example -->", PAGE, re.DOTALL)
    for path, content in re.findall(r'```python title="(.*?)"\n(.*?)```', text, re.DOTALL):
        assert not (folder / path).exists()
        (folder / path).write_text(content)
    for diff in re.findall(r"```diff\n(.*?)```", text, re.DOTALL):
        for path, hunks in re.findall(r"--- a/.*\n\+\+\+ b/(.*)\n((?:[@ +-](?!-- a/).*\n)+)", diff):
            for hunk in hunks.split("@@\n")[1:]:
                edit(folder / path, hunk)
    return folder


def edit(file: Path, hunk: str) -> None:
    """Change one place of a file: a hunk has no line numbers, but its text is there just once."""
    lines = hunk.splitlines()
    before = "\n".join(line[1:] for line in lines if line[0] != "+")
    after = "\n".join(line[1:] for line in lines if line[0] != "-")
    text = file.read_text()
    assert text.count(before) == 1, (file, before)
    file.write_text(text.replace(before, after))


def run(sources: Path, program: str, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(sources / part) for part in ("agent", "packager")),
        "XDG_RUNTIME_DIR": str(cwd),
    }
    command = [sys.executable, "-m", program, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def linted(sources: Path) -> None:
    """The example is as all other code is."""
    for command in (("ruff", "check"), ("ruff", "format", "--check")):
        config = ("--config", ROOT / "pyproject.toml", "--no-cache")
        program = Path(sys.executable).with_name(command[0])
        done = subprocess.run(
            [program, *command[1:], *config, sources], capture_output=True, text=True, check=False, cwd=sources
        )
        assert done.returncode == 0, done.stdout


def test_the_new_transport_fetches(tmp_path: Path) -> None:
    sources = applied("transport", tmp_path / "sources")
    digest = hashlib.sha256(bytes(3_000_000)).hexdigest()
    (tmp_path / "fetch.yaml").write_text(
        f"version: 1\nallowed_roots: [{tmp_path}]\nartifacts:\n"
        f"  - {{name: zeros, url: 'zero:///3000000', sha256: {digest}, dest: {tmp_path}/zeros}}\n"
    )
    done = run(sources, "pxe_fetch", "run", "--config", "fetch.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "zeros").read_bytes() == bytes(3_000_000)
    linted(sources)


def test_the_new_injector_packs(site: Site) -> None:
    sources = applied("injector", site.folder / "sources")
    done = run(sources, "pxe_pack", *site.command("--inject", "beside"), cwd=site.folder)
    assert done.returncode == 0, done.stderr
    assert "with `beside`" in done.stdout
    assert site.iso.is_file()
    linted(sources)


@pytest.mark.parametrize("banner", ["", "Welcome\n"])
def test_the_new_check_finds(site: Site, banner: str) -> None:
    sources = applied("check", site.folder / "sources")
    files = [*tiny.tree(), Inode("etc/issue.net", data=banner.encode())]
    image = image_with_root(site.image, files, site.folder)
    done = run(sources, "pxe_pack", "check", "--offline", image, cwd=site.folder)
    assert ("root-no-banner" in done.stdout) == (banner == ""), done.stdout + done.stderr
    linted(sources)
