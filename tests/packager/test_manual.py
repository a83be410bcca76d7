"""The manual page and the shells' completions: complete, and taken without a word by those that read them."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxe_fetch.contract import commands, facts
from pxe_pack import cli, parser


def options(tree: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Command (empty: packing) and flag, of every flag there is."""
    for action in tree._actions:
        yield from ((tree.prog.removeprefix("pxe-pack").strip(), flag) for flag in action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for chosen in action.choices.values():
                yield from options(chosen)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(arguments) == 0
    return capsys.readouterr().out


def test_the_manual_page_has_every_command_and_flag(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "pxe-pack.1"
    page.write_text(printed(capsys, "man"))
    shown = subprocess.run(["mandoc", "-Tutf8", page], capture_output=True, text=True, check=True).stdout
    plain = re.sub(".\b", "", shown)
    for name, command in parser.COMMANDS.items():
        assert re.search(rf"^ +pxe-pack {name}\n", plain, re.MULTILINE), name
        assert command.summary.split()[0] in plain
    for command_name, flag in options(parser.build_parser()):
        part = plain.split(f"COMMAND 'pxe-pack {command_name}'")[1] if command_name else plain
        assert flag in part or flag in ("-h", "--help"), (command_name, flag)
    for code, meaning in parser.EXIT_CODES.items():
        assert re.search(rf"^ +{code} +{meaning}", plain, re.MULTILINE)


def test_the_manual_page_is_right(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "pxe-pack.1"
    page.write_text(printed(capsys, "man"))
    linted = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_agents_manual_page_has_every_command_and_flag(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "pxe-fetch.8"
    text = printed(capsys, "man", "pxe-fetch")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert printed(capsys, "man", "pxe-fetch") == text
    page.write_text(text)
    linted = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")
    shown = subprocess.run(["mandoc", "-Tutf8", page], capture_output=True, text=True, check=True).stdout
    plain = re.sub(".\b", "", shown)
    for name, command in commands.COMMANDS.items():
        assert f"       {command.usage(name)}\n" in plain
        part = plain.split(f"COMMAND 'pxe-fetch {name}'")[1]
        assert all(option.flag in part for option in command.options)
    for code in commands.Exit:
        assert re.search(rf"^ +{code} +{code.meaning}", plain, re.MULTILINE)
    arguments = re.findall(r"^ +pxe-fetch([.=][\w.]+)", plain.split("KERNEL ARGUMENTS")[1], re.MULTILINE)
    assert arguments == ["=off", *(f".{name}" for name in facts.NAMES)]


def test_commands_of_the_agent_are_completed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(printed(capsys, "completion", "bash", "pxe-fetch"))
    assert set(commands.COMMANDS) <= completed(tmp_path, "bash", "pxe-fetch ")
    for name, command in commands.COMMANDS.items():
        assert {option.flag for option in command.options} <= completed(tmp_path, "bash", f"pxe-fetch {name} --")
    (tmp_path / "fetch.yaml").touch()
    assert "fetch.yaml" in completed(tmp_path, "bash", "pxe-fetch check fe")
    assert "fetch.yaml" in completed(tmp_path, "bash", "pxe-fetch run --config fe")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_reads_its_completion(capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str) -> None:
    script = tmp_path / "completion"
    script.write_text(printed(capsys, "completion", shell))
    read = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize("command", ["", *parser.COMMANDS])
def test_every_command_and_flag_is_completed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str, command: str
) -> None:
    (tmp_path / "completion").write_text(printed(capsys, "completion", shell))
    expected = {flag for name, flag in options(parser.build_parser()) if name == command and flag.startswith("--")}
    assert expected <= completed(tmp_path, shell, f"pxe-pack {command} --".replace("  ", " "))
    if not command:
        assert set(parser.COMMANDS) <= completed(tmp_path, shell, "pxe-pack ")


def completed(folder: Path, shell: str, line: str) -> set[str]:
    """What the shell offers at the end of a command line."""
    if shell == "fish":
        run = ["fish", "--no-config", "-c", f"source completion; complete -C '{line}'"]
    else:
        words = line.split(" ")
        ask = f"COMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)}); COMP_CWORD={len(words) - 1}"
        call = f"$(complete -p {words[0]} | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        run = ["bash", "-c", f"source ./completion; {ask}; {call}; printf '%s\\n' \"${{COMPREPLY[@]}}\""]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=folder, env={"HOME": str(folder)})
    return {offered.partition("\t")[0].strip() for offered in done.stdout.splitlines()}


def test_files_are_completed_where_files_are_wanted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(printed(capsys, "completion", "bash"))
    (tmp_path / "liveos.iso").touch()
    assert "liveos.iso" in completed(tmp_path, "bash", "pxe-pack --image live")
