"""Every command in the documentation: run here as it stands, or listed with what runs it instead.

A block that begins with ```sh has commands, and in one that begins with ```console, lines after `$` are commands. Those
of a page are run one after the other, in a folder with what pages take for granted: liveos.iso, fetch.yaml, fleet.yaml,
and the layout pxe/.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.server import Script, Server
from packing.keys import key_pair
from pxe_pack import parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/howto").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
MODEL = b"weights" * 1000

# What is not run here: the beginning of a command, and why.
NOT_RUN = {
    "examples/quickstart/run": "takes minutes: CI has tests/boot do the same",
    "tests/run": "is what runs this test",
    "tests/prepare": "is run before the tests",
    "tests/coverage": "runs this test",
    "pytest": "is what runs this test",
    "export PATH=": "is for a shell that stays",
    "pxe-pack boot": "takes minutes: tests/boot runs it",
    'sudo "$(command -v pxe-pack)" serve': "needs a network of its own: tests/packager/serve runs it",
    "pxe-pack nodes": "needs a collector: tests/serve/test_nodes_command.py runs it",
    "pip install": "needs an index: tests/prepare does it",
    "pxe-pack-collector": "runs until Ctrl-C: tests/serve runs it",
    "pxe-pack push": "needs a registry: tests/packager/registry runs it",
    "pxe-pack pull": "needs a registry: tests/packager/registry runs it",
    "pxe-pack mirror fetch.yaml --registry": "needs a registry: tests/packager/registry runs it",
    "pxe-pack mirror mirror/fetch.yaml": "needs a registry: tests/packager/registry runs it",
    "pxe-pack pack site/fetch.yaml": "packs what that has made: tests/packager/registry runs it",
    "docker run": "needs Microsoft's image: test_image_customizer.py has Image Customizer's schema judge what it reads",
    "journalctl": "is for a node: tests/boot looks into its journal",
    "dracut": "is for a root filesystem: tests/liveos/build runs it",
    "aws": "needs an account",
    "az": "needs an account",
    "minisign -G": "asks for a password: the key is made before",
}
EXAMPLES = "is run by tests/packager/test_examples.py, with servers of the example"
_ELSEWHERE = re.compile(r"(?<![\w.:/])/(etc|srv|var)/")  # places of a server, here below the page's folder


def commands(page: Path) -> Iterator[str]:
    """The commands of a page, without comments; a line that ends with a backslash is continued."""
    for kind, block in re.findall(r"^ *```(sh|console)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "console" and not line.lstrip().startswith("$ "):
                continue  # what a command prints
            command = re.sub(r"\s\s+# .*$", "", line.lstrip(" $") if kind == "console" else line).strip()
            if command and not command.startswith("#"):
                yield command


def not_run(page: Path, command: str) -> str:
    """Why a command is not run here; empty if it is."""
    usual = EXAMPLES if page.is_relative_to(ROOT / "examples") else ""
    return next((why for begin, why in NOT_RUN.items() if command.startswith(begin)), usual)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_pages_have_commands() -> None:
    assert sum(len([*commands(page)]) for page in PAGES) > 60


def test_what_is_not_run_is_in_some_page() -> None:
    all_commands = [command for page in PAGES for command in commands(page)]
    unused = [begin for begin in NOT_RUN if not any(command.startswith(begin) for command in all_commands)]
    assert unused == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_pxe_pack_have_arguments_that_it_takes(page: Path) -> None:
    for command in commands(page):
        of_ours = command.removeprefix("sudo ").replace('"$(command -v pxe-pack)"', "pxe-pack")
        if of_ours.startswith("pxe-pack "):
            parser.build_parser().parse_args(shlex.split(of_ours.partition(" >")[0])[1:])


@pytest.fixture
def folder(tmp_path: Path, tiny: Path, agent: Path) -> Iterator[Path]:
    """What pages take for granted."""
    shutil.copyfile(tiny, tmp_path / "liveos.iso")
    (tmp_path / "files/app").mkdir(parents=True)
    (tmp_path / "files/app/one.txt").write_text("one\n")
    for place in ("etc/dnsmasq.d", "etc/nginx/conf.d", "etc/varnish", "etc/squid", "srv/www", "srv/pxe"):
        (tmp_path / place).mkdir(parents=True)
    key_pair(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pxe-pack").write_text(WRAPPER.format(python=sys.executable, agent=agent))
    (programs / "pxe-pack").chmod(0o755)
    with Server({"/m.bin": Script(body=MODEL)}) as server:
        config = {
            "version": 1,
            "pack": {
                "image": "liveos.iso",
                "boot_url": "http://10.0.0.1/liveos.iso",
                "output": "pxe/",
                "trust": ["site.pub"],
            },
            "serial": 1,
            "artifacts": [
                {"name": "model", "url": server.url("/m.bin"), "dest": "/srv/m.bin"},
                {"name": "app", "source": "files/app", "dest": "/srv/app"},
            ],
        }
        (tmp_path / "unlocked.yaml").write_text(json.dumps(config))
        config["artifacts"][0]["sha256"] = hashlib.sha256(MODEL).hexdigest()  # type: ignore[index]  # a list
        (tmp_path / "fetch.yaml").write_text(json.dumps(config))
        yield tmp_path


# Packing takes a small agent: none has to be frozen. Checks ask no servers: those of the pages are a site's.
WRAPPER = """\
#!/bin/sh
case " $* " in
*' check '*) set -- "$@" --offline ;;
*' --agent-config '*|*' pack '*) set -- "$@" --agent '{agent}' ;;
esac
exec '{python}' -m pxe_pack "$@"
"""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(not not_run(page, one) for one in commands(page))], ids=name_of
)
def test_commands_of_a_page_do_what_they_say(page: Path, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{folder / 'programs'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TOKEN": "0123",
        "ARTIFACTORY_TOKEN": "0123",
        "NEXUS_USER": "someone",
        "NEXUS_PASS": "0123",
    }
    wanted = [command for command in commands(page) if not not_run(page, command)]

    def run(command: str) -> None:
        here = _ELSEWHERE.sub(rf"{folder}/\1/", command)
        done = subprocess.run(
            ["bash", "-euc", here], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    if any("pxe/" in command for command in wanted):
        run("pxe-pack --quiet pack fetch.yaml")
    if any("fleet.yaml" in command for command in wanted):
        run("pxe-pack show pxe --config > fleet.yaml" if (folder / "pxe").exists() else "cp fetch.yaml fleet.yaml")
    if any("--publish /srv/pxe" in command for command in wanted):  # an earlier version
        run("pxe-pack --quiet pack fetch.yaml --leave-out '*' --publish /srv/pxe")
    for command in wanted:
        if command.startswith("pxe-pack lock"):  # what has no digest
            shutil.copyfile(folder / "unlocked.yaml", folder / "fetch.yaml")
        run(command)
