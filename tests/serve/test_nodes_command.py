"""`pxe-pack nodes`: what the page shows, in the shell."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes import ports
from fakes.collector import Collector, collector, mac_of, report
from fakes.server import Script, Server
from pxe_pack import cli


def nodes(collecting: Collector, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pxe_pack", "nodes", "--url", collecting.url, *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """Three nodes: one done, one that fetches, one that has failed."""
    with collector(tmp_path_factory.mktemp("collector")) as collecting:
        for number, phase in ((1, "done"), (2, "fetching"), (3, "failed")):
            collecting.post(report(number, phase=phase))
        yield collecting


def test_nodes_are_listed_with_the_failed_ones_first_and_the_exit_code_is_3(fleet: Collector) -> None:
    listed = nodes(fleet)
    assert listed.returncode == 3
    first, second, third, summary, _, advice = listed.stdout.splitlines()
    assert first.split()[:3] == ["node3", "failed", "artifacts"]
    assert first.endswith("model: the server answered 503")
    assert second.split()[:5] == ["node2", "fetching", "artifacts", "70", "%"]
    assert third.split()[:3] == ["node1", "done", "done"]
    assert summary == "3 nodes: 1 failed, 1 fetching, 1 done"
    assert advice.startswith("node3: No server could be reached, or none had the file.")


def test_nodes_that_have_the_same_name_are_told_apart_by_their_mac_addresses(collecting: Collector) -> None:
    for number in (1, 2):
        node = {"hostname": "liveos", "arch": "x86_64", "mac": mac_of(number)}
        collecting.post(report(number, phase="done", node=node))
    lines = nodes(collecting).stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == [f"liveos ({mac_of(number)})" for number in (1, 2)]


def test_nodes_are_chosen_by_failure_and_by_stage(fleet: Collector) -> None:
    chosen = nodes(fleet, "--stage", "done", "--json")
    assert chosen.returncode == 0
    found = json.loads(chosen.stdout.splitlines()[-1])
    assert [one["name"] for one in found["nodes"]] == ["node1"]
    assert found["summary"]["states"]["failed"] == 1
    failed = nodes(fleet, "--failed")
    assert failed.returncode == 3
    assert [line.split()[0] for line in failed.stdout.splitlines() if line] == ["node3", "3", "node3:"]


def test_wait_ends_when_so_many_nodes_have_ended_or_the_time_is_over(collecting: Collector) -> None:
    def boot() -> None:
        for number in (1, 2):
            time.sleep(0.5)
            collecting.post(report(number, phase="done"))

    thread = threading.Thread(target=boot)
    thread.start()
    assert nodes(collecting, "--wait", "2", "--timeout", "30s").returncode == 0
    thread.join()
    late = nodes(collecting, "--wait", "3", "--timeout", "100ms")
    assert late.returncode == 1
    assert "2 of 3 nodes are done or have failed" in late.stderr


def test_wait_outlasts_a_restart_of_the_collector(tmp_path: Path) -> None:
    with collector(tmp_path, listen=f"127.0.0.1:{ports.free()}") as collecting:
        collecting.post(report(1, phase="done"))
        command = [sys.executable, "-m", "pxe_pack", "nodes", "--url", collecting.url, "--wait", "2", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
            assert waiting.stdout
            assert any('"event": "progress"' in line for line in waiting.stdout)  # it has asked
            collecting.process.kill()
            time.sleep(2.5)  # it asks each second
            assert waiting.poll() is None
            collecting.restart()
            collecting.post(report(2, phase="done"))
            last = waiting.stdout.readlines()[-1]
        assert waiting.returncode == 0
        assert json.loads(last)["summary"]["states"]["done"] == 2


def test_more_nodes_than_a_page_has_are_all_listed(collecting: Collector) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = pool.map(lambda number: collecting.post(report(number, phase="done")).status_code, range(1, 1102))
        assert {*answers} == {204}
    assert len(nodes(collecting).stdout.splitlines()) == 1102


@pytest.mark.parametrize("text", ["correct horse battery\n", "ein paar schöne Wörter\n"])
def test_password_is_read_from_a_file_and_its_lack_is_said(tmp_path: Path, text: str) -> None:
    password = tmp_path / "password"
    password.write_text(text)
    with collector(tmp_path / "c", "--password-file", str(password)) as collecting:
        refused = nodes(collecting)
        assert refused.returncode == 2
        assert "--password-file" in refused.stderr
        assert nodes(collecting, "--password-file", str(password)).returncode == 0
        for wrong, why in ((b"\xff\xfe", "not text in UTF-8"), (b"two\nlines\n", "one line"), (b"", "one line")):
            password.write_bytes(wrong)
            said = nodes(collecting, "--password-file", str(password))
            assert (said.returncode, why in said.stderr, "Traceback" in said.stderr) == (2, True, False), said.stderr


ODD = [b"{}", b"[1]", b'{"states": 1, "total": 2}', b"<html>", b"\xff\xfe", b"[" * 100_000, b"9" * 5000]


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_url_of_something_else_is_said(capsys: pytest.CaptureFixture[str], body: bytes) -> None:
    with Server({f"/api/{name}": Script(body=body) for name in ("summary", "nodes")}) as other:
        assert cli.main(["nodes", "--url", other.url("/")]) == 2
        assert "is not a collector" in capsys.readouterr().err
        assert cli.main(["nodes", "--wait", "1", "--url", other.url("/")]) == 2
        assert "is not a collector" in capsys.readouterr().err


def test_password_in_the_url_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nodes", "--url", f"http://u:s3cret@127.0.0.1:{ports.free()}/"]) == 1
    said = capsys.readouterr().err
    assert "no collector answers at http://127.0.0.1:" in said
    assert "s3cret" not in said


def test_words_that_are_no_url_and_no_number_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("foo", "ftp://h/", "http://"):
        assert cli.main(["nodes", "--url", url]) == 2
        assert "is not an http URL" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["nodes", "--wait", "²"])
    assert "² is not a number from 1" in capsys.readouterr().err


def test_collector_that_does_not_answer_is_said(collecting: Collector) -> None:
    collecting.process.kill()
    silent = nodes(collecting)
    assert silent.returncode == 1
    assert "no collector answers" in silent.stderr
    assert "Traceback" not in silent.stderr
