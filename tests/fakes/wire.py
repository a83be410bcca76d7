"""A server's network and a node's, joined by a wire: two network namespaces, which need no privileges."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes.waiting import PATIENCE

SERVER, NODE = "nodes", "node"  # the interfaces at the two ends

_TESTS = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Wire:
    """The two ends, each held by a process."""

    server_pid: int
    node_pid: int

    def at_server(self, *command: str | Path) -> list[str | Path]:
        """The words that run a command at the server's end."""
        return _within(self.server_pid, command)

    def at_node(self, *command: str | Path) -> list[str | Path]:
        """The words that run a command at the node's end."""
        return _within(self.node_pid, command)

    def run(self, words: Sequence[str | Path], *, check: bool = True) -> str:
        """Run such words; what they print."""
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), cwd=_TESTS)
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + ("" if done.returncode == 0 else done.stderr)

    def offers(self, architecture: int, user_class: str = "") -> list[str]:
        """What a node without an address is offered by DHCP (fakes.dhcpv4)."""
        asks = [sys.executable, "-m", "fakes.dhcpv4", NODE, str(architecture), *([user_class] if user_class else [])]
        return self.run(self.at_node(*asks)).splitlines()

    def fetch(self, url: str, *options: str) -> bytes:
        """What the node gets at `url` by curl(1)."""
        command = self.at_node("curl", "-sS", "--globoff", "--fail", "--max-time", "20", *options, url)
        return subprocess.run(command, capture_output=True, check=True, env=environment()).stdout


def environment() -> dict[str, str]:
    """The environment, with the programs of system administration."""
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def _within(pid: int, command: Sequence[str | Path]) -> list[str | Path]:
    return ["nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials", *command]


@contextlib.contextmanager
def wire(*addresses: str, node: str = "10.0.0.50/24") -> Iterator[Wire]:
    """The wire, for as long as the context lasts; the server's end has `addresses`, the node's end `node`."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_held("unshare", "-Urn"))
        beyond = stack.enter_context(_held(*map(str, _within(server, ["unshare", "-n"]))))
        made = Wire(server_pid=server, node_pid=beyond)
        script = [
            "ip link set lo up",
            f"ip link add {SERVER} type veth peer name {NODE}",
            f"ip link set {NODE} netns {beyond}",
            *(f"ip address add {address} dev {SERVER} {'nodad' if ':' in address else ''}" for address in addresses),
            f"ip link set {SERVER} up",
        ]
        made.run(made.at_server("sh", "-ec", "\n".join(script)))
        nodad = "nodad" if ":" in node else ""
        script = ["ip link set lo up", f"ip address add {node} dev {NODE} {nodad}", f"ip link set {NODE} up"]
        made.run(made.at_node("sh", "-ec", "\n".join(script)))
        yield made


@contextlib.contextmanager
def _held(*command: str) -> Iterator[int]:
    """The process of `command sleep`, once it is in namespaces of its own."""
    with subprocess.Popen([*command, "sleep", "3600"], env=environment()) as holder:
        try:
            own = Path(f"/proc/{os.getpid()}/ns/net").readlink()
            until = time.monotonic() + PATIENCE
            while Path(f"/proc/{holder.pid}/comm").read_text() != "sleep\n":
                assert time.monotonic() < until, shlex.join(command)
                time.sleep(0.01)
            assert Path(f"/proc/{holder.pid}/ns/net").readlink() != own
            yield holder.pid
        finally:
            holder.kill()
