"""The collector's tables, in SQLite or PostgreSQL, and the engine that reaches them (SQLAlchemy Core)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError

MOST_COLLECTORS = 10  # that may start on an empty database at the same moment

metadata = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys only by itself

# Times are seconds since the epoch by the collector's clock; a node's clock is never compared with it.
nodes = Table(
    "nodes",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("key", String(200), unique=True, nullable=False),  # mac:…, uuid:…, machine:…, address:…
    Column("mac", String(64), nullable=False, default=""),
    Column("uuid", String(36), nullable=False, default="", index=True),
    Column("machine_id", String(32), nullable=False, default="", index=True),
    Column("hostname", Text, nullable=False, default=""),
    Column("address", String(64), nullable=False, default="", index=True),
    Column("layout", String(200), nullable=False, default=""),  # the name of the token that it reports with
    Column("version", String(64), nullable=False, default=""),  # of a published layout, that it booted
    Column("stage", String(16), nullable=False),
    Column("stage_since", Float, nullable=False),
    Column("state", String(16), nullable=False),  # booting, fetching, done, degraded, failed
    Column("percent", Float),
    Column("seen", Float, nullable=False),
    Column("run", String(32)),
    Column("exit_code", Integer),
    Column("cause", Text, nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("bytes", BigInteger, nullable=False, default=0),  # received in this run
    Index("nodes_by_state", "state", "stage"),
)
runs = Table(
    "runs",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("node", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("version", String(64), nullable=False, default=""),  # of a published layout, that the node booted
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False, index=True),
    Column("clock_offset", Float),  # seconds by which the node's clock is ahead
    Column("seconds", Float, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("exit_code", Integer),
    Column("cause", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("size", Integer, nullable=False),  # of `document`, in characters
    Column("document", Text, nullable=False),  # JSON, as `document.read` has cleaned it
)
events = Table(
    "events",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("node", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("time", Float, nullable=False, index=True),
    Column("stage", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("text", Text, nullable=False),
)
throughput = Table(
    "throughput",
    metadata,
    Column("time", BigInteger, primary_key=True, autoincrement=False),  # the start of an interval
    Column("bytes", BigInteger, nullable=False),
)
logs = Table(
    "logs",
    metadata,
    Column("path", Text, primary_key=True),
    Column("inode", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
)
# One row. Each transaction that writes changes it first, so that those of several collectors come one after the other,
# and a reader sees by one number whether anything has changed.
revision = Table(
    "revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)


class DatabaseUrlError(Exception):
    """The database's URL cannot be used; the text says why."""


def connect(url: str) -> Engine:
    """The engine for `url`, with all tables in place.

    `sqlite:///FILE` and `postgresql://…` are supported; the latter is reached by psycopg. Raises DatabaseUrlError, and
    SQLAlchemyError if the database cannot be reached.
    """
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: of a port that is no number
        raise DatabaseUrlError("it is not of the form sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
    if parts.drivername == "postgresql":
        parts = parts.set(drivername="postgresql+psycopg")
    if parts.get_backend_name() not in ("sqlite", "postgresql"):
        raise DatabaseUrlError(f"{parts.get_backend_name()} is not supported; use sqlite:///FILE or postgresql://…")
    if parts.get_backend_name() == "sqlite" and parts.database in (None, "", ":memory:"):
        raise DatabaseUrlError("it names no file: give sqlite:///FILE")
    engine = create_engine(parts, pool_pre_ping=True, pool_size=5, max_overflow=5)
    if engine.dialect.name == "sqlite":
        _make_private(parts.database or "")
        event.listen(engine, "connect", _configure_sqlite)
    for _ in range(MOST_COLLECTORS):
        try:
            metadata.create_all(engine)
            with engine.begin() as connection:
                if connection.execute(select(revision.c.number)).first() is None:
                    connection.execute(insert(revision).values(id=1, number=0))
        except (IntegrityError, ProgrammingError) as error:  # another collector that starts has made the same
            failure = error
        else:
            return engine
    raise failure


def _make_private(name: str) -> None:
    """Create the database `name` for its owner alone. SQLite gives its -wal and -shm the same mode (os_unix.c)."""
    if name and not name.startswith((":", "file:")):
        with suppress(OSError):  # SQLite says what is wrong
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode=0o600))


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:  # noqa: ANN401  SQLAlchemy's own record
    """WAL, so that readers and the writer do not wait for each other; what is committed survives a power failure."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")
