"""The result told to a URL: each phase, how the run ended, and never at the cost of the run."""

from __future__ import annotations

import json
import random
import signal
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.exchange import Exchange, Fault
from fakes.faults import Hang, Raw, Serve, Status, redirect, stall
from fakes.node import FakeNode
from fakes.server import Script, Server
from fakes.stopwatch import Stopwatch
from fakes.tunnel import Tunnel
from pxe_fetch.reporting import webhook_reporter

BODY = random.Random(1).randbytes(5_000)
NEVER = 3600.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_reporter, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(webhook_reporter, "RETRY_DELAY", 0.01)


@pytest.fixture
def final_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reported while the run goes on."""
    monkeypatch.setattr(webhook_reporter, "POLL_INTERVAL", NEVER)


def told(server: Server, path: str = "/report") -> list[Mapping[str, object]]:
    """The documents that came, in order."""
    return [json.loads(asked.body) for asked in server.asked_for(path)]


def without_journal(document: Mapping[str, object]) -> Mapping[str, object]:
    """The report of a failure as the state file has it."""
    return {key: value for key, value in document.items() if key != "journal"}


def reports(fault: Fault) -> Script:
    """What happens to each report of a run."""
    return Script(faults=[fault] * 1000)


def test_state_is_posted_as_json_at_the_end(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY), "/report": Script()}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY), report={"url": server.url("/report")})
        asked = server.asked_for("/report")[-1]
    assert ran.code == 0
    assert asked.method == "POST"
    assert asked.fields["content-type"] == "application/json"
    assert json.loads(asked.body) == ran.state
    assert ran.state["final"] is True


@dataclass(frozen=True)
class Held:
    """Serves once it is let go."""

    gate: threading.Event = field(default_factory=threading.Event)

    def answer(self, exchange: Exchange) -> None:
        assert self.gate.wait(timeout=20)
        Serve().answer(exchange)


@dataclass(frozen=True)
class Releases:
    """Takes a report, and lets go what waits for an artifact's phase to be reported."""

    waiting: Mapping[tuple[str, str], Held]  # (artifact, phase) -> what waits for it

    def answer(self, exchange: Exchange) -> None:
        for one in json.loads(exchange.asked.body)["artifacts"]:
            if held := self.waiting.get((one["name"], one["phase"])):
                held.gate.set()
        Status(204).answer(exchange)


def test_each_phase_is_reported_as_it_comes_and_the_last_report_alone_is_final(node: FakeNode) -> None:
    first, second = Held(), Held()
    answer = reports(Releases({("a", "waiting"): first, ("a", "placed"): second}))
    scripts = {"/a": Script(body=BODY, then=first), "/b": Script(body=BODY, then=second), "/report": answer}
    with Server(scripts) as server:
        entries = [node.entry(name, server.url(f"/{name}"), BODY) for name in ("a", "b")]
        ran = node.run_config(*entries, report={"url": server.url("/report")})
        documents = told(server)
    assert ran.code == 0
    assert [one["final"] for one in documents] == [False] * (len(documents) - 1) + [True]
    assert len(documents) >= 3
    assert documents[-1] == ran.state
    assert len({asked.connection for asked in server.asked_for("/report")}) == 1


@dataclass(frozen=True)
class Until:
    """Takes a report only when `file` is there."""

    file: Path

    def answer(self, exchange: Exchange) -> None:
        until = time.monotonic() + 20
        while not self.file.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        Status(204).answer(exchange)


def test_server_that_is_slow_to_take_a_report_holds_nothing_up_and_is_told_less_often(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY), "/report": reports(Until(node.out / "m39"))}) as server:
        entries = [node.entry(f"m{number}", server.url("/m"), BODY) for number in range(40)]
        ran = node.run_config(*entries, parallel=1, report={"url": server.url("/report")})
        documents = told(server)
    assert ran.code == 0
    assert "the report was not delivered" not in ran.err
    assert len(documents) <= 4
    assert documents[-1] == ran.state


@pytest.mark.parametrize("fault", [Status(500), Hang(), Hang(every=0.01)])
def test_report_that_nobody_takes_is_a_remark_and_no_failure(
    node: FakeNode, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_reporter, "FINAL_TIMEOUT", 0.6)
    with Server({"/m": Script(body=BODY), "/report": reports(fault)}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY), report={"url": server.url("/report") + "?token=s3cret"}
        )
    assert ran.code == 0
    assert "the report was not delivered" in ran.err
    assert "s3cret" not in ran.err


@pytest.mark.usefixtures("final_alone")
@pytest.mark.parametrize("fault", [Status(503), Status(429), Raw(b""), Raw(b"nonsense\r\n\r\n")])
def test_last_report_is_made_a_second_time_where_that_may_help(node: FakeNode, fault: Fault) -> None:
    with Server({"/report": Script(faults=[fault, Status(204)])}) as server:
        ran = node.run_config(report={"url": server.url("/report")})
        documents = told(server)
    assert documents == [ran.state, ran.state]
    assert "delivered" not in ran.err


@pytest.mark.usefixtures("final_alone")
@pytest.mark.parametrize("fault", [Status(404), redirect("/elsewhere")])
def test_last_report_is_made_once_where_another_would_end_alike(node: FakeNode, fault: Status) -> None:
    with Server({"/report": reports(fault)}) as server:
        ran = node.run_config(report={"url": server.url("/report")})
        assert [asked.path for asked in server.asked] == ["/report"]
    assert ran.code == 0
    assert f"the report was not delivered: {server.url('/report')} answered {fault.code}\n" in ran.err


def test_url_of_the_command_line_comes_first_and_works_without_a_configuration(node: FakeNode) -> None:
    with Server({"/theirs": Script(), "/ours": Script()}) as server:
        node.boot_with(f"pxe-fetch.report={server.url('/ours')}")
        node.run_config(report={"url": server.url("/theirs")})
        assert not server.asked_for("/theirs")
        node.write("/etc/pxe-fetch/fetch.yaml", "version: 7\n")
        ran = node.run("run")
        documents = [one for one in told(server, "/ours") if one["final"]]
    assert ran.code == 65
    assert [one["phase"] for one in documents] == ["done", "failed"]
    assert documents[1]["exit_code"] == 65


def test_facts_are_filled_into_the_url(node: FakeNode) -> None:
    node.boot_with('rack="a 7"')
    with Server({"/report/a%207": Script()}) as server:
        ran = node.run_config(report={"url": server.url("/report/${cmdline.rack}")})
        assert told(server, "/report/a%207")[-1] == ran.state


def test_url_whose_fact_is_empty_is_a_remark_and_no_failure(node: FakeNode) -> None:
    ran = node.run_config(report={"url": "http://127.0.0.1/${cmdline.rack}"})
    assert ran.code == 0
    assert "reporting to no URL: ${cmdline.rack} is used, but this node's kernel command line has no rack" in ran.err


def test_report_to_nobody_says_why(node: FakeNode) -> None:
    with Server() as server:
        url = server.url("/report")
    ran = node.run_config(report={"url": url})
    assert ran.code == 0
    refused = f"127.0.0.1:{server.port} refused the connection (two attempts)"
    assert f"the report was not delivered: {url}: {refused}" in ran.err


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("gopher://h/?token=s3cret", "the URL is not one of http or https"),
        ("http://[::1/?token=s3cret", "the URL has an invalid host or port"),
        ("http:///?token=s3cret", "the URL names no host"),
    ],
)
def test_report_url_that_is_none_is_told_without_its_secrets(node: FakeNode, url: str, why: str) -> None:
    node.boot_with(f"pxe-fetch.report={url}")
    ran = node.run("run")
    assert ran.code == 0
    assert "the report was not delivered: " in ran.err
    assert why in ran.err
    assert "s3cret" not in ran.err


def test_report_by_https_trusts_the_sites_authority_and_goes_through_the_proxy(node: FakeNode) -> None:
    authority = Authority(node.folder / "ca")
    issued = authority.issue("localhost", alternative="DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    with Tunnel() as tunnel, Server({"/report": Script()}, tls=context) as server:
        tls = {"ca_file": str(authority.certificate)}
        ran = node.run_config(tls=tls, proxy={"https": tunnel.url}, report={"url": server.url("/report")})
        assert told(server)[-1] == ran.state
        assert tunnel.asked
        stranger = node.run_config(report={"url": server.url("/report")})
    assert stranger.code == 0
    assert "the report was not delivered: " in stranger.err
    assert "not trusted" in stranger.err


def test_run_that_is_told_to_stop_reports_that_too(node: FakeNode) -> None:
    file = node.folder / "fetch.yaml"
    with Server({"/m": Script(body=BODY, then=stall(0.5)), "/report": Script()}) as server:
        entry = node.entry("m", server.url("/m"), BODY)
        file.write_text(node.config(entry, report={"url": server.url("/report")}))
        process = node.start("run", "--config", str(file))
        while not server.sent("/m"):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert without_journal(told(server)[-1]) == node.state()
    assert node.state()["cause"] == "stopped"


@pytest.mark.parametrize("fault", [Hang(), Hang(every=0.01), Status(503)])
def test_report_that_nobody_takes_holds_up_no_stop(node: FakeNode, fault: Fault) -> None:
    file = node.folder / "fetch.yaml"
    with Server({"/m": Script(body=BODY, then=stall(0.5)), "/report": reports(fault)}) as server:
        entry = node.entry("m", server.url("/m"), BODY)
        file.write_text(node.config(entry, report={"url": server.url("/report")}))
        process = node.start("run", "--config", str(file))
        while not server.sent("/m"):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        while node.state().get("phase") != "failed":  # all that is left is the report
            assert process.poll() is None
            time.sleep(0.01)
        with Stopwatch(process.pid) as watch:
            _, err = process.communicate(timeout=20)
        assert watch.seconds < 1.5  # 0.5 s, and the end of a Python program
    assert process.returncode == 75
    assert "the report was not delivered: " in err


def test_final_report_of_a_failure_has_the_last_lines_of_the_journal_and_no_other_has(node: FakeNode) -> None:
    with Server({"/report": reports(Status(204))}) as server:
        entry = node.entry("m", server.url("/absent"), BODY)
        ran = node.run_config(entry, report={"url": server.url("/report")})
        *others, last = told(server)
    assert ran.code == 69
    assert all("journal" not in one for one in others)
    lines = last["journal"]
    assert isinstance(lines, list)
    assert "--config" in lines[0]
    assert "m: failed: " in lines[-1]


def test_lines_of_the_journal_are_cleaned_and_bounded(node: FakeNode) -> None:
    with Server({"/report": reports(Status(204))}) as server:
        entries = [node.entry(f"m{number}", server.url(f"/{'absent/' * 60}"), BODY) for number in range(90)]
        ran = node.run_config(*entries, report={"url": server.url("/report")}, parallel=4)
        assert ran.code == 69, ran.err
        lines = told(server)[-1]["journal"]
    assert isinstance(lines, list)
    assert len(json.dumps(lines)) <= 64 << 10
    assert 10 < len(lines) <= 200
    assert all(line.isprintable() for line in lines)


def test_report_of_a_run_without_a_configuration_says_whose_it_is(node: FakeNode) -> None:
    node.write("sys/class/net/eth0/address", "52:54:00:aa:bb:03\n")
    node.write("sys/class/net/eth0/device/vendor", "0\n")
    with Server({"/report": reports(Status(204))}) as server:
        absent = f"pxe-fetch.config={server.url('/absent.yaml')} pxe-fetch.config.sha256={'0' * 64}"
        node.boot_with(f"{absent} pxe-fetch.report={server.url('/report')} pxe-fetch.deadline=1s")
        assert node.run("run").code != 0
        facts = told(server)[-1]["node"]
    assert isinstance(facts, dict)
    assert facts["mac"] == "52:54:00:aa:bb:03"
