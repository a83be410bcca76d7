"""What is kept, and for how long: the disk that the collector takes is bounded."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Column, Connection, Engine, Select, delete, func, select, update

from pxe_pack.collector.database import events, nodes, revision, runs, throughput

EVENTS = 300  # of a node: the newest, which its page shows
AT_ONCE = 500  # rows that one statement deletes
ROW = 500  # bytes that a row takes beside its long texts, with its indexes; about


def prune(engine: Engine, *, older_than: float, larger_than: int) -> None:
    """Delete what is older than `older_than` seconds, and the oldest until the rest has `larger_than` bytes at most.

    The oldest runs go first; then, as when somebody invents many nodes, those that have been silent for the longest,
    with all that is known of them. A row counts as its texts and ROW. Raises SQLAlchemyError.
    """
    before = time.time() - older_than
    with engine.begin() as connection:
        connection.execute(update(revision).values(number=revision.c.number + 1))
        connection.execute(delete(runs).where(runs.c.last_seen < before))
        connection.execute(delete(events).where(events.c.time < before))
        connection.execute(delete(throughput).where(throughput.c.time < before))
        connection.execute(delete(nodes).where(nodes.c.seen < before))
        newest_first = func.row_number().over(partition_by=events.c.node, order_by=events.c.id.desc())
        numbered = select(events.c.id, newest_first.label("number")).subquery()
        surplus = select(numbered.c.id).where(numbered.c.number > EVENTS)
        connection.execute(delete(events).where(events.c.id.in_(surplus)))
        texts = func.coalesce(func.sum(func.length(events.c.text) + ROW), 0)
        of_nodes = (
            select(nodes.c.id, ROW + func.length(nodes.c.message) + func.length(nodes.c.cause) + texts)
            .outerjoin(events, events.c.node == nodes.c.id)
            .group_by(nodes.c.id)
            .order_by(nodes.c.seen.desc(), nodes.c.id)
        )
        total = _keep_first(connection, of_nodes, nodes.c.id, most=larger_than)
        of_runs = select(runs.c.run, runs.c.size + ROW).order_by(runs.c.last_seen.desc(), runs.c.run)
        _keep_first(connection, of_runs, runs.c.run, most=larger_than - total)


def _keep_first(connection: Connection, sizes: Select[Any], key: Column[Any], *, most: int) -> int:
    """Delete the rows that `sizes`, their keys and sizes, has after the first `most` bytes; the size of the others."""
    kept = 0
    surplus: list[Any] = []
    for one, size in connection.execute(sizes):
        if surplus or kept + size > most:
            surplus.append(one)
        else:
            kept += size
    for start in range(0, len(surplus), AT_ONCE):
        connection.execute(delete(key.table).where(key.in_(surplus[start : start + AT_ONCE])))
    return kept
