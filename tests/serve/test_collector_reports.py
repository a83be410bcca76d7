"""The collector takes nodes' reports: what becomes of the node, who may send them, and what is refused."""

from __future__ import annotations

import random
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from fakes.collector import TOKEN, Collector, Document, collector, mac_of, report, run_id
from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_pack.collector.access import node_code

BODY = random.Random(1).randbytes(5_000)


def test_report_of_a_real_agent_shows_the_node_done(shared: Collector, tmp_path: Path) -> None:
    node = FakeNode(folder=tmp_path)
    node.boot_with("quiet")
    node.write("proc/sys/kernel/hostname", "real\n")
    node.write("sys/class/net/eth0/address", "52:54:00:aa:aa:aa\n")
    node.write("sys/class/net/eth0/device/vendor", "0\n")
    node.write("etc/machine-id", f"{'12' * 16}\n")
    node.credential("pxe-fetch.report", f"Authorization: Bearer {TOKEN}\n")
    to = {"url": f"{shared.url}/report", "header_credential": "pxe-fetch.report", "insecure": True}
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY), report=to)
    assert ran.code == 0
    found = shared.node("real")
    assert found["state"] == found["stage"] == "done"
    assert found["bytes"] == len(BODY)
    assert [one["name"] for one in found["report"]["artifacts"]] == ["m"]
    assert found["timeline"][-1]["state"] == "done"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (report(11, phase="locating"), ("agent", "fetching")),
        (report(12), ("artifacts", "fetching")),
        (report(13, phase="done"), ("done", "done")),
        (report(14, phase="done", exit_code=2, cause="network"), ("done", "degraded")),
        (report(15, phase="failed"), ("artifacts", "failed")),
        (report(16, phase="failed", cause="unit-failed", exit_code=73), ("units", "failed")),
        (report(17, phase="failed", artifacts=[], cause="config-invalid", exit_code=65), ("agent", "failed")),
    ],
)
def test_node_is_shown_at_the_stage_that_its_report_is_about(
    shared: Collector, document: Document, expected: tuple[str, str]
) -> None:
    assert shared.post(document).status_code == 204
    found = shared.nodes()[document["node"]["hostname"]]
    assert (found["stage"], found["state"]) == expected


def test_failed_node_has_the_error_and_the_catalogs_words_for_it(shared: Collector) -> None:
    shared.post(report(20, phase="failed", exit_code=79, cause="no-room", journal=["line 1", "line 2"]))
    found = shared.node("node20")
    assert found["cause"] == "no-room"
    assert found["advice"].startswith("Not enough space.")
    assert found["report"]["journal"] == ["line 1", "line 2"]


def test_bytes_of_a_failed_artifact_do_not_count_for_the_percentage(shared: Collector) -> None:
    document = report(300, phase="failed")
    document["artifacts"][0]["bytes"] = document["artifacts"][0]["total"]  # all came, and was wrong
    shared.post(document)
    assert shared.nodes()["node300"]["percent"] == 0


def test_late_report_of_a_run_does_not_replace_a_newer_one(shared: Collector) -> None:
    run = run_id()
    for document in (report(21, phase="done", run=run, seconds=9.0), report(21, run=run, seconds=3.0)):
        assert shared.post(document).status_code == 204
    assert shared.nodes()["node21"]["state"] == "done"


def test_further_run_of_a_node_is_its_current_one_and_the_earlier_one_is_kept(shared: Collector) -> None:
    first, second = report(22, phase="failed"), report(22, phase="done")
    shared.post(first)
    shared.post(second)
    found = shared.node("node22")
    assert found["state"] == "done"
    assert [one["run"] for one in found["runs"]] == [second["run"], first["run"]]


def test_node_without_a_mac_address_is_known_by_its_uuid(shared: Collector) -> None:
    uuid = "11111111-2222-3333-4444-555555555555"
    shared.post(report(23, node={"hostname": "node23", "mac": mac_of(23), "uuid": uuid}))
    shared.post(report(23, phase="failed", node={"hostname": "node23", "mac": "", "uuid": uuid}))
    assert len(shared.node("node23")["runs"]) == 2


def test_node_without_a_mac_address_and_a_uuid_is_known_by_its_machine_id(shared: Collector) -> None:
    machine_id = f"{27:032x}"
    shared.post(report(27, node={"hostname": "node27", "mac": mac_of(27), "machine_id": machine_id}))
    shared.post(report(27, phase="failed", node={"hostname": "node27", "machine_id": machine_id}))
    assert len(shared.node("node27")["runs"]) == 2


def test_nodes_whose_image_gives_them_one_machine_id_stay_apart(shared: Collector) -> None:
    fixed = {"machine_id": f"{24:032x}"}
    known_by = {
        "node24": {"mac": mac_of(24), "uuid": "11111111-2222-3333-4444-000000000024"},
        "node25": {"uuid": "11111111-2222-3333-4444-000000000025"},
        "node26": {"mac": mac_of(26)},
    }
    for name, identity in known_by.items():
        assert shared.post(report(phase="done", node={"hostname": name, **identity, **fixed})).status_code == 204
    assert [len(shared.node(name)["runs"]) for name in known_by] == [1, 1, 1]


@pytest.mark.parametrize("hours", [-50_000, 50_000])
def test_clock_of_a_node_that_is_wrong_changes_nothing_but_is_shown(shared: Collector, hours: int) -> None:
    number = 100 + (hours > 0)
    started = (datetime.now(tz=UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    shared.post(report(number, phase="done", started=started, seconds=0.0))
    found = shared.node(f"node{number}")
    assert found["state"] == "done"
    assert found["stage_seconds"] < 60
    assert found["clock_offset"] == pytest.approx(hours * 3600, abs=60)


def test_bytes_that_a_node_reports_are_in_the_throughput_once(tmp_path: Path) -> None:
    with collector(tmp_path / "c") as collecting:
        document = report(1)
        for received in (400, 700, 700):
            document["artifacts"][0]["bytes_received"] = received
            document["seconds"] += 1
            collecting.post(document)
        points = collecting.get("throughput", seconds=600)["points"]
    assert sum(rate for _, rate in points) * 10 == 700


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], f"{TOKEN}0", f"{mac_of(30)}.{'0' * 64}"])
def test_report_with_a_wrong_token_is_refused(shared: Collector, token: str) -> None:
    assert shared.post(report(30), token=token).status_code == 401
    assert "node30" not in shared.nodes()


def test_token_of_a_node_is_good_for_its_own_record_alone(shared: Collector) -> None:
    own = f"{mac_of(31)}.{node_code(TOKEN, mac_of(31))}"
    assert shared.post(report(31, phase="done"), token=own).status_code == 204
    assert shared.post(report(32, phase="failed"), token=own).status_code == 403
    assert shared.nodes()["node31"]["state"] == "done"
    assert "node32" not in shared.nodes()


def test_run_of_another_node_cannot_be_written(shared: Collector) -> None:
    theirs = report(33)
    shared.post(theirs)
    answer = shared.post(report(34, phase="failed", run=theirs["run"], seconds=9.0))
    assert answer.status_code == 403
    assert answer.json()["error"] == "this run is another node's"
    assert shared.nodes()["node33"]["state"] == "fetching"


def test_layout_is_named_by_its_token_and_with_node_tokens_no_other_is_taken(tmp_path: Path) -> None:
    with collector(tmp_path / "c", "--node-tokens", tokens=f"lab {TOKEN}") as collecting:
        assert collecting.post(report(1)).status_code == 401
        assert collecting.post(report(1), token=f"{mac_of(1)}.{node_code(TOKEN, mac_of(1))}").status_code == 204
        assert collecting.nodes()["node1"]["layout"] == "lab"


def deep(levels: int) -> bytes:
    return b'{"run":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"NaN",
        b'{"run": 1}',
        deep(30_000),
        b"[" * 200_000,
        b"1" * 100_000,
    ],
)
def test_body_that_is_no_report_is_refused_and_the_collector_goes_on(shared: Collector, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = shared.session.post(f"{shared.url}/report", data=body, headers=headers, timeout=20)
    assert answer.status_code == 422
    assert "error" in answer.json()
    assert shared.post(report(40)).status_code == 204


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": "x"},
        {"run": "A" * 32},
        {"phase": "<script>"},
        {"seconds": -1},
        {"seconds": 1e300},
        {"seconds": True},
        {"exit_code": 1 << 70},
        {"exit_code": "0"},
        {"message": ["a"]},
        {"artifacts": {}},
        {"artifacts": [1]},
        {"artifacts": [{"phase": "x"}]},
        {"artifacts": [{"phase": "placed", "seconds": 1, "bytes_received": 1 << 80}]},
        {"journal": ["x"] * 201},
        {"node": {}},
        {"node": {"mac": "x' OR 1=1 --"}},
        {"node": {"mac": "00:00:00:00:00:00"}},
        {"node": "x"},
        {"config": []},
    ],
)
def test_report_with_a_value_of_another_kind_is_refused(shared: Collector, wrong: Document) -> None:
    answer = shared.post(report(41) | wrong)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert "node41" not in shared.nodes()


def test_unknown_keys_are_dropped_and_text_is_cleaned_and_bounded(shared: Collector) -> None:
    node = {"hostname": "node42\u202e\x1b[2J\n\x00\ud800", "mac": mac_of(42), "new": 1}
    assert shared.post(report(42, message="x" * 100_000, node=node, new={"a": [1]})).status_code == 204
    (found,) = [one for one in shared.nodes().values() if one["mac"] == mac_of(42)]
    assert found["hostname"].isprintable()
    assert len(found["message"]) == 2001
    assert "new" not in shared.node(found["name"])["report"]


def test_causes_that_somebody_invents_neither_swell_the_summary_nor_the_metrics(tmp_path: Path) -> None:
    with collector(tmp_path / "c") as collecting:
        for number in range(70):
            cause = "network" if number < 5 else f"cause-{number}" if number < 65 else f"{number} <b>{'x' * 1000}"
            assert collecting.post(report(number, phase="failed", cause=cause)).status_code == 204
        causes = collecting.get("summary")["causes"]
        assert {"network": 5, "unknown": 5, "other": 12}.items() <= causes.items()
        assert sum(causes.values()) == 70
        assert len(causes) == 51
        metrics = requests.get(f"{collecting.url}/metrics", timeout=20).text
    assert metrics.count("pxe_pack_nodes_failed{") == 51


def test_report_that_is_too_large_is_refused_before_it_is_read(shared: Collector) -> None:
    assert shared.post(report(43, message="x" * 300_000)).status_code == 413
    head = f"POST /report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    endless = f"{head}Content-Length: 99999999999\r\nConnection: close\r\n\r\n".encode()
    assert b" 413 " in shared.raw(endless).splitlines()[0]
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode() + chunk * 12 + b"0\r\n\r\n"
    assert b" 413 " in shared.raw(chunked).splitlines()[0]


def test_sender_that_is_slow_or_leaves_holds_nobody_up(shared: Collector) -> None:
    host, port = shared.url.removeprefix("http://").split(":")
    head = f"POST /report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n{{"
    slow = [socket.create_connection((host, int(port)), timeout=20) for _ in range(50)]
    for connection in slow:
        connection.sendall(head.encode())
    began = time.monotonic()
    assert shared.post(report(44, phase="done")).status_code == 204
    assert time.monotonic() - began < 2
    for connection in slow[1:]:
        connection.close()
    assert b" 408 " in slow[0].recv(4096).splitlines()[0]
    slow[0].close()


def test_address_that_reports_too_often_is_told_to_wait_and_others_are_not(tmp_path: Path) -> None:
    with collector(tmp_path / "c", "--rate", "1") as collecting:
        codes = [collecting.post(report(1)).status_code for _ in range(8)]
        elsewhere = {"X-Forwarded-For": "10.0.0.9"}  # as a proxy on this machine says it
        assert codes == [204] * 4 + [429] * 4
        assert collecting.post(report(2), headers=elsewhere).status_code == 204
        assert collecting.nodes()["node2"]["address"] == "10.0.0.9"


def test_many_nodes_report_at_once_and_each_has_its_record(shared: Collector) -> None:
    def post(numbers: range) -> None:
        for number in numbers:
            assert shared.post(report(number, phase="done")).status_code == 204

    threads = [threading.Thread(target=post, args=(range(1000 + at, 1000 + at + 20),)) for at in range(0, 100, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = shared.nodes(q="node10").keys()
    assert {f"node{number}" for number in range(1000, 1100)} <= names
