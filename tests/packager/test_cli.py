"""The command line: one tree of commands, what is told and how, exit codes, JSON lines as docs/json.md has them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site
from pxe_pack import cli, parser

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
DOCS = Path(__file__).parents[2] / "docs"
Packs = Callable[..., str]


def documented(first: str) -> dict[str, dict[str, tuple[type, ...]]]:
    """Event or command -> field -> types, of the table in docs/json.md whose first column is called so."""
    table = (DOCS / "json.md").read_text().split(f"| {first} | field |")[1].split("\n\n")[0]
    found: dict[str, dict[str, tuple[type, ...]]] = {}
    for row in table.splitlines()[2:]:
        name, field, types, _ = (cell.strip() for cell in row.strip("|").split("|"))
        known = tuple(kind for word in types.split(" or ") for kind in TYPES[word])
        found.setdefault(name.replace("`", ""), {})[field.strip("`")] = known
    return found


def events(capsys: pytest.CaptureFixture[str], arguments: list[str], *, code: int = 0) -> list[dict[str, object]]:
    """The events of a command, each found to be as it is documented."""
    assert cli.main([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    assert not captured.err
    told = [json.loads(line) for line in captured.out.splitlines()]
    known = documented("event")
    for event in told:
        fields = {**event}
        name = str(fields.pop("event"))
        if name != "result":
            assert not [key for key in fields if not isinstance(fields[key], known[name][key])], event
            required = known[name] if name != "step" else ("title", "state")
            assert set(required) <= set(fields), event
    return told


def test_every_command_is_in_the_help_and_has_one_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for name, command in parser.COMMANDS.items():
        assert re.search(rf"^    {name} +{re.escape(command.summary[:20])}", told, re.MULTILINE), told
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert f"usage: pxe-pack {name}" in capsys.readouterr().out


def test_commands_are_imported_when_they_are_used() -> None:
    modules = ", ".join(repr(command.module) for command in parser.COMMANDS.values())
    script = f"""
import sys
from pxe_pack import cli
cli.main(["--agent-config", "nothing.yaml", "--quiet"])
sys.exit(str(sorted({{{modules}}} & set(sys.modules))) if {{{modules}}} & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --agent-config FILE to pack"),
        (["--output", "pxe"], "give --agent-config FILE to pack"),
        (["fetch.yaml"], "invalid choice: 'fetch.yaml'"),
        (["--output", "pxe", "boot", "pxe"], "--output: this is for packing only, and cannot be given before boot"),
        (["--agent-conf=fetch.yaml"], "unrecognized arguments: --agent-conf"),
        (["schema", "-q", "-v"], "not allowed with argument"),
    ],
)
def test_a_command_line_that_makes_no_sense(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert not captured.out


@pytest.mark.parametrize("arguments", [["--json", "schema"], ["schema", "--json"]])
def test_how_it_is_told_may_be_said_before_the_command_too(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "result"


def test_pack_tells_its_steps_and_its_result_as_documented(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    known = documented("command")
    (plan,) = events(capsys, site.command("--dry-run", "--quiet"))
    assert set(plan) == {"event", *known["pack --dry-run"]}
    told = events(capsys, site.command())
    begun = [event["title"] for event in told if event.get("state") == "begun"]
    assert begun
    assert begun == [event["title"] for event in told if event.get("state") == "ended"]
    result = told[-1]
    assert result["event"] == "result"
    assert set(result) == {"event", *known["pack"]}
    assert not [key for key, types in known["pack"].items() if not isinstance(result[key], types)]
    site.text = "version: 1\nartifact: []\n"
    problems = events(capsys, site.command(), code=2)
    assert {event["event"] for event in problems} == {"problem"}


def test_other_commands_tell_their_results_as_documented(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    packs()
    known = documented("command")
    moved = ["relocate", str(site.output), "--boot-url", "http://10.0.0.2/other.iso"]
    for arguments in (
        moved,
        ["init", str(site.folder / "new.yaml")],
        ["remove", str(site.output), "--output", str(site.folder / "without"), "--quiet"],
        ["schema"],
        ["man"],
        ["completion", "bash"],
        ["snippet", "nginx", str(site.output)],
    ):
        (result,) = events(capsys, arguments)
        assert set(result) == {"event", *known[arguments[0]]}
        assert not [key for key, types in known[arguments[0]].items() if not isinstance(result[key], types)]


def test_a_step_that_fails_says_so(site: Site) -> None:
    site.write_config()
    command = [sys.executable, "-m", "pxe_pack", *site.command("--inject", "rootfs", "--json")]
    broken = site.folder / "bin"
    broken.mkdir()
    for program in ("sqfs2tar", "tar2sqfs", "xorriso", "mksquashfs", "sqfstar"):
        (broken / program).write_text("#!/bin/sh\nexit 9\n")
        (broken / program).chmod(0o755)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(broken)})
    assert done.returncode == 1, done.stdout
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["state"] for event in told if event["event"] == "step"][-1] == "failed"
    assert told[-1]["reference"] == "tool-failed"
    assert not site.leftovers()


def test_verbose_names_the_programs_that_are_run(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(site.command("--inject", "rootfs")) == 0
    assert "running " not in capsys.readouterr().err
    assert cli.main(site.command("--inject", "rootfs", "-v")) == 0
    assert re.search(r"^  running /\S*/xorriso ", capsys.readouterr().err, re.MULTILINE)
    assert cli.main(site.command("--inject", "rootfs", "--json", "-vv")) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event for event in told if event["event"] == "say" and "running " in event["text"]]


def test_quiet_says_nothing_but_the_result(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(site.command("--quiet")) == 0
    captured = capsys.readouterr()
    assert not captured.err
    assert "Serve by HTTP" in captured.out
    assert cli.main(site.command("--quiet", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "result"


def test_a_reader_that_goes_away_is_no_failure_to_be_told(tmp_path: Path) -> None:
    script = f"{sys.executable} -m pxe_pack schema 2>{tmp_path}/errors | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "141"
    assert (tmp_path / "errors").read_text() == ""


def test_exit_codes_are_documented() -> None:
    table = (DOCS / "json.md").read_text()
    assert all(f"\n| {code} | {meaning.split(':')[0]}" in table for code, meaning in parser.EXIT_CODES.items())


@pytest.mark.parametrize("form", [(), ("--json",), ("--dry-run",)])
def test_a_refused_configuration_is_shown_without_the_secrets_of_its_urls(
    site: Site, capsys: pytest.CaptureFixture[str], form: tuple[str, ...]
) -> None:
    login, signed = "http://user:hidden@h/a", "https://h/a?sv=1&sig=hidden"
    site.rest = {"artifacts": [{"url": login, "dest": "/srv/a"}, {"url": signed, "dest": "/srv/b", "size": -1}]}
    assert cli.main(site.command(*form)) == 2
    said = "".join(capsys.readouterr())
    assert "url-secret" in said
    assert "size-invalid" in said
    assert "hidden" not in said
    assert "://***********@h/a" in said
