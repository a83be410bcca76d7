"""What `pxe-pack check` says, from its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pxe_pack import cli


@dataclass
class Checked:
    """What a check said."""

    code: int
    found: dict[str, dict[str, str]]  # reference -> finding
    memory: dict[str, object] = field(default_factory=dict)  # the model of a node's memory
    messages: list[str] = field(default_factory=list)  # of all findings

    def severity(self, reference: str) -> str:
        return self.found[reference]["severity"] if reference in self.found else ""


def checker(capsys: pytest.CaptureFixture[str]) -> Callable[..., Checked]:
    """Check something; asks no server unless told to."""

    def run(image: Path, *arguments: str | Path, online: bool = False) -> Checked:
        offline = [] if online else ["--offline"]
        code = cli.main(["check", str(image), "--json", *offline, *map(str, arguments)])
        captured = capsys.readouterr()
        assert captured.err == ""
        result = json.loads(captured.out.splitlines()[-1])
        found = {finding["reference"]: finding for finding in result["findings"]}
        assert result["errors"] == sum(finding["severity"] == "error" for finding in result["findings"])
        assert code == (3 if result["errors"] else 0)
        assert all(finding["remedy"] for finding in result["findings"])
        return Checked(
            code=code,
            found=found,
            memory=result["memory"] or {},
            messages=[one["message"] for one in result["findings"]],
        )

    return run
