"""What the collector has acknowledged is on disk: through kills, full disks and several collectors on one database."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest
import requests

from fakes.collector import TOKEN, Collector, Document, collector, report
from fakes.postgresql import postgresql
from fakes.waiting import until


class Reporters:
    """Threads that report without end, each of nodes of its own, and what was acknowledged."""

    def __init__(self, *collectors: Collector, first: int = 0) -> None:
        self.acknowledged: dict[str, Document] = {}  # run -> the document
        self._end = threading.Event()
        self._collectors = itertools.cycle([one.url for one in collectors])
        self._threads = [threading.Thread(target=self._report, args=(number,)) for number in range(first, first + 4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _report(self, first: int) -> None:
        url = next(self._collectors)
        with requests.Session() as session:
            for number in itertools.count(first * 100_000):
                if self._end.is_set():
                    return
                document = report(number, phase=("fetching", "done", "failed")[number % 3])
                try:
                    answer = session.post(
                        f"{url}/report", json=document, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
                    )
                except requests.RequestException:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 204:
                    self.acknowledged[document["run"]] = document


def assert_all_are_there(collecting: Collector, acknowledged: dict[str, Document]) -> None:
    known: dict[str, Document] = {}
    page = itertools.count(1)
    while found := collecting.get("nodes", size=1000, page=next(page))["nodes"]:
        known |= {one["run"]: one for one in found}
    missing = [run for run in acknowledged if run not in known]
    assert not missing, f"{len(missing)} of {len(acknowledged)} are lost"
    wrong = [run for run, one in acknowledged.items() if one["exit_code"] != known[run]["exit_code"]]
    assert not wrong


def test_nothing_that_was_acknowledged_is_lost_when_the_collector_is_killed(collecting: Collector) -> None:
    acknowledged: dict[str, Document] = {}
    for first in (0, 10, 20):
        with Reporters(collecting, first=first) as reporters:
            until(lambda reporters=reporters: len(reporters.acknowledged) >= 100)  # type: ignore[misc]
            collecting.process.kill()
        acknowledged |= reporters.acknowledged
        collecting.restart()
    assert len(acknowledged) >= 300
    assert_all_are_there(collecting, acknowledged)


def test_full_disk_refuses_reports_until_it_has_space_again(collecting: Collector) -> None:
    def limit(size: str) -> None:
        subprocess.run(["prlimit", f"--pid={collecting.process.pid}", f"--fsize={size}"], check=True)

    assert collecting.post(report(1, phase="done")).status_code == 204
    limit("200000:unlimited")
    answers = [collecting.post(report(number, journal=["x" * 1000] * 100)) for number in range(2, 12)]
    (refused, *_) = [one for one in answers if one.status_code == 503]
    assert "the database cannot be written" in refused.json()["error"]
    assert requests.get(f"{collecting.url}/healthz", timeout=20).status_code == 503
    assert "node1" in collecting.nodes()  # the page still shows what is known
    limit("unlimited:unlimited")
    assert collecting.post(report(20, phase="done")).status_code == 204
    assert requests.get(f"{collecting.url}/healthz", timeout=20).status_code == 200
    assert {"node1", "node20"} <= collecting.nodes().keys()


def test_old_runs_and_more_than_may_be_kept_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with collector(folder) as collecting:
        for number in range(1, 31):
            collecting.post(report(number, phase="done", journal=["x" * 1000] * 20))
    with sqlite3.connect(folder / "nodes.db") as connection:
        for table, column in (("runs", "last_seen"), ("nodes", "seen"), ("events", "time")):
            connection.execute(f"UPDATE {table} SET {column} = {column} - 7200 WHERE rowid <= 10")  # noqa: S608
    with collector(folder, "--keep", "1h", "--keep-size", "200KiB") as collecting:
        until(lambda: len(collecting.nodes()) == 20)
        with sqlite3.connect(folder / "nodes.db") as connection:
            until(lambda: connection.execute("SELECT sum(size) FROM runs").fetchone()[0] <= 200 << 10)
            assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] >= 5
        assert collecting.nodes()["node30"]["state"] == "done"


@pytest.fixture
def postgresql_url(tmp_path: Path) -> Iterator[str]:
    with postgresql(tmp_path / "postgresql") as url:
        yield url


def test_two_collectors_share_a_postgresql_and_lose_nothing_when_one_is_killed(
    postgresql_url: str, tmp_path: Path
) -> None:
    with (
        collector(tmp_path / "a", database=postgresql_url) as one,
        collector(tmp_path / "b", database=postgresql_url) as other,
    ):
        with Reporters(one, other) as reporters:
            until(lambda: len(reporters.acknowledged) >= 100)
            one.process.kill()
            killed_at = len(reporters.acknowledged)
            until(lambda: len(reporters.acknowledged) >= killed_at + 50)
        assert_all_are_there(other, reporters.acknowledged)
        one.restart()
        assert_all_are_there(one, reporters.acknowledged)
        one.post(report(999_999, phase="done"))
        assert other.nodes(q="node999999")["node999999"]["state"] == "done"  # each sees what the other has taken


def test_collectors_that_start_together_on_an_empty_database_all_serve(postgresql_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        contexts = [collector(tmp_path / name, database=postgresql_url) for name in "abc"]
        made = [*pool.map(stack.enter_context, contexts)]
        for number, one in enumerate(made):
            assert one.post(report(number, phase="done")).status_code == 204
        assert all(len(one.nodes()) == 3 for one in made)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nonsense", "not of the form"),
        ("mysql://x/y", "not supported"),
        ("sqlite:////nowhere/at/all.db", "cannot be used"),
        ("postgresql://127.0.0.1:1/x", "cannot be used"),
    ],
)
def test_database_that_cannot_be_used_is_said(tmp_path: Path, url: str, expected: str) -> None:
    with pytest.raises(AssertionError, match=expected), collector(tmp_path / "c", database=url):
        pass
