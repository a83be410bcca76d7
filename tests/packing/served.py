"""A running `pxe-pack serve` in a network of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fakes.wire import Wire, environment
from packing.site import Site

EVENTS = 60.0  # seconds that anything may take on a busy machine


@dataclass(kw_only=True)
class Served:
    """A running `pxe-pack serve --json`: what it printed, and its end."""

    process: subprocess.Popen[str]
    output: Path
    temporary: Path
    result: dict[str, object] = field(default_factory=dict)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]

    def wait_for(self, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """The first event that is `wanted`."""
        until = time.monotonic() + EVENTS
        while time.monotonic() < until:
            if found := next((event for event in self.events() if wanted(event)), None):
                return found
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.05)
        raise AssertionError(self.output.read_text())

    def children(self) -> dict[str, int]:
        """The pids of the servers, by their programs' names."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in task}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        return self.process.wait(EVENTS)


@contextlib.contextmanager
def serving(net: Wire, site: Site, *arguments: str | Path, folder: Path | None = None) -> Iterator[Served]:
    """Serve the site's layout, or `folder`, until the context ends."""
    temporary, output = site.folder / "tmp", site.folder / "served.jsonl"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pxe_pack", "serve", folder or site.output, "--json", *arguments]
    with output.open("w") as out:
        process = subprocess.Popen(
            net.at_server(*command), stdout=out, stderr=out, text=True, env={**environment(), "TMPDIR": str(temporary)}
        )
    served = Served(process=process, output=output, temporary=temporary)
    try:
        served.result = served.wait_for(lambda event: event["event"] == "result")
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(EVENTS)


def refused(net: Wire, folder: Path, *arguments: str | Path) -> str:
    """What stderr gets of a `serve` that is refused."""
    command = net.at_server(sys.executable, "-m", "pxe_pack", "serve", folder, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def check_gone(net: Wire, served: Served, children: dict[str, int]) -> None:
    """No server, no port, no file is left."""
    assert not [name for name, pid in children.items() if Path(f"/proc/{pid}").exists()]
    assert net.run(net.at_server("ss", "-Hlnut")) == ""
    assert not [*served.temporary.iterdir()]


def posted(net: Wire, body: str, token: str = "") -> str:
    """The status of the answer to a report from the node."""
    ask = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-d", body, "http://10.0.0.1:8080/report"]
    return net.run(net.at_node(*ask, *(["-H", f"Authorization: Bearer {token}"] if token else [])))


def known(net: Wire, *options: str | Path) -> list[dict[str, object]]:
    """The nodes that the collector knows."""
    listing = net.at_server(sys.executable, "-m", "pxe_pack", "nodes", "--json", *options)
    (found,) = [json.loads(one) for one in net.run(listing, check=False).splitlines() if '"result"' in one]
    nodes: list[dict[str, object]] = found["nodes"]
    return nodes
