"""What systemd is asked to do, seen by a systemctl that writes down its arguments; and when it runs the agent."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from fakes.faults import Status
from fakes.node import FakeNode, Ran
from fakes.server import Script, Server
from pxe_fetch.systemctl import environment

BODY = random.Random(1).randbytes(5_000)


def as_service(node: FakeNode) -> None:
    """Have the runs take place as systemd's."""
    node.environment.update(INVOCATION_ID="a" * 32, NOTIFY_SOCKET="/nobody/listens")


def test_units_are_started_once_their_artifact_is_in_place(node: FakeNode) -> None:
    node.give_systemctl()
    with Server({"/m": Script(body=BODY), "/bad": Script(then=Status(403))}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY, start=["app.service", "other.target"]),
            node.entry("n", server.url("/bad"), BODY, start="never.service", required=False),
        )
    assert ran.code == 2
    assert node.systemctl() == [
        f"--no-block --no-ask-password start {unit}" for unit in ("app.service", "other.target")
    ]


def test_units_are_started_too_where_the_artifact_is_in_place_already(node: FakeNode) -> None:
    node.give_systemctl()
    with Server({"/m": Script(body=BODY)}) as server:
        config = node.entry("m", server.url("/m"), BODY, start="app.service")
        assert node.run_config(config).artifact("m")["phase"] == "placed"
        assert node.run_config(config).artifact("m")["phase"] == "kept"
    assert node.systemctl() == ["--no-block --no-ask-password start app.service"] * 2


def test_unit_that_cannot_be_started_is_a_remark_and_not_the_artifacts_failure(node: FakeNode) -> None:
    node.give_systemctl(fails=True)
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start="app.service"))
    assert ran.code == 0
    assert "m: app.service could not be started" in ran.err
    assert "Unit not found." in ran.err


def test_unit_that_has_failed_by_the_end_is_a_remark_and_not_the_artifacts_failure(node: FakeNode) -> None:
    node.give_systemctl(states="active failed")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start=["good.service", "bad.service"]))
    assert ran.code == 0
    assert "m: bad.service was started, and has failed: see systemctl status bad.service\n" in ran.err
    assert "good.service" not in ran.err


def test_node_without_systemctl_says_so(node: FakeNode) -> None:
    node.environment["PATH"] = str(node.folder)
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start="app.service"))
    assert ran.code == 0
    assert "this node has no systemctl" in ran.err


def fail(node: FakeNode, code: int, **others: object) -> Ran:
    with Server({"/m": Script(then=Status(code))}) as server:
        return node.run_config(node.entry("m", server.url("/m"), BODY), **others)


def test_final_failure_has_its_action_at_once(node: FakeNode) -> None:
    node.give_systemctl()
    as_service(node)
    assert fail(node, 403, on_failure="emergency").code == 77
    assert node.systemctl() == ["--no-block --no-ask-password isolate emergency.target"]


def test_failure_that_the_unit_restarts_on_has_its_action_after_the_last_run(node: FakeNode) -> None:
    node.give_systemctl()
    as_service(node)
    for _ in range(5):
        assert fail(node, 500, on_failure="reboot").code == 69
        assert node.systemctl() == []
    ran = fail(node, 500, on_failure="reboot")
    assert ran.state["failures"] == 6
    assert node.systemctl() == ["--no-block --no-ask-password reboot"]


def test_person_who_tries_a_configuration_keeps_the_machine(node: FakeNode) -> None:
    node.give_systemctl()
    assert fail(node, 403, on_failure="poweroff").code == 77
    assert node.systemctl() == []


def test_degraded_run_has_no_action(node: FakeNode) -> None:
    node.give_systemctl()
    as_service(node)
    with Server({"/m": Script(then=Status(403))}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, required=False), on_failure="poweroff")
    assert ran.code == 2
    assert node.systemctl() == []
    assert json.loads(node.state_file.read_text())["failures"] == 0


def test_children_get_the_library_path_that_the_frozen_agent_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment({"LD_LIBRARY_PATH": "/opt/lib"}) == {"LD_LIBRARY_PATH": "/opt/lib"}
    monkeypatch.setattr("sys.frozen", True, raising=False)
    ours = {"A": "1", "LD_LIBRARY_PATH": "/usr/lib/pxe-fetch/_internal"}
    assert environment(ours) == {"A": "1"}
    assert environment(ours | {"LD_LIBRARY_PATH_ORIG": "/opt/lib"}) == {"A": "1", "LD_LIBRARY_PATH": "/opt/lib"}


@pytest.mark.parametrize(
    ("arguments", "is_run"),
    [
        ("quiet pxe-fetch=off", False),
        ("pxe-fetch=off pxe-fetch=on", False),
        ("quiet", True),
        ("pxe_fetch=off", True),  # the agent decides
        ("pxe-fetch=no", True),
        ("xpxe-fetch=off pxe-fetch.debug", True),
    ],
)
def test_systemd_skips_the_unit_for_the_exact_word_off(arguments: str, *, is_run: bool) -> None:
    unit = (Path(__file__).parents[2] / "units/pxe-fetch.service").read_text()
    (condition,) = re.findall(r"(?m)^ConditionKernelCommandLine=.*$", unit)
    # Instead of /proc/cmdline (ENVIRONMENT.md of systemd).
    environment = os.environ | {"SYSTEMD_PROC_CMDLINE": arguments}
    checked = subprocess.run(["systemd-analyze", "condition", condition], env=environment, check=False)
    assert (checked.returncode == 0) is is_run
