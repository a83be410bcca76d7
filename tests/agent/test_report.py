"""The result told to a URL: at the end, and never at the cost of the run."""

from __future__ import annotations

import json
import random

import pytest

from fakes.faults import Hang, Status
from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.reporting import report

BODY = random.Random(1).randbytes(5_000)


def test_state_is_posted_as_json_at_the_end(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY), "/report": Script()}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY), report={"url": server.url("/report")})
        (asked,) = server.asked_for("/report")
    assert ran.code == 0
    assert asked.method == "POST"
    assert asked.fields["content-type"] == "application/json"
    assert json.loads(asked.body) == ran.state


def test_url_of_the_command_line_comes_first_and_works_without_a_configuration(node: FakeNode) -> None:
    with Server({"/theirs": Script(), "/ours": Script()}) as server:
        node.boot_with(f"pxe-fetch.report={server.url('/ours')}")
        node.run_config(report={"url": server.url("/theirs")})
        assert not server.asked_for("/theirs")
        node.write("/etc/pxe-fetch/fetch.yaml", "version: 7\n")
        ran = node.run("run")
        told = [json.loads(asked.body) for asked in server.asked_for("/ours")]
    assert ran.code == 65
    assert [one["phase"] for one in told] == ["done", "failed"]
    assert told[1]["exit_code"] == 65


@pytest.mark.parametrize("fault", [Status(500), Hang()])
def test_report_that_nobody_takes_is_a_remark_and_no_failure(
    node: FakeNode, fault: Status | Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PATIENCE", 0.3)
    with Server({"/m": Script(body=BODY), "/report": Script(faults=[fault])}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY), report={"url": server.url("/report") + "?token=s3cret"}
        )
    assert ran.code == 0
    assert "the report was not delivered" in ran.err
    assert "s3cret" not in ran.err


def test_report_to_nobody_says_why(node: FakeNode) -> None:
    with Server() as server:
        url = server.url("/report")
    ran = node.run_config(report={"url": url})
    assert ran.code == 0
    assert "Connection refused" in ran.err


def test_report_url_that_is_none_is_told_without_its_secrets(node: FakeNode) -> None:
    node.boot_with("pxe-fetch.report=gopher://h/?token=s3cret")
    ran = node.run("run")
    assert ran.code == 0
    assert "the report was not delivered: gopher://h/" in ran.err
    assert "s3cret" not in ran.err
