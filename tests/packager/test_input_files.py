"""A named pipe, a socket, a folder or a device in the place of a file: a sentence at once, and no waiting."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.signing import authority
from packing.site import Site
from pxe_pack import cli

Packs = Callable[..., str]
SECONDS = 60  # that a command may take


def make(kind: str, path: Path) -> None:
    """Put something of this kind at `path`."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made, pytest.MonkeyPatch.context() as patch:
            patch.chdir(path.parent)  # a socket's path is short
            made.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")


def said_by(*command: str | Path, code: int = 2) -> str:
    """What stderr gets of a command that is refused."""
    words = [sys.executable, "-m", "pxe_pack", *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_a_configuration_that_is_no_file_is_named(site: Site, kind: str) -> None:
    make(kind, site.config)
    said = said_by("--agent-config", site.config, "--agent", site.agent)
    assert f"error[config-unreadable]: cannot read the configuration {site.config}: " in said


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_a_lock_file_that_is_no_file_is_named(site: Site, kind: str) -> None:
    command = site.command()
    make(kind, site.config.with_suffix(".lock"))
    assert f"error[lock-unreadable]: cannot read the lock file {site.folder}/fetch.lock: " in said_by(*command)


def test_other_files_that_are_no_files_are_named(site: Site, packs: Packs) -> None:
    packs()
    key = authority(site.folder, "site").key
    pipe = site.folder / "pipe"
    os.mkfifo(pipe)
    command = site.command()
    refused: dict[str, list[str | Path]] = {
        f"{pipe} cannot be read: it is not": [*command, "--trust", pipe],
        f"cannot read the certificate {pipe}: it is not": [
            *command, "--secure-boot-key", key, "--secure-boot-cert", pipe,
        ],
        f"{pipe} has no password: it cannot be read: it is not": ["nodes", "--password-file", pipe],
        f"cannot read the credential a from {pipe}: it is not": ["boot", site.output, "--credential", f"a={pipe}"],
        f"cannot write the serial log {pipe}: No such device": ["boot", site.output, "--serial-log", pipe],
        f"{pipe} cannot be used: it is not": ["push", site.output, "localhost:1/x:y", "--login", pipe],
    }  # fmt: skip
    for expected, words in refused.items():
        assert expected in said_by(*words)
    token = site.config.with_name("fetch.report-token")
    pipe.rename(token)
    assert f"cannot read {token}: it is not a regular file" in said_by(*command, "--report", "auto")


def test_a_pipe_in_an_output_is_nothing_that_pxe_pack_has_written(site: Site) -> None:
    output = site.folder / "made"
    output.mkdir()
    os.mkfifo(output / "image-customizer.yaml")
    os.mkfifo(output / "fetch.yaml")
    site.write_config()
    for command in ("payload", "mirror"):
        said = said_by(command, site.config, "-o", output)
        assert "error[output-foreign]" in said


def test_a_pipe_beside_the_image_is_no_digest_of_it(site: Site) -> None:
    site.image = Path(shutil.copy(site.image, site.folder / "own.iso"))
    os.mkfifo(site.folder / "own.iso.sha256")
    subprocess.run(
        [sys.executable, "-m", "pxe_pack", *site.command("--quiet")], check=True, capture_output=True, timeout=SECONDS
    )


def test_a_configuration_may_come_from_another_command(site: Site) -> None:
    site.write_config()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pxe_pack",
        "--agent-config",
        "/dev/stdin",
        "--agent",
        site.agent,
        "--dry-run",
    ]
    config = site.config.read_text()
    done = subprocess.run(command, input=config, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


LOOPS: tuple[tuple[str, ...], ...] = (
    ("--agent-config", "LOOP"),
    ("--agent-config", "fetch.yaml", "--agent", "agent", "--image", "LOOP"),
    ("--agent-config", "fetch.yaml", "--agent", "agent", "--output", "LOOP"),
    ("--agent-config", "fetch.yaml", "--agent", "agent", "--publish", "LOOP"),
    ("show", "LOOP"),
    ("check", "LOOP"),
    ("lock", "LOOP"),
    ("pin", "LOOP", "fetch.yaml", "--url", "http://10.0.0.1/f.yaml"),
    ("relocate", "LOOP", "--boot-url", "http://10.0.0.1/liveos.iso"),
    ("remove", "pxe", "--output", "LOOP"),
    ("publish", "LOOP", "pxe"),
    ("publish", "pxe", "LOOP"),
    ("versions", "LOOP"),
    ("rollback", "LOOP"),
    ("snippet", "nginx", "LOOP"),
    ("serve", "LOOP"),
    ("serve", "pxe", "--log-dir", "LOOP"),
    ("mirror", "fetch.yaml", "-o", "LOOP"),
    ("payload", "fetch.yaml", "-o", "LOOP"),
    ("boot", "LOOP"),
)


def test_a_link_that_leads_to_itself_is_told_by_every_command(
    site: Site, packs: Packs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python 3.13's pathlib has no error for it, the one before a RuntimeError."""
    packs()
    monkeypatch.chdir(site.folder)
    Path("agent").symlink_to(site.agent)
    Path("loop").symlink_to("loop")
    for words in LOOPS:
        assert cli.main([word.replace("LOOP", "loop") for word in words]) in (1, 2), words
        assert "loop" in capsys.readouterr().err, words
    assert Path("loop").is_symlink()
