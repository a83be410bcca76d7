"""The TFTP server of a real dnsmasq, in a network of its own: it has port 69 and no other."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes.process import Process, program, running


@dataclass(frozen=True, kw_only=True)
class Dnsmasq:
    """A running one."""

    folder: Path
    process: Process

    @property
    def inside(self) -> Sequence[str]:
        """The words that run a command in its network, as fakes.node.FakeNode.start takes them."""
        return ["nsenter", f"--target={self.process.pid}", "--user", "--net", "--preserve-credentials"]

    def url(self, path: str) -> str:
        return f"tftp://127.0.0.1{path}"

    def log(self) -> str:
        """What it has told: files sent, and not found."""
        return self.process.printed()


@contextlib.contextmanager
def dnsmasq(folder: Path, *, root: Path, more: Sequence[str] = ()) -> Iterator[Dnsmasq]:
    """Serve `root`, with what `more` options of dnsmasq say."""
    folder.mkdir()
    server = [
        *(program("dnsmasq"), "--conf-file=/dev/null", "--no-daemon", "--port=0", "--listen-address=127.0.0.1"),
        *("--bind-interfaces", "--enable-tftp", f"--tftp-root={root}", f"--pid-file={folder}/pid", "--user=", *more),
    ]
    script = f"ip link set lo up && exec {shlex.join(server)}"
    output = folder / "log"
    process = Process(
        command=["unshare", "--map-root-user", "--net", "sh", "-c", script],
        is_ready=lambda: output.exists() and "TFTP root is" in output.read_text(),
        output=output,
    )
    with running(process):
        yield Dnsmasq(folder=folder, process=process)
