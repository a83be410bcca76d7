"""What the command line understands, and how it says what it does not: suggestions, choices, colour, lines that fit."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest

from packing.site import ARTIFACT, Site
from packing.walk import walked
from pxe_fetch import cli as agent
from pxe_pack import cli, parser, tools

Packs = Callable[..., str]
Refused = Callable[..., str]
Shown = Callable[..., str]
ESCAPE = "\x1b["


@pytest.fixture
def usage_error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The last line that a command line gets which cannot be understood."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
        captured = capsys.readouterr()
        assert not captured.out
        return captured.err.splitlines()[-1]

    return run


def test_pack_is_a_command_that_does_what_agent_config_does(site: Site, packs: Packs) -> None:
    flag, path, *others = site.command("--quiet")
    assert flag == "--agent-config"
    packs()
    before = walked(site.output)
    digests = (site.output / "SHA256SUMS").read_text()
    assert cli.main(["pack", path, *others, "--output", str(site.folder / "by-command")]) == 0
    assert walked(site.folder / "by-command") == before
    assert (site.folder / "by-command" / "SHA256SUMS").read_text() == digests


def test_flags_of_packing_may_be_before_and_after_the_command(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    _, path, *others = site.command("--json", "--dry-run")
    output = str(site.folder / "elsewhere")
    for arguments in (["--output", output, "pack", path, *others], ["pack", "--agent-config", path, *others]):
        assert cli.main(arguments) == 0
        plan = json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]
        assert plan["output"] == (output if arguments[0] == "--output" else str(site.output))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--agent-confg", "fetch.yaml"], "unrecognized arguments: --agent-confg; did you mean `--agent-config`?"),
        (["--boot_url=http://h/l.iso"], "--boot_url=http://h/l.iso; did you mean `--boot-url`?"),
        (["pack", "fetch.yaml", "--dryrun"], "--dryrun; did you mean `--dry-run`?"),
        (["boot", "pxe", "--serial-logs", "x"], "--serial-logs; did you mean `--serial-log`?"),
        (["chekc", "liveos.iso"], "'chekc'; did you mean `check`?"),
        (["--image", "check", "shwo"], "'shwo'; did you mean `show`?"),
        (["site/fetch.yml", "--dry-run"], "'site/fetch.yml'; to pack it: pxe-pack pack site/fetch.yml"),
        (["--offline", "check", "liveos.iso"], "--offline; put it after check"),
        (["check", "liveos.iso", "--output", "pxe"], "--output; this is for packing only"),
        (["xyzzy"], "'xyzzy'; choose from boot, check,"),
        (["pack"], "give the configuration: pxe-pack pack FILE"),
        (
            ["pack", "a.yaml", "--agent-config", "b.yaml"],
            "two configurations are given: a.yaml, and --agent-config b.yaml",
        ),
        (["--agent-config", "a.yaml", "--inject", "squash"], "choose from"),
    ],
)
def test_what_is_misspelt_is_answered_with_what_was_meant(
    usage_error: Callable[..., str], arguments: list[str], said: str
) -> None:
    assert said in usage_error(*arguments)


def test_an_image_given_as_the_configuration_is_told_where_it_belongs(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "liveos.iso").write_bytes(b"\xff" * 4096)
    assert cli.main(["pack", str(site.folder / "liveos.iso")]) == 2
    assert "an image is given with --image" in capsys.readouterr().err


def test_the_value_of_a_flag_may_look_like_a_command(site: Site, packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.folder)
    packs("--output", "show")
    assert (site.folder / "show" / "manifest.json").is_file()


def test_check_takes_the_image_of_the_configuration(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.image = Path(os.path.relpath(site.image, site.folder))
    site.write_config()
    cli.main(["check", "--agent-config", str(site.config), "--offline", "--json"])
    (event,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert Path(event["image"]).samefile(site.folder / site.image)
    given = cli.main(["check", event["image"], "--agent-config", str(site.config), "--offline", "--json"])
    assert json.loads(capsys.readouterr().out) == event
    assert given in {0, 3}
    site.text = "version: 1\nartifacts: []\n"
    site.write_config()
    assert cli.main(["check", "--agent-config", str(site.config)]) == 2
    assert "error[image-missing]" in capsys.readouterr().err
    assert cli.main(["check"]) == 2
    assert "pxe-pack check IMAGE" in capsys.readouterr().err


def test_a_dry_run_lists_what_nodes_fetch_from_other_servers(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "note.txt").write_text("carried\n")
    mirrors = ["http://10.0.0.1/m.bin?sig=secret", "http://10.0.0.2/m.bin", "http://10.0.0.3/m.bin"]
    model = {"name": "big", "urls": mirrors, "sha256": "0" * 64, "dest": "/srv/big", "size": "1MiB"}
    site.rest = {"artifacts": [{"name": "note", "source": "note.txt", "dest": "/srv/note.txt"}, ARTIFACT, model]}
    assert cli.main(site.command("--dry-run", "--quiet")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("artifact")]
    assert lines[1:] == [
        "artifact  model (size unknown) from http://10.0.0.1/m.bin",
        "artifact  big (1,048,576 bytes) from http://10.0.0.1/m.bin and 2 mirrors",
    ]
    assert cli.main(site.command("--dry-run", "--json", "--quiet")) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]["artifacts"]
    assert [one["names"] for one in listed] == [["note"], ["model"], ["big"]]
    assert [one["source"] for one in listed] == [str(site.folder / "note.txt"), None, None]
    assert listed[2] == {
        "source": None,
        "names": ["big"],
        "size": 1 << 20,
        "url": "http://10.0.0.1/m.bin",
        "mirrors": ["http://10.0.0.2/m.bin", "http://10.0.0.3/m.bin"],
    }


ARTIFACT_LINE = "{name: m, url: 'http://10.0.0.1/m', sha256: '%s', dest: /srv/m, %s}"
UPPER = "0123456789ABCDEF" * 4


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("extract: true", ["extract must be none, tar or decompress", "did you mean `tar`?"]),
        ("extract: off", ["extract must be none, tar or decompress", "did you mean `none`?"]),
        ("extract: tra", ["expected none, tar or decompress", "did you mean `tar`?"]),
        ("mirror_order: Listed", ["expected spread or listed", "did you mean `listed`?"]),
        ("chunks: no", ["must be a mapping (`key: value` lines) or none", "did you mean `none`?"]),
        ("start: [app]", ["start[0] is not the name of a unit", "did you mean `app.service`?"]),
        ("header_credential: token", ["did you mean `pxe-fetch.token`?"]),
    ],
)
def test_a_value_that_cannot_be_is_answered_with_those_that_can(
    site: Site, refused: Refused, written: str, said: list[str]
) -> None:
    site.text = f"version: 1\nartifacts:\n  - {ARTIFACT_LINE % (UPPER, written)}\n"
    told = refused()
    assert all(part in told for part in said), told


def test_on_failure_has_no_likely_meaning_of_a_boolean(site: Site, refused: Refused) -> None:
    site.text = "version: 1\nartifacts: []\non_failure: true\n"
    told = refused()
    assert "on_failure must be continue, reboot, poweroff or emergency" in told
    assert "did you mean" not in told


def test_a_digest_may_have_its_algorithm_in_front(site: Site, packs: Packs) -> None:
    site.rest = {"artifacts": [{**ARTIFACT, "sha256": f"sha256:{UPPER}"}]}
    packs()
    assert agent.main(["check", str(site.config)]) == 0
    site.rest = {"artifacts": [{**ARTIFACT, "sha256": UPPER.lower()}]}
    first = site.iso.read_bytes()
    packs()
    assert site.iso.read_bytes() == first  # what nodes get is the same


def test_a_digest_of_another_algorithm_is_not_taken(site: Site, refused: Refused) -> None:
    site.rest = {"artifacts": [{**ARTIFACT, "sha256": f"sha512:{UPPER}"}]}
    assert "error[checksum-invalid]" in refused()


def test_a_newer_configuration_is_told_as_such_and_nothing_else(site: Site, refused: Refused) -> None:
    site.text = "version: 2\nartefacts: []\nparallel: many\n"
    told = refused()
    assert "this configuration is of version 2, which is newer than this program knows" in told
    assert told.count("error[") == 1
    site.text = "version: 0\nartifacts: []\n"
    assert "version must be 1" in refused()


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "debian"}, "apt-get install squashfs-tools-ng"),
        ({"ID": "fedora"}, "dnf install squashfs-tools-ng"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install squashfs-tools-ng"),
        ({"ID": "azurelinux"}, "tdnf install squashfs-tools-ng"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "zypper install squashfs-tools-ng"),
        ({"ID": "slackware"}, "apt-get install squashfs-tools-ng"),
    ],
)
def test_a_missing_tool_is_installed_as_the_distribution_does(
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    release: dict[str, str],
    command: str,
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    monkeypatch.setattr(tools, "SEARCH_PATH", str(tmp_path_factory.mktemp("bin")))
    assert f"hint: {command}\n" in refused("--inject", "rootfs", "--compressor", "zstd")


@pytest.fixture
def terminal(site: Site) -> Shown:
    """What a terminal of so many columns gets of pxe-pack; stdout too is the terminal, unless it is piped."""

    def run(*arguments: str, columns: int = 60, piped: bool = False, **environment: str) -> str:
        screen, end = pty.openpty()
        ioctl(end, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "TERM"}}
        done = subprocess.Popen(
            [sys.executable, "-m", "pxe_pack", *arguments],
            stdin=end,
            stdout=subprocess.PIPE if piped else end,
            stderr=subprocess.PIPE if piped else end,
            env={**kept, "TERM": "xterm", **environment},
            cwd=site.folder,
        )
        os.close(end)
        shown = b"".join(done.communicate()) if piped else b""
        while not piped:
            try:
                shown += os.read(screen, 1 << 16)
            except OSError:  # EIO: the other end is closed
                break
        done.wait()
        os.close(screen)
        return shown.decode().replace("\r\n", "\n")

    return run


def test_problems_have_colour_on_a_terminal_alone(site: Site, terminal: Shown) -> None:
    site.text = "version: 1\nartifacts: []\nextract: tar\n"
    command = site.command()
    coloured = terminal(*command)
    assert f"{ESCAPE}1;31merror[unknown-key]{ESCAPE}0m" in coloured
    plain = terminal(*command, piped=True)
    assert "error[unknown-key]: unknown key `extract`\n" in plain
    for shown in (plain, terminal(*command, NO_COLOR="1"), terminal(*command, TERM="dumb")):
        assert ESCAPE not in shown
    assert ESCAPE in terminal(*command, NO_COLOR="")  # no-color.org: if it is not empty


def test_findings_of_a_check_have_colour_too(site: Site, terminal: Shown) -> None:
    command = ["check", str(site.image), "--offline"]
    assert re.search(r"\x1b\[1;3[136]m(error|warning|note)\[", terminal(*command))
    assert ESCAPE not in terminal(*command, piped=True)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_lines_end_between_words_on_a_narrow_terminal(site: Site, terminal: Shown, columns: int) -> None:
    written = f"{ARTIFACT_LINE % (UPPER, 'header_credential: token, start: [app]')}"
    site.text = f"version: 1\nparallel: 100000\nartifacts:\n  - {written}\n"
    command = site.command()
    plain = terminal(*command, piped=True)
    shown = terminal(*command, columns=columns, NO_COLOR="1")
    too_long = [line for line in shown.splitlines() if len(line) > columns]
    assert all(line.startswith("  --> ") for line in too_long), shown  # a path is one word
    prose = [line for line in plain.splitlines() if line.startswith(("error[", "hint:"))]
    joined = re.sub(r"\n  (?=\S)", " ", shown)
    assert prose
    assert all(line in joined for line in prose)


def test_plan_and_progress_fit_a_narrow_terminal(site: Site, terminal: Shown) -> None:
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal(*site.command("--inject", "rootfs"), columns=60))
    lines = [line.rstrip() for line in re.split("[\r\n]", shown.rpartition(f"{site.output}/")[0])]
    assert "✓ Exporting the layout: " in shown
    assert not [line for line in lines if len(line) > 60 and " " in line[10:].strip()]
    assert not [line for line in lines if re.search(r"\S…", line.replace("[…", ""))]


@pytest.mark.parametrize("command", ["", *parser.COMMANDS])
def test_words_of_the_help_are_whole_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def shown(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit):
            cli.main([*filter(None, [command]), "--help"])
        return capsys.readouterr().out.split()

    assert shown(60) == shown(200)


def test_the_examples_of_the_manual_page_are_understood(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, usage_error: Callable[..., str]
) -> None:
    assert cli.main(["man"]) == 0
    (tmp_path / "page").write_text(capsys.readouterr().out)
    read = ["mandoc", "-Tutf8", str(tmp_path / "page")]
    page = re.sub(".\b", "", subprocess.run(read, capture_output=True, text=True, check=True).stdout)
    examples = page.split("\nEXAMPLES\n")[1].split("\nEXIT STATUS\n")[0].replace("\\\n", " ")
    commands = [shlex.split(line) for line in examples.splitlines() if line.strip().startswith("pxe-pack ")]
    assert {"pack", "check", "boot", "init", "--agent-config"} <= {words[1] for words in commands}
    for _, *words in commands:
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--help"])
        assert ended.value.code == 0, capsys.readouterr().err
        capsys.readouterr()
    assert "unrecognized" in usage_error(*commands[0][1:], "--no-such-flag")
