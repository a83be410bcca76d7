"""A network of this machine's own: hosts in network namespaces, each with a line of its own rate to one switch.

The kernel's token bucket (tc-tbf(8)) holds each line to its rate, both ways. All vanishes with the processes that hold
the namespaces. Needs root: the devices are made in one namespace and moved to another.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PREFIX = "198.18"  # RFC 2544's addresses for tests of networks
_BURST = 64 * 1024  # bytes that a token bucket lets through at once
_QUEUE = 1 << 20  # bytes that wait at most


@dataclass(frozen=True, kw_only=True)
class Host:
    """A namespace with one line."""

    name: str
    address: str
    pid: int  # of the process that holds it

    @property
    def inside(self) -> Sequence[str]:
        """The words that run a command on it."""
        return ["nsenter", f"--net={self.namespace}"]

    @property
    def namespace(self) -> str:
        """The file that stands for its namespace (network_namespaces(7))."""
        return f"/proc/{self.pid}/ns/net"


@dataclass(kw_only=True)
class Network:
    """A switch, and the hosts at it."""

    _stack: contextlib.ExitStack
    _switch: Host
    _count: int = field(default=0)

    def host(self, name: str, *, rate: int) -> Host:
        """A new host, whose line carries `rate` bits a second each way."""
        self._count += 1
        number = self._count
        host = _hold(self._stack, name=name, address=f"{PREFIX}.{number // 250}.{number % 250 + 1}")
        port = f"port{number}"
        limit = f"root tbf rate {rate}bit burst {_BURST} limit {_QUEUE}"
        _ip(
            self._switch,
            f"link add {port} type veth peer name line netns {host.pid}",
            f"link set {port} master switch up",
        )
        _run([*self._switch.inside, "tc", "qdisc", "add", "dev", port, *limit.split()])
        _ip(host, "link set lo up", f"address add {host.address}/16 dev line", "link set line up")
        _run([*host.inside, "tc", "qdisc", "add", "dev", "line", *limit.split()])
        return host


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network without hosts."""
    with contextlib.ExitStack() as stack:
        switch = _hold(stack, name="switch", address="")
        _ip(switch, "link add switch type bridge", "link set switch up")
        yield Network(_stack=stack, _switch=switch)


def _hold(stack: contextlib.ExitStack, *, name: str, address: str) -> Host:
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    stack.callback(holder.wait)
    stack.callback(holder.kill)
    assert holder.stdout
    assert holder.stdout.readline(), "no network namespace can be made"  # from now on it is in its own
    return Host(name=name, address=address, pid=holder.pid)


def _ip(host: Host, *commands: str) -> None:
    subprocess.run([*host.inside, "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)
