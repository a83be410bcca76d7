"""One transaction that writes a batch: what nodes have reported, and what the servers' logs say of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pxe_pack.collector import stages
from pxe_pack.collector.database import events, logs, nodes, revision, runs, throughput
from pxe_pack.collector.entries import Entry, Failure, Outcome, Position, Received, Sighting

INTERVAL = 10  # seconds of one point of the throughput
# Bytes that one batch adds to it, more than any network brings in that time: the sum of many batches has to stay below
# 2**63 whatever nodes report, or PostgreSQL refuses the batch with the reports of all.
_MOST_RECEIVED = 1 << 46


def record(engine: Engine, batch: Sequence[Entry]) -> Outcome:
    """Write `batch` in its order, all or nothing; it is committed when this returns. Raises SQLAlchemyError."""
    with engine.begin() as connection:
        connection.execute(update(revision).values(number=revision.c.number + 1))  # see database.revision
        writing = _Batch(connection, batch)
        for index, entry in enumerate(batch):
            writing.add(index, entry)
        writing.flush()
    return writing.outcome


Row = dict[str, Any]


class _Batch:
    """The rows that a batch changes: read at its start, changed here, written at its end."""

    def __init__(self, connection: Connection, batch: Sequence[Entry]) -> None:
        self.outcome = Outcome()
        self._connection = connection
        reports = [one for one in batch if isinstance(one, Received)]
        sightings = [one for one in batch if isinstance(one, Sighting)]
        self._runs = self._by(runs, "run", {one.report.document["run"] for one in reports})
        known_by = {key for one in reports for key in one.report.keys}
        known_by |= {f"mac:{one.mac}" for one in sightings if one.mac}
        addresses = {one.address for one in reports} | {one.address for one in sightings if one.address}
        keys = sorted(known_by | {f"address:{one}" for one in addresses})
        wanted = select(nodes).where(nodes.c.key.in_(keys) | nodes.c.address.in_(sorted(addresses)))
        found = [dict(row) for row in connection.execute(wanted.order_by(nodes.c.seen)).mappings()] if keys else []
        self._nodes = {row["key"]: row for row in found}
        self._by_address = {row["address"]: row for row in found if row["address"] in addresses}
        self._last_node: int | None = None  # the largest id; nobody else writes meanwhile, see `record`
        self._changed_nodes: dict[int, Row] = {}  # and new ones
        self._changed_runs: dict[str, Row] = {}
        self._events: list[Row] = []
        self._received: dict[int, int] = {}  # start of an interval -> bytes
        self._positions: dict[str, Position] = {}

    def _by(self, table: Table, column: str, values: set[str], *, key: str = "") -> dict[str, Row]:
        """The rows whose `column` is one of `values`, by their `key`; by default that is the column itself."""
        if not values:
            return {}
        found = self._connection.execute(select(table).where(table.c[column].in_(sorted(values)))).mappings()
        return {row[key or column]: dict(row) for row in found}

    def add(self, index: int, entry: Entry) -> None:
        """Change the rows as `entry` says."""
        if isinstance(entry, Position):
            self._positions[entry.path] = entry
        elif isinstance(entry, Sighting):
            self._seen(entry)
        elif refusal := self._reported(entry):
            self.outcome.refused[index] = refusal

    def flush(self) -> None:
        """Write all that has changed."""
        self.outcome.size = sum(row["size"] for row in self._changed_runs.values())
        self.outcome.size += sum(len(row["text"]) for row in self._events)
        self._put(nodes, [*self._changed_nodes.values()])
        self._put(runs, [*self._changed_runs.values()])
        if self._events:
            self._connection.execute(insert(events), self._events)
        received = [{"time": start, "bytes": min(size, _MOST_RECEIVED)} for start, size in self._received.items()]
        self._put(throughput, received, add="bytes")
        self._put(logs, [asdict(one) for one in self._positions.values()])

    def _put(self, table: Table, rows: Sequence[Row], *, add: str = "") -> None:
        """Insert `rows`, or update those that exist; the number in the column `add` is added to what is there.

        All in one statement, which SQLAlchemy makes for RETURNING alone: a statement for each row is slow to a server.
        """
        if not rows:
            return
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        new = dialect.insert(table)
        values = {one.name: new.excluded[one.name] for one in table.c if not one.primary_key}
        if add:
            values[add] += table.c[add]
        key = [*table.primary_key.columns]
        self._connection.execute(new.on_conflict_do_update(index_elements=key, set_=values).returning(*key), rows)

    # What a log says

    def _seen(self, seen: Sighting) -> None:
        row = self._node_of(seen)
        row["seen"] = seen.time
        if seen.mac and seen.address:
            self._absorb(f"address:{seen.address}", row)
        if seen.address and row["address"] != seen.address:
            if other := self._by_address.get(seen.address):  # the address has been given to another node
                other["address"] = ""
                self._change(other)
            self._move(row, seen.address)
        order, at = stages.ORDER[seen.stage], stages.ORDER[row["stage"]]
        is_booting = row["state"] == "booting"
        if seen.starts_boot and (at >= stages.BOOTED or not is_booting):
            row.update(run=None, exit_code=None, cause="", message="", bytes=0, version="")
            self._advance(row, seen.stage, "booting", time=seen.time, percent=seen.percent, text=seen.text)
        elif is_booting and seen.is_trouble:
            if row["message"] != seen.text:
                row["message"] = seen.text
                self._log(row, time=seen.time, text=seen.text)
        elif is_booting and order > at:
            row["message"] = ""
            percent = _progress(None, seen)
            self._advance(row, seen.stage, "booting", time=seen.time, percent=percent, text=seen.text)
        elif is_booting and order == at:
            row["percent"] = _progress(row["percent"], seen)
        if seen.version and row["state"] == "booting":
            row["version"] = seen.version
        self._change(row)

    def _node_of(self, seen: Sighting) -> Row:
        if seen.mac:
            row = self._nodes.get(f"mac:{seen.mac}") or self._same_node(f"address:{seen.address}", f"mac:{seen.mac}")
            return row or self._create(f"mac:{seen.mac}", seen.time, mac=seen.mac, stage=seen.stage, text=seen.text)
        row = self._by_address.get(seen.address)
        key = f"address:{seen.address}"
        return row or self._create(key, seen.time, address=seen.address, stage=seen.stage, text=seen.text)

    # What a node says

    def _reported(self, received: Received) -> str:
        """Take a report; why it is refused, or "" if it is not."""
        report, document, now = received.report, received.report.document, received.time
        row = self._node_that_reports(received)
        if row is not None:
            self._absorb(f"address:{received.address}", row)
        run = self._runs.get(document["run"])
        if run and (row is None or run["node"] != row["id"]):
            return "this run is another node's"
        stage, state = stages.of_report(document)
        is_new = row is None
        if row is None:
            row = self._create(report.key, now, stage=stage, text="")
        is_newest = run is None or row["run"] == document["run"]
        if run and (document["seconds"] < run["seconds"] or (run["final"] and not document["final"])):
            row["seen"] = now
            self._change(row)
            return ""  # an older document that has arrived late
        before = run["bytes"] if run else 0
        self._keep_run(document, run, row, received=report.received, now=now)
        if report.received > before:
            start = int(now) // INTERVAL * INTERVAL
            self._received[start] = self._received.get(start, 0) + report.received - before
        if is_newest:
            row.update(
                {name: value for name in ("mac", "uuid", "machine_id", "hostname") if (value := report.node[name])}
            )
            self._move(row, received.address)
            row.update(seen=now, layout=received.layout, run=document["run"], bytes=report.received)
            row.update(exit_code=document["exit_code"], cause=document["cause"], message=document["message"])
            moved = is_new or (row["stage"], row["state"]) != (stage, state)
            row["percent"] = stages.percent_of(document)
            if moved:
                self._advance(row, stage, state, time=now, percent=row["percent"], text=document["message"])
            if state == "failed" and (moved or run is None):
                self.outcome.failures.append(_failure(row))
            self._change(row)
        return ""

    def _node_that_reports(self, received: Received) -> Row | None:
        report = received.report
        if row := self._nodes.get(report.key):
            return row
        for key in report.keys[1:]:
            if row := self._same_node(key, report.key):
                return row
        column = next(filter(report.node.get, ("mac", "uuid", "machine_id")))
        if column != "mac":
            # Without a MAC address, as of a network that was not up: the one node that has the same. The machine-id
            # alone decides nothing where there is a UUID: an image may give all its nodes the same machine-id.
            found = [*self._by(nodes, column, {report.node[column]}, key="key").values()]
            if len(found) == 1:
                return self._nodes.setdefault(found[0]["key"], found[0])
        return self._same_node(f"address:{received.address}", report.key)

    def _keep_run(self, document: Row, run: Row | None, node: Row, *, received: int, now: float) -> None:
        text = json.dumps(document)
        new = run if run is not None else {"run": document["run"], "node": node["id"], "first_seen": now}
        if run is None:
            new["version"] = node["version"]
        new.update({name: document[name] for name in ("seconds", "final", "phase", "exit_code", "cause", "message")})
        new.update(last_seen=now, clock_offset=_clock_offset(document, now), bytes=received)
        new.update(size=len(text), document=text)
        self._runs[document["run"]] = self._changed_runs[document["run"]] = new

    # Rows

    def _same_node(self, old: str, key: str) -> Row | None:
        """The node known by the key `old` until now, known by `key` from now on; None if there is none."""
        row = self._nodes.pop(old, None)
        if row is None:
            return None
        row["key"] = key
        if key.startswith("mac:"):
            row["mac"] = key.removeprefix("mac:")
        self._nodes[key] = row
        self._change(row)
        return row

    def _absorb(self, key: str, row: Row) -> None:
        """Give what was seen of a node that was known by the key `key`, its address alone, to the node `row`."""
        other = self._nodes.get(key)
        if other is None or other is row:
            return
        self._connection.execute(update(events).where(events.c.node == other["id"]).values(node=row["id"]))
        self._connection.execute(delete(nodes).where(nodes.c.id == other["id"]))
        for event in self._events:
            event["node"] = row["id"] if event["node"] == other["id"] else event["node"]
        self._changed_nodes.pop(other["id"], None)
        del self._nodes[key]
        self._by_address = {address: one for address, one in self._by_address.items() if one is not other}

    def _create(self, key: str, now: float, *, stage: str, text: str, mac: str = "", address: str = "") -> Row:
        row: Row = {column.name: "" for column in nodes.c if column.name != "id"}
        row.update(key=key, mac=mac, address=address, stage=stage, stage_since=now, state="booting", seen=now)
        row.update(percent=None, run=None, exit_code=None, bytes=0)
        row["id"] = self._next_node()
        self._nodes[key] = row
        self._change(row)
        if address:
            self._by_address[address] = row
        if text:
            self._log(row, time=now, text=text)
        return row

    def _move(self, row: Row, address: str) -> None:
        row["address"] = address
        self._by_address[address] = row

    def _advance(self, row: Row, stage: str, state: str, *, time: float, percent: float | None, text: str) -> None:
        row.update(stage=stage, state=state, stage_since=time, percent=percent)
        self._log(row, time=time, text=text)

    def _log(self, row: Row, *, time: float, text: str) -> None:
        event = {"node": row["id"], "time": time, "stage": row["stage"], "state": row["state"], "text": text}
        self._events.append(event)

    def _next_node(self) -> int:
        if self._last_node is None:
            self._last_node = self._connection.execute(select(func.max(nodes.c.id))).scalar_one() or 0
        self._last_node += 1
        return self._last_node

    def _change(self, row: Row) -> None:
        self._changed_nodes[row["id"]] = row


def _progress(reached: float | None, seen: Sighting) -> float | None:
    """How much of its stage's file a node has, in percent, without a gap; it had `reached`. None if unknown."""
    if seen.percent is None or seen.percent_before > (reached or 0.0):
        return reached
    return max(seen.percent, reached or 0.0)


def _failure(row: Row) -> Failure:
    names = ("key", "hostname", "stage", "exit_code", "cause", "message")
    return Failure(node=row["id"], **{name: row[name] for name in names})


def _clock_offset(document: Row, now: float) -> float | None:
    """Seconds by which the node's clock is ahead of this one; None if it says no time."""
    try:
        started = datetime.fromisoformat(document["started"]).timestamp()
        return float(round(started + document["seconds"] - now, 1))
    except (ValueError, OverflowError, OSError):
        return None
