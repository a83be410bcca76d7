"""A real collector as a process of its own, and nodes that report to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from fakes.process import Process, running
from fakes.waiting import until
from pxe_pack import https

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105
_RUNS = itertools.count(1)

Document = dict[str, Any]


def run_id() -> str:
    """The id of another run."""
    return f"{next(_RUNS):032x}"


def mac_of(number: int) -> str:
    """The MAC address of that node."""
    return ":".join(f"{number:012x}"[at : at + 2] for at in range(0, 12, 2)).replace("00:00", "52:54", 1)


def report(number: int = 1, /, *, phase: str = "fetching", **others: object) -> Document:
    """A state document as the agent posts it, of a run with one artifact; `others` replace or add keys."""
    final = phase in ("done", "failed")
    ended = {"done": "placed", "failed": "failed"}.get(phase, "fetching")
    artifact = {
        "name": "model", "dest": "/srv/model", "phase": ended, "required": True, "bytes": 700, "total": 1000,
        "bytes_received": 700, "attempts": 2, "url": "http://10.0.0.1/model", "final_url": None, "remark": None,
        "sha256": "00" * 32, "error": "the server answered 503" if phase == "failed" else None,
        "cause": "network" if phase == "failed" else None, "seconds": 1.5,
    }  # fmt: skip
    return {
        "version": 1, "run": run_id(), "phase": phase, "exit_code": {"done": 0, "failed": 69}.get(phase),
        "cause": "network" if phase == "failed" else None, "started": "2026-11-30T08:00:00+00:00", "failures": 0,
        "message": "model: the server answered 503" if phase == "failed" else "", "final": final, "agent": "0.1.0",
        "config": {"source": "usr", "path_or_url": "/usr/lib/pxe-fetch/fetch.yaml", "sha256": "00" * 32},
        "node": {"hostname": f"node{number}", "arch": "x86_64", "mac": mac_of(number)}, "seconds": 2.0,
        "artifacts": [] if phase == "locating" else [artifact], "units": [],
    } | others  # fmt: skip


@dataclass(kw_only=True)
class Collector:
    """A running collector."""

    process: Process
    folder: Path
    session: requests.Session = field(default_factory=https.session)

    @property
    def url(self) -> str:
        """The URL that it says it listens at, without a slash at its end."""
        found: list[str] = re.findall(r"^collector: listening at (\S+)/$", self.process.printed(), re.MULTILINE)
        return found[-1]

    def post(
        self, document: object, *, token: str = TOKEN, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """What it answers to a report."""
        own = {"Authorization": f"Bearer {token}", **(headers or {})}
        return self.session.post(f"{self.url}/report", json=document, headers=own, timeout=20)

    def get(self, what: str, **parameters: str | int) -> Any:  # noqa: ANN401  any JSON
        """The JSON at `/api/…`."""
        answer = self.session.get(f"{self.url}/api/{what}", params=parameters, timeout=20)
        answer.raise_for_status()
        return answer.json()

    def nodes(self, **parameters: str | int) -> dict[str, Document]:
        """All nodes by their name, as the table has them."""
        return {one["name"]: one for one in self.get("nodes", size=1000, **parameters)["nodes"]}

    def node(self, name: str) -> Document:
        """All that it knows of one node."""
        found: Document = self.get(f"nodes/{self.nodes()[name]['id']}")
        return found

    def wait_for(self, name: str, **values: object) -> Document:
        """The node once it has these values."""
        # not so often that asking keeps it from its work
        until(lambda: name in (found := self.nodes()) and values.items() <= found[name].items(), every=0.05)
        return self.nodes()[name]

    def raw(self, data: bytes, *, timeout: float = 20) -> bytes:
        """All that it answers to `data` on a connection of its own."""
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=timeout) as connection:
            connection.sendall(data)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(65536):
                    received += piece
        return received

    def restart(self) -> None:
        """Start it again, with what it had on disk."""
        self.process.start()
        self.session = https.session()


@contextlib.contextmanager
def collector(
    folder: Path,
    *options: str,
    database: str = "",
    listen: str = "127.0.0.1:0",
    tokens: str = TOKEN,
    inside: Sequence[str | Path] = (),
) -> Iterator[Collector]:
    """A collector whose files are in `folder`. `inside` is a command that runs another."""
    folder.mkdir(parents=True, exist_ok=True)
    token_file, output = folder / "tokens", folder / "output"
    token_file.write_text(f"{tokens}\n")
    command = [
        *inside,
        *(sys.executable, "-m", "pxe_pack.collector", "--listen", listen, "--token-file", str(token_file)),
        *("--database", database or f"sqlite:///{folder}/nodes.db", "--rate", "10000", *options),
    ]
    seen = 0

    def is_ready() -> bool:
        nonlocal seen
        lines = output.read_text().count("collector: listening") if output.exists() else 0
        if lines == seen:
            return False
        with contextlib.suppress(requests.RequestException):
            url = made.url.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104
            https.session().get(f"{url}/healthz", timeout=5)
            seen = lines
            return True
        return False

    made = Collector(process=Process(command=command, is_ready=is_ready, output=output), folder=folder)
    with running(made.process):
        yield made


def has(program: str) -> bool:
    """Whether the program is on the PATH."""
    return any(Path(folder, program).exists() for folder in os.environ["PATH"].split(":"))
