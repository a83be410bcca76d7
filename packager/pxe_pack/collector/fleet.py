"""What is known of all nodes: the questions that the page, the command line and the metrics ask the database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, RowMapping, and_, case, func, literal, or_, select

from pxe_pack.choices import STAGES, STATES
from pxe_pack.collector import advice, stages
from pxe_pack.collector.database import events, nodes, revision, runs, throughput
from pxe_pack.collector.record import INTERVAL
from pxe_pack.collector.retention import EVENTS

LARGEST_PAGE = 1000
LARGEST_GRID = 20_000  # cells
MOST_CAUSES = 50  # of a summary; the others are counted as OTHER
OTHER = "other"
_CAUSED = ("failed", "degraded")  # the states that have a cause
SORTS = ("name", "state", "stage", "since", "seen", "cause", "bytes", "address")
_RUNS = 20

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Which nodes, in which order."""

    state: str = ""
    stage: str = ""
    cause: str = ""
    text: str = ""  # in the name, an address, an identity or the message
    sort: str = "state"
    is_descending: bool = False
    page: int = 1
    size: int = 100


class Fleet:
    """Answers from the database. Each method raises SQLAlchemyError if that is not possible."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def revision(self) -> int:
        """A number that is another one as soon as anything has changed."""
        with self._engine.connect() as connection:
            return int(connection.execute(select(revision.c.number)).scalar_one())

    def summary(self) -> Document:
        """How many nodes there are, by state, by stage and by cause, of which the most frequent are told apart."""
        state = _state(time.time())
        by_both = select(state.label("state"), nodes.c.stage, func.count().label("number")).group_by(
            state, nodes.c.stage
        )
        by_cause = select(nodes.c.cause, func.count().label("number")).where(nodes.c.state.in_(_CAUSED))
        by_cause = by_cause.group_by(nodes.c.cause).order_by(func.count().desc(), nodes.c.cause).limit(MOST_CAUSES)
        by_state, by_stage = dict.fromkeys(STATES, 0), dict.fromkeys(STAGES, 0)
        with self._engine.connect() as connection:
            for one in connection.execute(by_both):
                by_state[one.state] += one.number
                by_stage[one.stage] += one.number
            causes = {one.cause: one.number for one in connection.execute(by_cause)}
        if rest := sum(by_state[name] for name in _CAUSED) - sum(causes.values()):
            causes[OTHER] = causes.get(OTHER, 0) + rest
        total = sum(by_state.values())
        return {"total": total, "states": by_state, "stages": by_stage, "causes": causes, "time": time.time()}

    def nodes(self, query: Query) -> Document:
        """One page of the nodes that `query` asks for, and how many there are in all."""
        now = time.time()
        where = _condition(query, now)
        key = _order(query.sort, now)
        order = (key.desc() if query.is_descending else key.asc(), nodes.c.id)
        wanted = select(nodes, _state(now).label("shown")).where(where).order_by(*order)
        with self._engine.connect() as connection:
            total = connection.execute(select(func.count()).select_from(nodes).where(where)).scalar_one()
            rows = connection.execute(wanted.limit(query.size).offset((query.page - 1) * query.size)).mappings()
            return {"total": total, "page": query.page, "size": query.size, "nodes": [_entry(row, now) for row in rows]}

    def grid(self, query: Query) -> list[list[Any]]:
        """Every node that `query` asks for, with no more than a cell shows: [id, name, state, stage]."""
        now = time.time()
        name, state = _name(), _state(now)
        wanted = select(nodes.c.id, name, state, nodes.c.stage).where(_condition(query, now)).order_by(name, nodes.c.id)
        wanted = wanted.limit(LARGEST_GRID)
        with self._engine.connect() as connection:
            return [list(row) for row in connection.execute(wanted)]

    def node(self, number: int) -> Document | None:
        """All that is known of one node; None if there is none."""
        now = time.time()
        with self._engine.connect() as connection:
            wanted = select(nodes, _state(now).label("shown")).where(nodes.c.id == number)
            row = connection.execute(wanted).mappings().first()
            if row is None:
                return None
            happened = connection.execute(
                select(events).where(events.c.node == number).order_by(events.c.id.desc()).limit(EVENTS)
            ).mappings()
            timeline = [{name: one[name] for name in ("time", "stage", "state", "text")} for one in happened]
            ran = connection.execute(
                select(runs).where(runs.c.node == number).order_by(runs.c.last_seen.desc()).limit(_RUNS)
            ).mappings()
            found = [dict(one) for one in ran]
        current = next((one for one in found if one["run"] == row["run"]), None)
        return {
            **_entry(row, now),
            "timeline": timeline[::-1],
            "runs": [{name: value for name, value in one.items() if name not in _NOT_SHOWN} for one in found],
            "report": json.loads(current["document"]) if current else None,
            "clock_offset": current["clock_offset"] if current else None,
            "advice": advice.after(row["exit_code"]) if row["state"] in _CAUSED else "",
        }

    def throughput(self, *, seconds: int) -> list[list[float]]:
        """[time, bytes a second] for each interval of the last `seconds` in which bytes were reported."""
        since = time.time() - seconds
        wanted = select(throughput).where(throughput.c.time >= since).order_by(throughput.c.time)
        with self._engine.connect() as connection:
            return [[row.time, row.bytes / INTERVAL] for row in connection.execute(wanted)]


_NOT_SHOWN = frozenset(("document", "node", "size"))


def _entry(row: RowMapping, now: float) -> Document:
    names = ("id", "key", "mac", "uuid", "hostname", "address", "layout", "version", "stage", "percent", "exit_code")
    return {
        **{name: row[name] for name in (*names, "cause", "message", "bytes", "run")},
        "name": row["hostname"] or row["mac"] or row["address"] or row["key"],
        "state": row["shown"],
        "stage_seconds": round(max(now - row["stage_since"], 0), 1),
        "seen_seconds": round(max(now - row["seen"], 0), 1),
    }


def _name() -> ColumnElement[str]:
    parts = (nodes.c.hostname, nodes.c.mac, nodes.c.address)
    return func.coalesce(*(func.nullif(part, "") for part in parts), nodes.c.key)


def _state(now: float) -> ColumnElement[str]:
    """The state as it is shown: `silent` for a node that should have been heard of."""
    silent = (and_(nodes.c.state == name, nodes.c.seen < now - limit) for name, limit in stages.SILENT_AFTER.items())
    return case((or_(*silent), literal("silent")), else_=nodes.c.state)


def _condition(query: Query, now: float) -> ColumnElement[bool]:
    return and_(literal(value=True), *_conditions(query, now))


def _conditions(query: Query, now: float) -> Iterator[ColumnElement[bool]]:
    if query.state:
        yield _state(now) == query.state
    if query.stage:
        yield nodes.c.stage == query.stage
    if query.cause:
        yield nodes.c.cause == query.cause
    if query.text:
        columns = (nodes.c.hostname, nodes.c.mac, nodes.c.address, nodes.c.key, nodes.c.message, nodes.c.layout)
        yield or_(*(column.icontains(query.text, autoescape=True) for column in columns))


def _order(sort: str, now: float) -> ColumnElement[Any]:
    state = _state(now)
    found: dict[str, ColumnElement[Any]] = {
        "name": _name(),
        "state": case(*((state == name, number) for number, name in enumerate(STATES)), else_=len(STATES)),
        "stage": case(stages.ORDER, value=nodes.c.stage, else_=len(STAGES)),
        "since": nodes.c.stage_since,
        "seen": nodes.c.seen,
        "cause": nodes.c.cause,
        "bytes": nodes.c.bytes,
        "address": nodes.c.address,
    }
    return found[sort]
