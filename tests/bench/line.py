"""A line between two network namespaces: this process's own, where a server is, and another, where the clients run.

`rated` has the kernel's token bucket (tc-tbf(8)) hold a veth pair to a rate. `lossy` carries packets between two TUN
devices itself, because the kernels of test machines mostly lack tc-netem(8): what goes to the clients is delayed, and
some of it is lost. Both vanish with the processes that hold the namespaces. The addresses are RFC 2544's for tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event, Thread

SERVER, CLIENT = "198.18.0.1", "198.18.0.2"
MTU = 1500  # bytes of a packet
HEADERS = 20 + 32  # bytes of IPv4 and of TCP with time stamps in a packet
ETHERNET = 14  # bytes more that a veth device's queue counts
BURST = 64 * 1024  # bytes that the token bucket lets through at once
QUEUE = 1000  # packets that wait at most
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_MARK = "PXE_PACK_BENCH_NAMESPACE"


@dataclass(frozen=True, kw_only=True)
class Line:
    """How to run a command at the other end: `[*line.there, *command]`."""

    there: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What a line does to what it carries: bits a second, seconds of delay, the part of all packets that is lost."""

    rate: int
    delay: float
    loss: float


def enter_own_namespace() -> None:
    """Start this program anew in a network namespace of its own. Needs root, or user namespaces."""
    if os.environ.get(_MARK):
        return
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    environment = os.environ | {_MARK: "1"}
    os.execvpe("unshare", ["unshare", "--net", *as_root, sys.executable, *sys.argv], environment)  # noqa: S606


def seconds(amount: int, *, rate: int) -> float:
    """What `amount` bytes by TCP take on a line of `rate` bits a second, their headers included."""
    return amount * 8 / rate * (MTU + ETHERNET) / (MTU - HEADERS)


@contextlib.contextmanager
def rated(*, rate: int) -> Iterator[Line]:
    """A line of `rate` bits a second, both ways."""
    with _other_namespace() as (line, pid):
        _ip("link", "add", "server", "type", "veth", "peer", "name", "client", "netns", str(pid))
        _set_up(line)
        for where, device in (([], "server"), (line.there, "client")):
            limit = ["rate", f"{rate}bit", "burst", str(BURST), "limit", str(QUEUE * MTU)]
            _run([*where, "tc", "qdisc", "add", "dev", device, "root", "tbf", *limit])
        yield line


@contextlib.contextmanager
def lossy(weather: Weather) -> Iterator[Line]:
    """A line that delays what goes to the clients, and loses some of it."""
    with _other_namespace() as (line, pid), _tun("server") as server, _tun("client") as client:
        _ip("link", "set", "client", "netns", str(pid))
        _set_up(line)
        over = Event()
        carrier = Thread(target=_carry, args=(server, client, weather, over), daemon=True)
        carrier.start()
        try:
            yield line
        finally:
            over.set()
            carrier.join()


@contextlib.contextmanager
def _other_namespace() -> Iterator[tuple[Line, int]]:
    """Another network namespace, and the process that holds it."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        holder.stdout.readline()  # from now on it is in its namespace
        yield Line(there=["nsenter", f"--net=/proc/{holder.pid}/ns/net"]), holder.pid
    finally:
        holder.kill()
        holder.wait()


def _set_up(line: Line) -> None:
    _ip("link", "set", "lo", "up")
    for where, device, own, other in (([], "server", SERVER, CLIENT), (line.there, "client", CLIENT, SERVER)):
        _run([*where, "ip", "link", "set", device, "mtu", str(MTU), "up"])
        _run([*where, "ip", "address", "add", own, "peer", other, "dev", device])
        # What servers have unless somebody changed it; the kernel of a test machine may be of another mind.
        _run([*where, "ip", "route", "change", other, "dev", device, "src", own, "congctl", "cubic"])


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


@contextlib.contextmanager
def _tun(name: str) -> Iterator[int]:
    """A TUN device, as the descriptor that its packets are read from and written to."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        yield descriptor
    finally:
        os.close(descriptor)


def _carry(server: int, client: int, weather: Weather, over: Event) -> None:
    """Carry packets until it is `over`."""
    chance = random.Random()
    due: deque[tuple[float, bytes]] = deque()
    free = 0.0  # when the line has sent what it was given
    poll = select.poll()
    for descriptor in (server, client):
        poll.register(descriptor, select.POLLIN)
    while not over.is_set():
        wait = max(due[0][0] - time.monotonic(), 0) if due else 0.1
        poll.poll(wait * 1000)
        now = time.monotonic()
        for packet in _packets(server):
            waiting = (free - now) * weather.rate / 8 / MTU
            if chance.random() >= weather.loss and waiting < QUEUE:
                free = max(free, now) + len(packet) * 8 / weather.rate
                due.append((free + weather.delay, packet))
        for packet in _packets(client):
            _send(server, packet)
        while due and due[0][0] <= now:
            _send(client, due.popleft()[1])


def _packets(descriptor: int) -> Iterator[bytes]:
    """Those that are there, not too many."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(64):
            yield os.read(descriptor, 65536)


def _send(descriptor: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # the other side's queue is full, or its device is gone: a packet lost
        os.write(descriptor, packet)
