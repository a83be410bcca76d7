"""Layouts made by `pxe-pack` and booted by `pxe-pack boot`, as a user would; and what the node is like afterwards."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.server import Server

PXE_PACK = Path(sys.executable).with_name("pxe-pack")
TIMEOUT = 1200  # seconds for a node under emulation on a busy machine; one or two minutes are usual
HOST = "10.0.2.2"  # this machine, as the node sees it


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A file as it has to be on the node."""

    dest: str
    body: bytes
    mode: str = "644"
    uid: int = 0
    gid: int = 0

    @property
    def sha256(self) -> str:
        """The digest of its body."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Booted:
    """What came of a trial boot."""

    code: int  # of `pxe-pack boot`
    result: Mapping[str, Any]  # its result document
    inspected: Mapping[str, Any]  # what the image's own probe saw after the agent's run; empty if it never came to that
    shown: str  # all it printed, for a test that fails

    @property
    def node(self) -> Mapping[str, Any]:
        """The node's own account."""
        node = self.result["node"]
        assert isinstance(node, dict), self.shown
        return node

    @property
    def artifacts(self) -> dict[str, Mapping[str, Any]]:
        """The node's account of each artifact."""
        return {artifact["name"]: artifact for artifact in self.node["artifacts"]}

    @property
    def files(self) -> dict[str, Mapping[str, Any]]:
        """What lies in the inspected folders: path -> type, mode, uid, gid, size, sha256."""
        return {file["path"]: file for file in self.inspected["files"]}

    def has(self, expected: Expected) -> bool:
        """Whether the file is there, just as it has to be."""
        file = self.files[expected.dest]
        return (file["type"], file["mode"], file["uid"], file["gid"], file["sha256"]) == (
            *("f", expected.mode, expected.uid, expected.gid),
            expected.sha256,
        )

    @property
    def journal(self) -> list[Mapping[str, Any]]:
        """The agent's journal entries."""
        return [entry for entry in self.inspected["journal"] if entry.get("SYSLOG_IDENTIFIER") == "pxe-fetch"]

    def said(self, name: str, message_id: str) -> list[Mapping[str, Any]]:
        """The journal's entries of a kind, of one artifact."""
        kind = [entry for entry in self.journal if entry.get("MESSAGE_ID") == message_id]
        return [entry for entry in kind if entry.get("PXE_FETCH_ARTIFACT") == name]


@dataclass(frozen=True, kw_only=True)
class Site:
    """A production site: a layout, and a web server of its own, which runs on this machine."""

    server: Server
    folder: Path

    @property
    def layout(self) -> Path:
        """Where the layout is."""
        return self.folder / "pxe"

    def url(self, path: str) -> str:
        """The address of `path` on the site's web server, as a node sees it."""
        return f"http://{HOST}:{self.server.port}{path}"

    def pack(self, config: str, *, image: Path, inject: str) -> None:
        """Make the layout of `image` by the way in that `inject` names."""
        file = self.folder / "fetch.yaml"
        file.write_text(config, encoding="utf-8")
        command: list[str | Path] = [
            PXE_PACK,
            "--agent-config",
            file,
            "--image",
            image,
            "--output",
            self.layout,
            "--inject",
            inject,
        ]
        packed = subprocess.run(command, capture_output=True, text=True, check=False)
        assert packed.returncode == 0, packed.stdout + packed.stderr

    def boot(
        self,
        *,
        append: str = "",
        credentials: Mapping[str, bytes] | None = None,
        via: str = "tftp",
        memory: int | None = None,
        serve: Path | None = None,
    ) -> Booted:
        """Boot the layout, and let the image's probe look at the node when the agent is done.

        `credentials` (name -> content) are handed over by the firmware; `memory` is the node's in MiB; `serve` is the
        configuration that is pinned.
        """
        before = len(self.server.asked_for("/inspect"))
        probe = f"liveos.inspect={self.url('/inspect')} liveos.inspect.dirs=/srv,/opt"
        command: list[str | Path] = [PXE_PACK, "boot", self.layout, "--json", "--keep", "--timeout", str(TIMEOUT)]
        command += ["--via", via, "--append", f"{probe} {append}"]
        if serve:
            command += ["--serve", serve]
        if memory is not None:
            command += ["--memory", str(memory)]
        for name, content in (credentials or {}).items():
            (self.folder / name).write_bytes(content)
            command += ["--credential", f"{name}={self.folder / name}"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT + 300)
        shown = ran.stdout + ran.stderr
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        results = [event for event in events if event["event"] == "result"]
        assert len(results) == 1, shown
        posted = self.server.asked_for("/inspect")[before:]
        inspected = json.loads(posted[-1].body) if posted else {}
        return Booted(code=ran.returncode, result=results[0], inspected=inspected, shown=shown)
