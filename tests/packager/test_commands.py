"""The commands that print or write a file: schema, init."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from pxe_fetch import cli as agent
from pxe_fetch.contract.keys import Group
from pxe_pack import cli, config
from pxe_pack.config import SECTIONS
from pxe_pack.example_config import example


def test_schema_prints_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    Draft7Validator.check_schema(json.loads(capsys.readouterr().out))


def test_init_writes_what_the_agent_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init"]) == 0
    assert agent.main(["check", "fetch.yaml"]) == 0


def test_init_writes_examples_that_the_agent_takes_too(tmp_path: Path) -> None:
    """Each commented line that is YAML, without its `#`."""
    file = tmp_path / "site.yaml"
    assert cli.main(["init", str(file)]) == 0
    lines = [uncommented(line) for line in file.read_text().splitlines()]
    document = config.read("\n".join(line for line in lines if line is not None), name="site.yaml")
    assert [artifact.name for artifact in document.fetch.artifacts] == ["greeting", "model", "packages"]
    assert document.fetch.on_failure == "continue"
    assert document.pack.inject == "auto"


def test_init_shows_every_key_that_has_a_default_or_an_example_in_lines_that_fit_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    assert cli.main(["init", str(file)]) == 0
    text = file.read_text()
    assert max(map(len, text.splitlines())) <= 120
    for section in SECTIONS.values():
        for key, declared in section.keys.items():
            if example(key, declared) and key != "version" and section is not SECTIONS["chunks"]:
                assert f"{key}: " in text, key
                assert f"# {declared.key.meaning}" in text, key


def test_every_key_has_an_example_or_a_default_but_those_shown_otherwise() -> None:
    shown = {"sha512", "extract", "artifact_url", *SECTIONS["chunks"].keys, *SECTIONS["when"].keys}
    keys = [(key, declared) for one in SECTIONS.values() for key, declared in one.keys.items()]
    without = {key for key, declared in keys if not example(key, declared)}
    groups = {key for key, declared in keys if isinstance(declared.key.kind, Group)}
    assert without <= shown | groups


def uncommented(line: str) -> str | None:
    """A line with its example in force; None for prose, and for what is given instead of something else."""
    if not line.lstrip().startswith("#"):
        return line
    indent, _, text = line.partition("# ")
    is_yaml = text.lstrip().startswith("- name:") or ":" in text.split("#")[0].split(" ")[0] or text.startswith("  ")
    return indent + text if is_yaml and not text.lstrip().startswith(("#", "pxe-")) else None


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fetch.yaml"
    file.write_text("mine")
    assert cli.main(["init", str(file)]) == 2
    assert "error[init-exists]" in capsys.readouterr().err
    assert cli.main(["init", str(tmp_path / "nowhere" / "fetch.yaml")]) == 2
    assert "error[init-no-folder]" in capsys.readouterr().err
    assert file.read_text() == "mine"
