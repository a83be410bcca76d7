"""What systemd is asked to do, seen by a systemctl that writes down its arguments; and when it runs the agent."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.faults import Status
from fakes.node import FakeNode, Ran
from fakes.server import Script, Server
from fakes.waiting import PATIENCE, until
from pxe_fetch import systemctl
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
    assert sorted(node.systemctl()) == [f"--no-ask-password start {unit}" for unit in ("app.service", "other.target")]


def test_units_are_started_too_where_the_artifact_is_in_place_already(node: FakeNode) -> None:
    node.give_systemctl()
    with Server({"/m": Script(body=BODY)}) as server:
        config = node.entry("m", server.url("/m"), BODY, start="app.service")
        assert node.run_config(config).artifact("m")["phase"] == "placed"
        assert node.run_config(config).artifact("m")["phase"] == "kept"
    assert node.systemctl() == ["--no-ask-password start app.service"] * 2


def test_unit_that_cannot_be_started_is_a_remark_and_not_the_artifacts_failure(node: FakeNode) -> None:
    node.give_systemctl("echo 'Failed to start: Unit not found.' >&2; exit 5")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start="app.service"))
    assert ran.code == 0
    assert ran.err.count("m: app.service could not be started: Failed to start: Unit not found (") == 1


@pytest.mark.parametrize("name", ["-Hattacker.service", "--force.service"])
def test_name_that_systemctl_would_take_for_an_option_is_65(name: str, node: FakeNode) -> None:
    node.give_systemctl()
    ran = node.run_config(node.entry("m", "http://127.0.0.1:1/m", BODY, start=[name]))
    assert (ran.code, "unit-invalid" in ran.err) == (65, True)
    assert node.systemctl() == []


WITH_FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))\n"
ACTIVE = "ActiveState=active\\nLoadState=loaded\\nActiveEnterTimestampMonotonic=9999999999999\\n\\n"


@pytest.mark.parametrize("error", ["", "echo Unit not found. >&2; exit 5"])
def test_many_units_do_not_take_all_descriptors(error: str, node: FakeNode) -> None:
    node.give_systemctl(
        f'[ $1 = show ] && {{ shift 3; for u; do printf "{ACTIVE}"; done; exit 0; }}; {error or "exit 0"}'
    )
    names = [f"u{index}.service" for index in range(100)]
    with Server({"/m": Script(body=BODY)}) as server:
        file = node.write("fetch.yaml", node.config(node.entry("m", server.url("/m"), BODY, start=names)))
        with node.start("run", "--config", str(file), before=WITH_FEW_FILES) as process:
            _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    units = node.state()["units"]
    assert isinstance(units, list)
    assert {one["name"]: (one["result"], one["message"]) for one in units} == dict.fromkeys(
        names, ("failed", "Unit not found.") if error else ("started", None)
    )


@pytest.mark.parametrize("required", [False, True])
def test_node_without_systemctl_says_so(node: FakeNode, *, required: bool) -> None:
    node.environment["PATH"] = str(node.folder)
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY, start="app.service", start_required=required),
        )
    assert ran.code == (73 if required else 0)
    assert "this node has no systemctl" in ran.err


def test_systemctl_that_stops_answering_ends_the_wait_for_a_required_unit(node: FakeNode) -> None:
    node.give_systemctl("[ $1 = show ] || exit 0; echo 'Failed to get properties: Connection refused' >&2; exit 1")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start="app.service", start_required=True))
    assert (ran.code, ran.state["cause"]) == (73, "unit-failed")
    assert "app.service could not be started: Failed to get properties: Connection refused" in ran.out


@pytest.mark.parametrize("where", ["show", "start"])
def test_systemctl_that_prints_without_end_takes_no_memory(
    where: str, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemctl, "TIMEOUT", 2.0)
    endless = "exec cat /dev/zero" if where == "show" else "exec cat /dev/zero >&2"
    node.give_systemctl(f"[ $1 = show ] && w=show || w=start; [ $w = {where} ] && {endless}; echo ActiveState=inactive")
    tracemalloc.start()
    try:
        with Server({"/m": Script(body=BODY)}) as server:
            ran = node.run_config(node.entry("m", server.url("/m"), BODY, start="app.service", start_required=True))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert ran.code == 73
    assert "did not answer within 2 s" in ran.out


def test_systemctl_whose_child_keeps_its_pipes_open_is_not_waited_for(node: FakeNode) -> None:
    node.give_systemctl("[ $1 = show ] && { echo ActiveState=inactive; exit; }; sleep 7 & echo No. >&2; exit 1")
    began = time.monotonic()
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start="app.service", start_required=True))
    assert time.monotonic() - began < 5
    assert "app.service could not be started: No" in ran.out


def test_what_systemctl_prints_is_shown_as_printable_text_and_odd_numbers_are_none(node: FakeNode) -> None:
    shown = "ActiveState=failed\\nResult=\\033[2J\\nExecMainStatus=x\\nStateChangeTimestampMonotonic=soon\\n"
    node.give_systemctl(f'[ $1 != show ] || printf "{shown}"')
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start="app.service", start_required=True))
    assert ran.code == 73
    assert "result  [2J, exit status x" in ran.out
    assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())


def test_sigterm_ends_the_wait_for_a_required_unit(node: FakeNode) -> None:
    node.give_systemctl("[ $1 = show ] || exec sleep 100; echo ActiveState=activating; echo Job=5")
    with Server({"/m": Script(body=BODY)}) as server:
        entry = node.entry("m", server.url("/m"), BODY, start="app.service", start_required=True)
        file = node.write("fetch.yaml", node.config(entry))
        process = node.start("run", "--config", str(file))
        until(node.systemctl)
        time.sleep(1)
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, node.state()["cause"]) == (75, "stopped"), err


UNITS = {
    "app.service": "[Service]\nExecStart=/bin/sleep 1000\n",
    "app@.service": "[Service]\nExecStart=/bin/sleep 1000%i\n",
    "once.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "slow.service": "[Service]\nType=oneshot\nExecStart=/bin/sleep 2\n",
    "endless.service": "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n",
    "false.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    "gone.service": "[Service]\nExecStart=/no/such/program\n",
    "again.service": "[Service]\nType=oneshot\nExecStart=/bin/false\nRestart=on-failure\nRestartSec=1000\n",
    "late.service": "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\nTimeoutStartSec=200ms\n",
    "odd.service": "[Unit]\nConditionPathExists=/no/such/file\n[Service]\nExecStart=/bin/true\n",
    "picky.service": "[Unit]\nAssertPathExists=/no/such/file\n[Service]\nExecStart=/bin/true\n",
    "needy.service": "[Unit]\nRequires=false.service\nAfter=false.service\n[Service]\nExecStart=/bin/true\n",
    "wanted.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "unwanted.service": "[Unit]\nConditionPathExists=/no/such/file\n[Service]\nExecStart=/bin/true\n",
    "bad.service": "[Service]\nType=simple\n",
    "after.service": "[Unit]\nAfter=pxe-fetch.service\n[Service]\nExecStart=/bin/true\n",
    "pxe-fetch.service": "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n",  # as it is while the agent works
}
MANAGER = """\
set -e
mount -t tmpfs run /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
exec /lib/systemd/systemd --user --log-target=null
"""


@pytest.fixture
def manager(node: FakeNode) -> Iterator[FakeNode]:
    """The node with a real service manager that has UNITS: a user's, below a /run that nobody else sees."""
    folder = node.folder / "config/systemd/user"
    folder.mkdir(parents=True)
    for name, text in UNITS.items():
        (folder / name).write_text(text)
    (folder / "masked.service").symlink_to("/dev/null")
    (folder / "default.target.wants").mkdir()
    for name in ("wanted.service", "unwanted.service"):  # systemd remembers what another unit refers to
        (folder / "default.target.wants" / name).symlink_to(folder / name)
    theirs = {"XDG_RUNTIME_DIR": "/run/user/0", "XDG_CONFIG_HOME": str(node.folder / "config")}
    with subprocess.Popen(["unshare", "-m", "sh", "-c", MANAGER], env=os.environ | theirs) as process:
        ask = f"nsenter -m -t {process.pid} env XDG_RUNTIME_DIR=/run/user/0 /usr/bin/systemctl --user"
        node.give_systemctl(f'exec {ask} "$@"')
        try:
            for _ in range(100):
                if (
                    subprocess.run([*ask.split(), "start", "app.service"], capture_output=True, check=False).returncode
                    == 0
                ):
                    break
                time.sleep(0.1)
            subprocess.run([*ask.split(), "start", "--no-block", "pxe-fetch.service"], check=True)
            yield node
        finally:
            subprocess.run([*ask.split(), "exit"], check=False)
            process.wait(timeout=20)


def units(node: FakeNode, *names: str, code: int = 0, **others: object) -> dict[str, dict[str, object]]:
    """What became of the units `names`, by name, after a run that started them and ended with `code`."""
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, start=list(names), **others))
    assert ran.code == code, ran.err
    assert ran.artifact("m")["phase"] in {"placed", "kept"}
    listed = ran.state["units"]
    assert isinstance(listed, list)
    for unit in listed:
        assert ran.err.count(f"m: {unit['name']} ") == 1
        shown = next(line for line in node.run("status").out.splitlines() if line.startswith(unit["name"]))
        assert shown.split()[1:3] == ["m", unit["result"]]
    return {unit["name"]: unit for unit in listed}


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a /run of its own")


@as_root
def test_state_says_what_became_of_each_unit(manager: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemctl, "SETTLE", 3.0)  # on a busy machine
    names = ["app.service", "app@1.service", "once.service", "endless.service", "false.service", "gone.service"]
    names += ["again.service", "odd.service", "picky.service", "needy.service", "bad.service"]
    names += ["after.service", "masked.service", "no-such.service", "wanted.service", "unwanted.service"]
    found = units(manager, *names)
    assert {name: unit["result"] for name, unit in found.items()} == {
        "app.service": "already-active",
        "app@1.service": "started",
        "once.service": "inactive",
        "endless.service": "starting",
        "false.service": "failed",
        "gone.service": "failed",
        "again.service": "failed",
        "odd.service": "inactive",
        "picky.service": "failed",
        "needy.service": "failed",
        "bad.service": "bad-setting",
        "after.service": "queued",
        "masked.service": "masked",
        "no-such.service": "not-found",
        "wanted.service": "started",
        "unwanted.service": "skipped",
    }
    assert found["no-such.service"]["message"] == "Failed to start no-such.service: Unit no-such.service not found."
    assert str(found["false.service"]["message"]).startswith("Job for false.service failed because the control process")
    assert found["gone.service"]["message"] == "result exit-code, exit status 203"
    assert found["picky.service"]["message"] == "Assertion failed on job for picky.service."
    assert (
        found["needy.service"]["message"]
        == "A dependency job for needy.service failed. See 'journalctl -xe' for details."
    )
    assert found["app@1.service"]["message"] is None
    assert all(isinstance(unit["seconds"], float) for unit in found.values())


@as_root
@pytest.mark.parametrize("name", ["app.service", "slow.service", "odd.service", "after.service"])
def test_required_unit_that_starts_or_may_start_fails_nothing(manager: FakeNode, name: str) -> None:
    expected = {
        "app.service": "already-active",
        "odd.service": "inactive",
        "after.service": "queued",
        "slow.service": "inactive",
    }
    assert units(manager, name, start_required=True)[name]["result"] == expected.get(name, "started")


@as_root
@pytest.mark.parametrize(
    "name", ["no-such.service", "masked.service", "false.service", "needy.service", "late.service"]
)
def test_required_unit_that_does_not_start_fails_the_run_for_good(manager: FakeNode, name: str) -> None:
    assert units(manager, name, code=73, start_required=True)[name]["result"] != "started"
    assert manager.state()["cause"] == "unit-failed"
    assert str(manager.state()["message"]).startswith(f"m: {name} could not be started: ")


@as_root
def test_required_unit_of_an_optional_artifact_degrades_the_run(manager: FakeNode) -> None:
    assert units(manager, "no-such.service", code=2, start_required=True, required=False)


@as_root
def test_wait_for_a_required_unit_ends_with_the_runs_deadline(manager: FakeNode) -> None:
    manager.boot_with("pxe-fetch.deadline=2s")
    found = units(manager, "endless.service", code=73, start_required=True)
    assert found["endless.service"]["message"] == "it had not started when the run's deadline passed"


@as_root
def test_outcome_names_the_units_that_did_not_start(manager: FakeNode) -> None:
    units(manager, "no-such.service", "once.service")
    assert str(manager.state()["message"]).endswith(
        "; no-such.service could not be started: Failed to start no-such.service: Unit no-such.service not found"
    )


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
