"""Follows the servers' logs: each new line's meaning goes to the writer, together with how far the log was read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Engine, select

from pxe_pack.collector import database, neighbours
from pxe_pack.collector.entries import Entry, Position, Sighting
from pxe_pack.collector.layouts import ServedLayouts
from pxe_pack.collector.logs import Dnsmasq, Nginx
from pxe_pack.collector.tail import Place, Tail
from pxe_pack.collector.writer import BusyError, Writer

INTERVAL = 0.25  # seconds between two looks at a log
AT_ONCE = 200  # lines that are written together

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Log:
    tail: Tail
    read: Callable[..., Sighting | None]


def opened(engine: Engine, *, nginx: Path | None, dnsmasq: Path | None, layouts: ServedLayouts) -> list[_Log]:
    """The logs to follow, each from where it was read to the last time. They are of servers of `layouts`.

    dnsmasq's is the first: it says whose the addresses in the other one are.
    """
    found = []
    if dnsmasq:
        found.append(_Log(_tail(engine, dnsmasq), Dnsmasq(layouts).read))
    if nginx:
        found.append(_Log(_tail(engine, nginx), Nginx(layouts).read))
    return found


async def follow(logs: Sequence[_Log], writer: Writer) -> None:
    """Read the logs until cancelled."""
    while True:
        for log in logs:
            await _write_new(log, writer)
        await asyncio.sleep(INTERVAL)


async def _write_new(log: _Log, writer: Writer) -> None:
    lines = log.tail.lines()
    if not lines or (place := log.tail.place) is None:
        return
    now = time.time()
    seen = _identified([*_read(log, lines, now=now)])
    for start in range(0, len(seen), AT_ONCE):
        await _write(writer, *seen[start : start + AT_ONCE])
    await _write(writer, Position(path=str(log.tail.path), inode=place.inode, offset=place.offset))


def _read(log: _Log, lines: Sequence[str], *, now: float) -> Iterator[Sighting]:
    """What `lines` say. One that cannot be read is passed over: anybody can have a line written, none may end this."""
    for line in lines:
        try:
            found = log.read(line, now=now)
        except Exception:
            _log.exception("a line of %s cannot be read: %r", log.tail.path, line)
            continue
        if found:
            yield found


def _identified(seen: Sequence[Sighting]) -> list[Sighting]:
    """`seen`, with the MAC address of each node that this machine has as a neighbour."""
    known = neighbours.mac_addresses() if any(not one.mac for one in seen) else {}
    return [replace(one, mac=one.mac or known.get(one.address, "")) for one in seen]


async def _write(writer: Writer, *entries: Entry) -> None:
    """Write `entries`, however long that takes."""
    while True:
        try:
            await writer.write(*entries)
        except BusyError:
            await asyncio.sleep(1)
        else:
            return


def _tail(engine: Engine, path: Path) -> Tail:
    path = path.absolute()
    logs = database.logs
    with engine.connect() as connection:
        row = connection.execute(select(logs.c.inode, logs.c.offset).where(logs.c.path == str(path))).first()
    return Tail(path, Place(*row) if row else None)
