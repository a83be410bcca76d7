"""What the collector has acknowledged is on disk: through kills, full disks and several collectors on one database."""

from __future__ import annotations

import contextlib
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

from fakes.collector import TOKEN, Collector, Document, collector, mac_of, report
from fakes.postgresql import postgresql
from fakes.waiting import until


def test_database_is_its_owners_alone(tmp_path: Path) -> None:
    with collector(tmp_path / "c") as collecting:
        assert collecting.post(report(1)).status_code == 204
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "c").glob("nodes.db*")}
    assert modes == dict.fromkeys(("nodes.db", "nodes.db-wal", "nodes.db-shm"), 0o600)


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


def test_file_system_that_is_full_refuses_reports_until_it_has_space_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted: list[str | Path] = ["unshare", "-rm", "sh", "-ec", 'mount -t tmpfs -o size=4m none "$0"; exec "$@"', disk]
    with collector(tmp_path / "c", database=f"sqlite:///{disk}/nodes.db", inside=mounted) as collecting:
        assert collecting.post(report(1, phase="done")).status_code == 204
        filler = Path(f"/proc/{collecting.process.pid}/root{disk}/filler")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        answers = [collecting.post(report(number, journal=["x" * 1000] * 100)) for number in range(2, 12)]
        refused = next(one for one in answers if one.status_code == 503)
        assert "database or disk is full" in refused.json()["error"]
        assert "node1" in collecting.nodes()
        filler.unlink()
        assert collecting.post(report(20, phase="done")).status_code == 204
        accepted = {f"node{number}" for number, one in enumerate(answers, 2) if one.status_code == 204}
        assert collecting.nodes().keys() == {"node1", "node20", *accepted}


def test_invented_nodes_and_endless_events_are_bounded_by_size_too(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with collector(folder) as collecting:
        for number in (1, 2):
            collecting.post(report(number))
    copied = (
        "stage, stage_since, state, percent, cause, bytes, mac, uuid, machine_id, hostname, address, layout, version"
    )
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    with sqlite3.connect(folder / "nodes.db") as database:
        database.execute(
            f"{numbers} INSERT INTO nodes (key, seen, message, {copied}) SELECT 'machine:' || i, seen - i, "  # noqa: S608
            f"printf('%.1000c', 'x'), {copied} FROM n, nodes WHERE hostname = 'node2'"
        )
        database.execute(
            f"{numbers} INSERT INTO events (node, time, stage, state, text) "  # noqa: S608
            "SELECT id, seen, stage, state, i FROM n, nodes WHERE hostname = 'node1'"
        )
    with collector(folder, "--keep-size", "400KiB") as collecting:
        until(lambda: collecting.get("summary")["total"] < 1000)
        assert collecting.get("summary")["total"] > 50
        assert [one["text"] for one in collecting.node("node1")["timeline"]][-1] == "3000"
        assert [*collecting.nodes(q=mac_of(2))] == ["node2"]
        with sqlite3.connect(folder / "nodes.db") as database:
            per_node = "SELECT count(*) FROM events GROUP BY node ORDER BY 1 DESC"
            assert database.execute(per_node).fetchone() == (300,)
            orphans = "SELECT count(*) FROM events WHERE node NOT IN (SELECT id FROM nodes)"
            assert database.execute(orphans).fetchone() == (0,)


def test_old_runs_go_as_soon_as_much_has_been_written(tmp_path: Path) -> None:
    with collector(tmp_path / "c", "--keep-size", "400KiB") as collecting:
        for number in range(40):
            assert collecting.post(report(number, phase="done", journal=["x" * 1000] * 40)).status_code == 204
        with sqlite3.connect(tmp_path / "c/nodes.db", timeout=20) as database:
            until(lambda: database.execute("SELECT sum(size) FROM runs").fetchone()[0] <= 460 << 10)
        assert len(collecting.nodes()) == 40


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


def test_numbers_that_nodes_make_up_keep_no_report_from_a_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    artifacts = [{"phase": "placed", "seconds": 0, "bytes_received": 1 << 50}] * 3400
    with collector(tmp_path / "a", database=postgresql_url) as collecting:
        codes = {collecting.post(report(number, artifacts=artifacts)).status_code for number in range(1, 7)}
        assert codes == {204}
        assert collecting.post(report(9, phase="done")).status_code == 204
        assert collecting.get("throughput")["points"]


def test_what_is_too_much_is_deleted_from_a_postgresql_too(postgresql_url: str, tmp_path: Path) -> None:
    with collector(tmp_path / "a", database=postgresql_url) as collecting:
        for number in range(1, 21):
            collecting.post(report(number, phase="done", journal=["x" * 1000] * 20))
    with collector(tmp_path / "b", "--keep-size", "200KiB", database=postgresql_url) as collecting:
        until(lambda: not collecting.node("node1")["runs"])
        assert collecting.node("node20")["runs"]
        assert "cannot delete" not in collecting.process.printed()


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
