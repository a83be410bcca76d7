"""Who sees the page and its data; what the other endpoints answer."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml

from fakes.certs import Authority
from fakes.collector import TOKEN, Collector, collector, report
from fakes.faults import Status
from fakes.process import Process, running
from fakes.server import Script, Server
from fakes.waiting import until
from fakes.wire import wire

PASSWORD = "correct horse battery"  # noqa: S105
EXAMPLES = Path(__file__).parents[2] / "examples/monitoring"
PAGES = ("/", "/nodes/1", "/static/index.js", "/events", "/metrics", "/api/summary", "/api/nodes", "/api/grid")


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


def status(url: str, **options: object) -> int:
    with requests.get(url, timeout=20, stream=True, **options) as answer:  # type: ignore[arg-type]
        return answer.status_code


def test_page_without_a_password_is_for_browsers_on_this_machine_alone(tmp_path: Path) -> None:
    with collector(tmp_path / "c", listen="0.0.0.0:0") as collecting:
        here = collecting.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        for page in PAGES:
            assert status(f"{here}{page}") == 200
            assert status(f"{here}{page}", headers={"X-Forwarded-For": "10.0.0.9"}) == 403  # by way of a proxy
            assert status(f"{here}{page}", headers={"Host": "rebound.example.com"}) == 403
        assert status(f"{here}/healthz", headers={"X-Forwarded-For": "10.0.0.9"}) == 200


def test_collector_at_all_addresses_knows_ipv4_nodes_by_their_usual_address(tmp_path: Path) -> None:
    with collector(tmp_path / "c", listen="[::]:0") as collecting:
        port = collecting.url.rsplit(":", 1)[1]
        for host in ("127.0.0.1", "[::1]"):
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answer = requests.post(f"http://{host}:{port}/report", json=report(len(host)), headers=headers, timeout=20)
            assert answer.status_code == 204
            found = requests.get(f"http://{host}:{port}/api/nodes", timeout=20).json()["nodes"]
            assert host.strip("[]") in {one["address"] for one in found}


def test_password_is_needed_everywhere_if_there_is_one(tmp_path: Path, password_file: Path) -> None:
    with collector(tmp_path / "c", "--password-file", str(password_file)) as collecting:
        for page in PAGES:
            assert status(f"{collecting.url}{page}") == 401
            assert status(f"{collecting.url}{page}", auth=("anybody", "wrong")) == 401
            assert status(f"{collecting.url}{page}", auth=("anybody", PASSWORD)) == 200
        assert status(f"{collecting.url}/", headers={"Authorization": f"Bearer {PASSWORD}"}) == 200
        for wrong in (b"Basic !", b"Basic \xff", b"Basic /w==", b"Bearer \xff", b"\xff", b"Basic"):
            assert status(f"{collecting.url}/", headers={"Authorization": wrong}) == 401
        assert collecting.post(report(1)).status_code == 204


def test_every_answer_forbids_scripts_of_others(shared: Collector) -> None:
    for page in ("/", "/api/nodes", "/nowhere", "/report"):
        headers = requests.get(f"{shared.url}{page}", timeout=20).headers
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    for page in ("index.html", "node.html"):
        text = requests.get(f"{shared.url}/static/{page}", timeout=20).text
        assert "http" not in text.replace("http-equiv", "")
        assert "<script>" not in text
        assert "style=" not in text


@pytest.mark.parametrize("path", ["/static/..%2fapp.py", "/static/../app.py", "/static/%2e%2e/app.py", "/static/none"])
def test_no_file_but_the_pages_own_is_served(shared: Collector, path: str) -> None:
    answer = shared.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert b" 404 " in answer.splitlines()[0]


@pytest.mark.parametrize("number", ["0", "9" * 18, "9" * 19, "9" * 25, "9" * 5000, "x", "%C2%B2"])
def test_node_that_nobody_has_is_no_failure_of_the_collector(shared: Collector, number: str) -> None:
    assert status(f"{shared.url}/api/nodes/{number}") == 404


def test_nodes_are_filtered_sorted_and_paged_by_the_collector(collecting: Collector) -> None:
    for number in range(1, 31):
        phase = "failed" if number % 10 == 0 else "done"
        collecting.post(report(number, phase=phase))
    assert collecting.get("summary")["states"]["failed"] == 3
    assert collecting.get("summary")["causes"] == {"network": 3}
    assert [*collecting.nodes(state="failed", sort="name")] == ["node10", "node20", "node30"]
    assert [*collecting.nodes(cause="network", sort="name", order="descending")] == ["node30", "node20", "node10"]
    assert [*collecting.nodes(q="NODE2", stage="done", sort="name")][:2] == ["node2", "node21"]
    assert collecting.nodes(q="%") == collecting.nodes(q="' OR 1=1 --") == {}
    first, second = (collecting.get("nodes", size=20, page=page, sort="name") for page in (1, 2))
    assert (first["total"], len(first["nodes"]), len(second["nodes"])) == (30, 20, 10)
    assert len(collecting.get("grid")) == 30


@pytest.mark.parametrize("wrong", ["state=x", "stage=x", "sort=message;--", "page=0", "page=x", "size=1001", "size=²"])
def test_query_that_is_wrong_is_refused(shared: Collector, wrong: str) -> None:
    answer = requests.get(f"{shared.url}/api/nodes?{wrong}", timeout=20)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_open_page_is_told_of_a_change_within_two_seconds(collecting: Collector) -> None:
    with requests.get(f"{collecting.url}/events", stream=True, timeout=20) as events:
        lines = (line for line in events.iter_lines() if line.startswith(b"data: "))
        assert json.loads(next(lines).removeprefix(b"data: "))["total"] == 0
        collecting.post(report(1, phase="failed"))
        posted = collecting.get("summary")["time"]
        told = json.loads(next(lines).removeprefix(b"data: "))
        assert told["states"]["failed"] == 1
        assert told["time"] - posted < 2


def test_metrics_count_nodes_and_reports(collecting: Collector) -> None:
    collecting.post(report(1, phase="failed"))
    collecting.post(report(2, phase="done"))
    collecting.post(report(3), token="wrong")  # noqa: S106
    lines = requests.get(f"{collecting.url}/metrics", timeout=20).text.splitlines()
    assert 'pxe_pack_nodes{state="failed"} 1.0' in lines
    assert 'pxe_pack_nodes_at{stage="done"} 1.0' in lines
    assert 'pxe_pack_nodes_failed{cause="network"} 1.0' in lines
    assert 'pxe_pack_reports_total{status="204"} 2.0' in lines
    assert 'pxe_pack_reports_total{status="401"} 1.0' in lines


def test_example_alerts_and_dashboard_ask_for_metrics_that_there_are(collecting: Collector) -> None:
    collecting.post(report(1, phase="failed"))
    there = {line.split("{")[0] for line in requests.get(f"{collecting.url}/metrics", timeout=20).text.splitlines()}
    alerts, dashboard = (EXAMPLES / name for name in ("pxe-pack-alerts.yml", "pxe-pack-dashboard.json"))
    rules = [rule["expr"] for group in yaml.safe_load(alerts.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(dashboard.read_text())["panels"]
    asked = {name for one in (*rules, json.dumps(panels)) for name in re.findall(r"pxe_pack_\w+", one)}
    assert len(asked) >= 6
    assert asked <= {name.split(" ")[0] for name in there}


def test_webhook_is_told_of_each_failure_once_and_tried_again(tmp_path: Path) -> None:
    with (
        Server({"/hook": Script(faults=[Status(503)])}) as hook,
        collector(tmp_path / "c", "--failure-webhook", hook.url("/hook")) as collecting,
    ):
        failed = report(1, phase="failed")
        for document in (report(2, phase="done"), failed, failed):
            assert collecting.post(document).status_code == 204
        until(lambda: len(hook.asked_for("/hook")) >= 2)
        told = [json.loads(one.body) for one in hook.asked_for("/hook")]
    assert len(told) == 2  # 503, and again
    assert told[1]["text"] == "node1 failed at artifacts: model: the server answered 503"
    assert told[1]["exit_code"] == 69


def test_url_of_the_webhook_may_be_in_a_file_where_the_list_of_processes_does_not_show_it(tmp_path: Path) -> None:
    secret = tmp_path / "webhook"
    with Server({"/hook/s3cret": Script()}) as hook:
        secret.write_text(f"{hook.url('/hook/s3cret')}\n")
        with collector(tmp_path / "c", "--failure-webhook-file", str(secret)) as collecting:
            assert b"s3cret" not in Path(f"/proc/{collecting.process.pid}/cmdline").read_bytes()
            assert collecting.post(report(1, phase="failed")).status_code == 204
            until(lambda: len(hook.asked_for("/hook/s3cret")) == 1)
    secret.write_text("not-a-url-s3cret\n")
    with pytest.raises(AssertionError, match="its text is not an http or https URL") as said:
        collector(tmp_path / "d", "--failure-webhook-file", str(secret)).__enter__()
    assert "s3cret" not in str(said.value)


@pytest.mark.parametrize("serves", [True, False])
def test_collector_ends_without_a_traceback_on_ctrl_c(tmp_path: Path, *, serves: bool) -> None:
    with collector(tmp_path / "c") as collecting:
        output = tmp_path / "c/output"
        if not serves:
            collecting.process.kill()
            command = collecting.process.command
            with output.open("ab") as file, subprocess.Popen(command, stdout=file, stderr=file) as starting:
                loaded = Path(f"/proc/{starting.pid}/maps")
                until(lambda: "_ssl" in loaded.read_text())  # it imports its libraries
                starting.send_signal(signal.SIGINT)
                assert starting.wait(20) == -signal.SIGINT
        else:
            os.kill(collecting.process.pid, signal.SIGINT)
            until(lambda: not collecting.process.is_running)
        assert "Traceback" not in output.read_text()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--rate=-1"], "is not a number above 0"),
        (["--rate=nan"], "is not a number above 0"),
        (["--failure-webhook=foo"], "is not an http or https URL"),
        (["--nginx-log", "/"], "the log / cannot be read: Is a directory"),
        (["--database", "sqlite://"], "it names no file: give sqlite:///FILE"),
        (["--database", "sqlite:///:memory:"], "it names no file: give sqlite:///FILE"),
        (["--database", "postgresql://h:port/x"], "it is not of the form sqlite:///FILE"),
    ],
)
def test_option_that_cannot_be_used_is_said(tmp_path: Path, options: list[str], expected: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef")
    command = [sys.executable, "-m", "pxe_pack.collector", "--listen", "127.0.0.1:0", "--token-file", str(tokens)]
    command += ["--database", f"sqlite:///{tmp_path}/nodes.db", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert expected in done.stderr


def test_collector_ends_at_once_when_asked_to_with_a_page_open(collecting: Collector) -> None:
    with requests.get(f"{collecting.url}/events", stream=True, timeout=20) as events:
        next(events.iter_lines())
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(collecting.process.pid)], check=True)
        assert b"".join(events.iter_content(1024)) is not None
    until(lambda: not collecting.process.is_running)


def test_connections_without_a_whole_request_are_closed(shared: Collector) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = [b"", b"POST /report HTTP/1.1\r\nHost: x\r\nX-", whole, whole + b"GET /healthz HTTP/1.1\r\nX-"]
    with ThreadPoolExecutor(len(sent)) as pool:
        began = time.monotonic()
        answers = [*pool.map(shared.raw, sent)]
    assert 3 < time.monotonic() - began < 15
    assert [one.count(b"HTTP/1.1 200") for one in answers] == [0, 0, 1, 1]


@pytest.mark.parametrize(("options", "connections"), [([], 100), (["--proxy", "10.0.0.50"], 300)])
def test_one_address_cannot_take_all_connections_unless_it_is_a_proxy(
    tmp_path: Path, options: list[str], connections: int
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    ask = (
        "import requests\n"
        f"headers = {{'Authorization': 'Bearer {TOKEN}', 'X-Forwarded-For': '10.9.9.9'}}\n"
        f"answer = requests.post('http://10.0.0.1:8787/report', json={report(1)}, headers=headers, timeout=20)\n"
        "print(answer.status_code)"
    )
    hold = (  # those that the collector has closed can be read from, at their end
        "import select, socket, time\n"
        "held = [socket.create_connection(('10.0.0.1', 8787), timeout=20) for _ in range(300)]\n"
        "time.sleep(1)\n"
        "print(len(held) - len(select.select(held, [], [], 0)[0]))\n"
    )
    with wire("10.0.0.1/24") as net:
        command = net.at_server(
            *(sys.executable, "-m", "pxe_pack.collector", "--listen", "10.0.0.1:8787"),
            *("--database", f"sqlite:///{tmp_path}/nodes.db", "--token-file", str(tokens), *options),
        )
        output = tmp_path / "output"
        process = Process(command=command, is_ready=lambda: "listening" in output.read_text(), output=output)
        with running(process):
            assert net.run(net.at_node(sys.executable, "-c", ask)) == "204\n"
            with sqlite3.connect(tmp_path / "nodes.db", timeout=20) as database:
                ((address,),) = database.execute("SELECT address FROM nodes").fetchall()
            assert address == ("10.9.9.9" if options else "10.0.0.50")
            assert net.run(net.at_node(sys.executable, "-c", hold)) == f"{connections}\n"
            assert net.run(net.at_server(sys.executable, "-c", ask)) == "204\n"


@pytest.mark.parametrize(
    ("tokens", "expected"), [("short", "fewer than 16 characters"), ("", "is empty"), ("a b c", "neither")]
)
def test_token_file_that_is_no_good_is_said(tmp_path: Path, tokens: str, expected: str) -> None:
    with pytest.raises(AssertionError, match=expected), collector(tmp_path / "c", tokens=tokens):
        pass


def test_https_is_served_with_the_certificate_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("collector", alternative="IP:127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    tls = ["--tls-cert", str(issued.certificate), "--tls-key", str(issued.key)]
    with collector(tmp_path / "c", *tls) as collecting:
        assert collecting.url.startswith("https://")
        assert collecting.post(report(1, phase="done")).status_code == 204
        assert collecting.nodes()["node1"]["state"] == "done"
    for wrong in (tls[2:], ["--tls-cert", "absent.pem", *tls[2:]]):
        with pytest.raises(AssertionError, match=r"collector: (https cannot be|--tls-key is)"):
            collector(tmp_path / "c", *wrong).__enter__()


def test_port_that_is_taken_is_said(shared: Collector, tmp_path: Path) -> None:
    taken = shared.url.removeprefix("http://")
    with pytest.raises(AssertionError, match="cannot listen at"), collector(tmp_path / "c", listen=taken):
        pass


def test_collector_is_a_program_that_says_which_library_is_missing() -> None:
    program = Path(sys.executable).with_name("pxe-pack-collector")
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("usage: pxe-pack-collector ")
    without = f"import runpy, sys; sys.modules['uvicorn'] = None; runpy.run_path({str(program)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("collector: uvicorn is not installed; install '.[serve]'")


def test_collector_without_a_token_needs_logs_to_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pxe_pack.collector", "--database", f"sqlite:///{tmp_path}/nodes.db"]
    done = subprocess.run([*command, "--listen", "127.0.0.1:0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no token is known: give --token-file, or a --layout that was packed with `report: auto`" in done.stderr
