"""What is kept, and for how long: the disk that the collector takes is bounded."""

from __future__ import annotations

import time

from sqlalchemy import Engine, delete, select, update

from pxe_pack.collector.database import events, nodes, revision, runs, throughput

AT_ONCE = 500  # runs that one statement deletes


def prune(engine: Engine, *, older_than: float, larger_than: int) -> int:
    """Delete what is older than `older_than` seconds, and the oldest runs; how many runs went.

    The documents of those that stay have `larger_than` characters together at most. Raises SQLAlchemyError.
    """
    before = time.time() - older_than
    with engine.begin() as connection:
        connection.execute(update(revision).values(number=revision.c.number + 1))
        gone = connection.execute(delete(runs).where(runs.c.last_seen < before)).rowcount
        connection.execute(delete(events).where(events.c.time < before))
        connection.execute(delete(throughput).where(throughput.c.time < before))
        connection.execute(delete(nodes).where(nodes.c.seen < before))
        total, oldest = 0, []
        for run, size in connection.execute(select(runs.c.run, runs.c.size).order_by(runs.c.last_seen.desc())):
            total += size
            if total > larger_than:
                oldest.append(run)
        for start in range(0, len(oldest), AT_ONCE):
            gone += connection.execute(delete(runs).where(runs.c.run.in_(oldest[start : start + AT_ONCE]))).rowcount
    return gone
