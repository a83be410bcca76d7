"""The state file while a run goes on and after it, and `pxe-fetch status`."""

from __future__ import annotations

import json
import random
import signal
import time

import pxe_fetch
from fakes.faults import Flip, stall
from fakes.node import FakeNode
from fakes.server import Script, Server

BODY = random.Random(1).randbytes(100_000)
RUN_KEYS = {
    "version", "run", "phase", "final", "exit_code", "cause", "message", "config", "node", "agent", "started",
    "seconds", "failures", "artifacts",
}  # fmt: skip
ARTIFACT_KEYS = {
    "name", "dest", "phase", "required", "bytes", "total", "bytes_received", "attempts", "url", "sha256", "seconds",
    "error", "cause",
}  # fmt: skip


def test_state_has_the_keys_that_the_packager_reads(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m?key=1"), BODY, size=len(BODY)))
        url = server.url("/m")
    assert set(ran.state) == RUN_KEYS
    assert set(ran.artifact("m")) == ARTIFACT_KEYS
    assert ran.state["version"] == 1
    assert ran.state["agent"] == pxe_fetch.__version__
    assert len(str(ran.state["run"])) == 32
    assert (ran.state["phase"], ran.state["exit_code"], ran.state["cause"]) == ("done", 0, None)
    assert ran.artifact("m") | {"seconds": 0.0} == {
        "name": "m",
        "dest": str(node.out / "m"),
        "phase": "placed",
        "required": True,
        "bytes": len(BODY),
        "total": len(BODY),
        "bytes_received": len(BODY),
        "attempts": 1,
        "url": url,
        "sha256": node.entry("m", "", BODY)["sha256"],
        "seconds": 0.0,
        "error": None,
        "cause": None,
    }


def test_run_with_nothing_to_do_writes_the_same_keys(node: FakeNode) -> None:
    state = node.run("run").state
    assert set(state) == RUN_KEYS
    assert (state["phase"], state["exit_code"], state["config"], state["artifacts"]) == ("done", 0, {}, [])
    assert node.run("status").out.startswith("done: no configuration found")
    assert node.run("status", "--wait").code == 0


def test_artifacts_stand_in_the_order_of_the_configuration(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        entries = [
            node.entry("c", server.url("/m"), BODY),
            node.entry("a", server.url("/m"), BODY, when={"arch": "none"}),
            node.entry("d", server.url("/m"), BODY, required=False, owner="no-such-user"),
            node.entry("b", server.url("/m"), BODY),
        ]
        ran = node.run_config(*entries)
    artifacts = ran.state["artifacts"]
    assert isinstance(artifacts, list)
    assert [one["name"] for one in artifacts] == ["c", "a", "d", "b"]


def test_state_tells_progress_while_the_run_goes_on_and_wait_sees_its_end(node: FakeNode) -> None:
    file = node.folder / "fetch.yaml"
    with Server({"/m": Script(body=BODY, faults=[stall(0.5)])}) as server:
        timeouts = {"read": "20s"}
        file.write_text(node.config(node.entry("m", server.url("/m"), BODY, size=len(BODY), timeouts=timeouts)))
        process = node.start("run", "--config", str(file))
        while node.state().get("phase") != "fetching" or not server.sent("/m"):
            assert process.poll() is None
            time.sleep(0.02)
        waiting = node.start("status", "--wait", "--json")
        running = node.run("status")
        assert running.code == 0
        assert running.out.startswith("fetching\n")
        assert "m  " in running.out
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        out, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 75, err
    assert json.loads(out)["phase"] == "failed"
    assert json.loads(out)["cause"] == "stopped"


def test_status_shows_each_artifact_and_why_one_is_missing(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY), "/bad": Script(body=BODY, then=Flip())}) as server:
        node.run_config(
            node.entry("m", server.url("/m"), BODY),
            node.entry("bad", server.url("/bad"), BODY, required=False),
        )
    shown = node.run("status")
    assert shown.code == 0
    assert "bad (optional)  failed" in shown.out
    assert "integrity: wrong sha256" in shown.out
    assert f"{node.out}/m" in shown.out
    assert node.run("status", "--wait").code == 2
    assert json.loads(node.run("status", "--json").out) == node.state()


def test_status_before_any_run_says_so(node: FakeNode) -> None:
    shown = node.run("status")
    assert shown.code == 1
    assert "no run has been recorded" in shown.err
    assert shown.out == ""


def test_status_of_a_damaged_state_says_that_there_is_none(node: FakeNode) -> None:
    for text in ("", "{", "[]", '{"version": 2}', '{"version": 1}'):
        node.state_file.parent.mkdir(exist_ok=True)
        node.state_file.write_text(text)
        assert node.run("status").code == 1


def test_failed_runs_in_a_row_are_counted(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, faults=[Flip()] * 2 * 2)}) as server:
        entry = node.entry("m", server.url("/m"), BODY)
        assert [node.run_config(entry).state["failures"] for _ in range(3)] == [1, 2, 0]
    document = node.state() | {"phase": "fetching", "exit_code": None, "failures": 3}
    node.state_file.write_text(json.dumps(document))  # what kill -9 leaves
    node.boot_with("pxe-fetch=maybe")
    assert node.run("run").state["failures"] == 5


def test_state_that_cannot_be_written_fails_nothing(node: FakeNode) -> None:
    node.state_file.parent.write_text("a file where the folder should be")
    with Server({"/m": Script(body=BODY)}) as server:
        file = node.folder / "fetch.yaml"
        file.write_text(node.config(node.entry("m", server.url("/m"), BODY)))
        process = node.start("run", "--config", str(file))
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert (node.out / "m").read_bytes() == BODY
