"""A frozen agent in a folder: written by `pxe-pack freeze`, given by `--agent`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pxe_pack import cli, freeze
from pxe_pack.freeze.agent import MANIFEST
from pxe_pack.tools import InputError


def test_is_written_to_a_folder_by_a_command(
    agent: freeze.FrozenAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "agent"
    assert cli.main(["freeze", "--json", "-o", str(folder)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["output"], result["agent"]["digest"]) == (str(folder), agent.digest)
    assert freeze.load_agent(folder).components == agent.components
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
    for taken, reference in ((folder, "freeze-exists"), (tmp_path / "none/agent", "output-no-parent")):
        assert cli.main(["freeze", "-o", str(taken)]) == 2
        assert f"error[{reference}]" in capsys.readouterr().err


def test_a_given_folder_is_taken_when_whole(agent: freeze.FrozenAgent, tmp_path: Path) -> None:
    copy = tmp_path / "agent"
    shutil.copytree(agent.path, copy, symlinks=True)
    given = freeze.load_agent(copy)
    assert (given.digest, given.version, given.glibc) == (agent.digest, agent.version, agent.glibc)
    (copy / "_internal" / "extra").write_text("")
    with pytest.raises(InputError, match="agent-damaged"):
        freeze.load_agent(copy)


def test_a_given_folder_that_is_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="agent-unknown"):
        freeze.load_agent(tmp_path)
    (tmp_path / "_internal").mkdir()
    for text in ("", "[]", '{"agent": "1"}', json.dumps({"agent": "1", "machine": "x", "glibc": "new", "files": {}})):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(InputError, match="agent-unknown"):
            freeze.load_agent(tmp_path)
