"""The frozen agent as a program that a test runs."""

from __future__ import annotations

import hashlib
import subprocess
import textwrap
from pathlib import Path

from fakes.server import Server
from pxe_pack import freeze
from pxe_pack.freeze.agent import PROGRAM

SMALL = b"small\n"


def run(
    agent: freeze.FrozenAgent, *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [agent.path / PROGRAM, *arguments]
    return subprocess.run(command, env=env or {}, cwd="/", capture_output=True, text=True, check=False, timeout=60)


def config(tmp_path: Path, server: Server, *, more: str = "") -> Path:
    file = tmp_path / "fetch.yaml"
    file.write_text(
        textwrap.dedent(f"""\
            version: 1
            defaults: {{retry: {{base: 10ms}}}}
            allowed_roots: [{tmp_path}]
            artifacts:
              - name: small
                url: {server.url("/small.bin")}
                sha256: {hashlib.sha256(SMALL).hexdigest()}
                dest: {tmp_path}/placed/small.bin
            """)
        + more
    )
    (tmp_path / "placed").mkdir()
    return file
