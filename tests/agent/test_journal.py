"""What the journal, systemd and the console are told."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fakes.faults import Flip, cut, stall, unavailable
from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.paths import MessageId
from pxe_fetch.reporting import journal
from pxe_fetch.reporting.journal import notify

BODY = random.Random(1).randbytes(50_000)
UNITS = Path(__file__).parents[2] / "units"


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Every entry as journald would get it: the fields that are handed to libsystemd."""
    sent: list[dict[str, str]] = []

    def keep(entry: Mapping[str, str]) -> bool:
        sent.append(dict(entry))
        return True

    monkeypatch.setattr(journal, "_is_connected_to_journald", lambda _: True)
    monkeypatch.setattr(journal, "send_to_journald", keep)
    return sent


@pytest.fixture
def service_manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        yield listener


def received(listener: socket.socket) -> list[str]:
    """Every assignment that has come."""
    return [line for datagram in datagrams(listener) for line in datagram.decode().splitlines()]


def datagrams(listener: socket.socket) -> list[bytes]:
    """Every message that has come."""
    listener.setblocking(False)
    found: list[bytes] = []
    while True:
        try:
            found.append(listener.recv(1 << 20))
        except BlockingIOError:
            return found


def test_each_event_has_its_message_id_and_typed_fields(node: FakeNode, entries: list[dict[str, str]]) -> None:
    good = Script(body=BODY, faults=[unavailable(), cut(0.5)])
    with Server({"/m": good, "/bad": Script(body=BODY, then=Flip())}) as server:
        retry = {"attempts_without_progress": 5, "base": "1ms"}
        ran = node.run_config(
            node.entry("m", server.url("/m?secret=1"), BODY, size=len(BODY), retry=retry),
            node.entry("bad", server.url("/bad"), BODY, required=False),
            parallel=1,  # a 503 while another stream is served would be the server's limit, which is no failure
        )
        url = server.url("/m")
    assert ran.code == 2
    by_id: dict[str, list[dict[str, str]]] = {}
    for entry in entries:
        by_id.setdefault(entry["MESSAGE_ID"], []).append(entry)
        assert entry["SYSLOG_IDENTIFIER"] == "pxe-fetch"
        assert entry["PXE_FETCH_RUN"] == ran.state["run"]
        assert "secret" not in str(entry)
        assert "\n" not in entry["MESSAGE"]
    assert entries[0]["MESSAGE_ID"] == MessageId.CONFIG_FOUND
    assert entries[-1]["MESSAGE_ID"] == MessageId.DONE
    (first, second) = (one for one in by_id[MessageId.RETRYING] if one["PXE_FETCH_ARTIFACT"] == "m")
    assert first["PXE_FETCH_HTTP_STATUS"] == "503"
    assert first["PXE_FETCH_ATTEMPT"] == "1"
    assert int(first["PXE_FETCH_NEXT_RETRY_MS"]) >= 0
    assert first["PRIORITY"] == "4"
    assert "PXE_FETCH_HTTP_STATUS" not in second
    (resumed,) = by_id[MessageId.RESUMED]
    assert resumed["PXE_FETCH_BYTES"] == str(len(BODY) // 2)
    assert resumed["PXE_FETCH_TOTAL"] == str(len(BODY))
    (verified,) = by_id[MessageId.VERIFIED]
    (placed,) = by_id[MessageId.PLACED]
    assert verified["PXE_FETCH_SHA256"] == placed["PXE_FETCH_SHA256"] == ran.artifact("m")["sha256"]
    assert placed["PXE_FETCH_URL"] == url
    assert placed["PXE_FETCH_PHASE"] == "placed"
    (failed,) = by_id[MessageId.FAILED]
    assert failed["PXE_FETCH_ARTIFACT"] == "bad"
    assert "wrong sha256" in failed["PXE_FETCH_ERROR"]


def test_entries_go_to_stderr_with_a_priority_where_there_is_no_journal(
    node: FakeNode, service_manager: socket.socket
) -> None:
    terminal = node.write("dev/console", "")
    node.environment["INVOCATION_ID"] = "f" * 32
    node.environment["NOTIFY_SOCKET"] = service_manager.getsockname()
    with Server({"/m": Script(body=BODY, faults=[unavailable()])}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY))
    assert ran.code == 0
    assert ran.state["run"] == "f" * 32
    lines = ran.err.splitlines()
    assert all(re.match(r"<[3-6]>\S", line) for line in lines)
    assert any(line.startswith("<4>m: attempt 1 at ") for line in lines)
    assert lines[-1].startswith("<6>done: 1 artifact in place")
    if os.geteuid() == 0:
        assert re.fullmatch(r"\npxe-fetch: done: 1 artifact in place.*\n", terminal.read_text())
        assert ran.out == ""


def test_each_problem_of_a_configuration_is_an_entry_of_its_own(node: FakeNode, entries: list[dict[str, str]]) -> None:
    node.write(
        "/etc/pxe-fetch/fetch.yaml", "version: 1\nartifacts:\n  - {name: m, url: m, sha256: beef, dest: /etc/x}\n"
    )
    assert node.run("run").code == 65
    problems = [entry for entry in entries if entry["MESSAGE_ID"] == MessageId.FAILED]
    assert [entry["PXE_FETCH_ERROR"] for entry in problems[:-1]] == ["checksum-invalid", "dest-outside-roots"]
    assert "fetch.yaml:3:31: " in problems[0]["MESSAGE"]
    assert "(hint: `sha256sum FILE` prints it" in problems[0]["MESSAGE"]
    assert problems[-1]["MESSAGE"].startswith("failed: ")


def test_ready_is_sent_when_the_artifacts_are_in_place(node: FakeNode, service_manager: socket.socket) -> None:
    node.environment["NOTIFY_SOCKET"] = service_manager.getsockname()
    with Server({"/m": Script(body=BODY)}) as server:
        assert node.run_config(node.entry("m", server.url("/m"), BODY)).code == 0
        assert "READY=1" in received(service_manager)
        assert node.run_config(node.entry("n", server.url("/none"), BODY, required=False)).code == 2
        assert "READY=1" in received(service_manager)
        assert node.run_config(node.entry("n", server.url("/none"), BODY)).code == 69
        lines = received(service_manager)
    assert "READY=1" not in lines
    assert any(line.startswith("STATUS=n: ") for line in lines)


def test_ready_reaches_systemd_however_many_optional_artifacts_failed(
    node: FakeNode, service_manager: socket.socket
) -> None:
    node.environment["NOTIFY_SOCKET"] = service_manager.getsockname()
    names = [f"optional-{number:03}" for number in range(120)]
    with Server() as server:
        entries = [node.entry(name, server.url(f"/{'long' * 20}/{name}"), BODY, required=False) for name in names]
        ran = node.run_config(*entries)
    assert ran.code == 2
    assert "optional-007: " in ran.out
    assert ran.out.endswith("; and 112 others\n")
    assert all(f"{name}: failed: " in ran.err for name in names)
    last = [line for line in datagrams(service_manager) if line.startswith(b"READY=1\n")]
    assert len(last) == 1
    assert len(last[0]) < 4096  # systemd ignores longer ones


def test_message_of_several_lines_tells_systemd_nothing_else(
    service_manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", service_manager.getsockname())
    assert notify("STATUS=one\nMAINPID=1\u2028two\ud800" + "\u00e9" * 3000)
    (datagram,) = datagrams(service_manager)
    assert datagram.decode().startswith("STATUS=one MAINPID=1 two?\u00e9")
    assert b"\n" not in datagram


def test_waiting_extends_the_start_timeout(node: FakeNode, service_manager: socket.socket) -> None:
    node.environment["NOTIFY_SOCKET"] = service_manager.getsockname()
    node.boot_with("pxe-fetch.deadline=1300ms")
    with Server({"/m": Script(body=BODY, then=stall(0.5)), "/s": Script(body=BODY)}) as server:
        entries = (node.entry(name, server.url(f"/{name}"), BODY) for name in ("m", "s"))
        assert node.run_config(*entries).code == 75
    lines = received(service_manager)
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in lines)
    assert any(line.startswith("STATUS=") and "1 of 2 artifacts" in line for line in lines)


def test_abstract_notify_socket_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"pxe-fetch-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("READY=1", "STATUS=fine")
        assert listener.recv(100) == b"READY=1\nSTATUS=fine"


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens", "vsock:2:1"])
def test_missing_service_manager_is_no_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_service_that_is_told_to_stop_ends_by_the_signal(node: FakeNode, service_manager: socket.socket) -> None:
    node.environment["INVOCATION_ID"] = "f" * 32
    node.environment["NOTIFY_SOCKET"] = service_manager.getsockname()
    node.boot_with("pxe-fetch.debug")
    with Server({"/m": Script(body=BODY, then=stall(0.5))}) as server:
        file = node.write("fetch.yaml", node.config(node.entry("m", server.url("/m"), BODY)))
        process = node.start("run", "--config", str(file))
        while not server.sent("/m"):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert node.state()["cause"] == "stopped"
    assert "READY=1" not in received(service_manager)


def test_control_characters_of_a_message_do_not_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    out = io.StringIO()
    journal.Journal(stream=out).send("bad\n<0>name\x1b[31m")
    assert out.getvalue() == "pxe-fetch: bad <0>name [31m\n"


def test_text_that_is_no_unicode_costs_nothing() -> None:
    assert journal.send_to_journald({"MESSAGE": "a file called \udcff", "PXE_FETCH_ERROR": "\udcfe"})
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    journal.Journal(stream=out).send("a file called \udcff")
    assert out.buffer.getvalue() == b"pxe-fetch: a file called  \n"


def test_catalog_explains_every_message_id_and_systemd_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    text = (UNITS / "pxe-fetch.catalog").read_text()
    (folder / "pxe-fetch.catalog").write_text(text)
    command = ["journalctl", f"--root={tmp_path}"]
    updated = subprocess.run([*command, "--update-catalog"], capture_output=True, text=True, check=True)
    assert updated.stderr == ""
    listed = subprocess.run([*command, "--list-catalog"], capture_output=True, text=True, check=True).stdout
    ids = {value for name, value in vars(MessageId).items() if name.isupper()}
    assert {line.split()[0] for line in listed.splitlines()} == ids
    known = "ARTIFACT|URL|ATTEMPT|BYTES|TOTAL|SHA256|ERROR|HTTP_STATUS|NEXT_RETRY_MS|PHASE|RUN|UNIT|RESULT"
    assert all(re.fullmatch(f"PXE_FETCH_({known})", name) for name in re.findall(r"@(\w+)@", text))


def test_last_run_is_the_one_after_which_the_unit_starts_no_other() -> None:
    from pxe_fetch.errors import RESTARTED
    from pxe_fetch.run import MAX_FAILURES

    unit = (UNITS / "pxe-fetch.service").read_text()
    assert f"\nStartLimitBurst={MAX_FAILURES}\n" in unit
    (prevented,) = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert not set(map(int, prevented.split())) & RESTARTED
