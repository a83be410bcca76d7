"""The state file while a run goes on and after it, and `pxe-fetch status`."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time

import pytest

import pxe_fetch
from fakes.faults import Flip, Serve, redirect, stall
from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.problem import is_shown

BODY = random.Random(1).randbytes(100_000)
RUN_KEYS = {
    "version", "run", "phase", "final", "exit_code", "cause", "message", "config", "node", "agent", "started",
    "seconds", "failures", "artifacts", "units",
}  # fmt: skip
ARTIFACT_KEYS = {
    "name", "dest", "phase", "required", "bytes", "total", "bytes_received", "attempts", "url", "sha256", "seconds",
    "error", "cause", "final_url", "remark", "oci",
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
        "final_url": None,
        "remark": None,
        "oci": None,
    }


def test_state_says_where_redirects_led_to_and_what_is_odd_about_the_answer(node: FakeNode) -> None:
    scripts = {
        "/latest": Script(then=redirect("/m?signature=secret")),
        "/m": Script(body=BODY, then=Serve(fields={"Content-Type": "text/html"})),
    }
    with Server(scripts) as server:
        ran = node.run_config(node.entry("m", server.url("/latest"), BODY))
        assert (ran.artifact("m")["url"], ran.artifact("m")["final_url"]) == (server.url("/latest"), server.url("/m"))
    assert str(ran.artifact("m")["remark"]).startswith("sent as text/html")


def test_state_has_no_control_characters_of_a_server(node: FakeNode) -> None:
    fields = {"Content-Encoding": "\x1b[31m\x07\x9b\xad", "Content-Type": "text/html\x1b[31m"}
    with Server({"/m": Script(body=BODY, then=Serve(fields=fields))}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY))
    assert str(ran.artifact("m")["remark"]).startswith("sent with Content-Encoding")
    assert is_shown(str(ran.artifact("m")["remark"]))


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


GOOD = {
    "version": 1, "run": "r", "phase": "done", "final": True, "exit_code": 0, "cause": None, "message": "fine",
    "config": {"path_or_url": "f", "source": "etc"}, "node": {"hostname": "n"}, "agent": "1", "started": "today",
    "seconds": 1.5, "failures": 0, "units": [],
    "artifacts": [{
        "name": "m", "dest": "/m", "phase": "placed", "required": True, "bytes": 5, "total": 5, "bytes_received": 5,
        "attempts": 1, "url": "http://h/m", "sha256": None, "seconds": 0.5, "error": None, "cause": None,
    }],
}  # fmt: skip
HALF = json.dumps(GOOD)[:200]


def changed(**values: object) -> str:
    """The text of a good state with other values; `artifact` has those of its artifact."""
    artifact = values.pop("artifact", {})
    assert isinstance(artifact, dict)
    return json.dumps(GOOD | {"artifacts": [GOOD["artifacts"][0] | artifact]} | values)  # type: ignore[index]


DAMAGED = [
    "", "{", "[]", "null", '{"version": 2}', '{"version": 1}', HALF, "[" * 100_000, '{"a":' * 100_000,
    "\x00" * 5000, '{"version": 1, "phase": 1' + "0" * 5000 + "}", changed(phase=["done"]), changed(phase="dones"),
    changed(message=5), changed(config=[]), changed(node=["a"]), changed(artifacts={}), changed(artifacts=[5]),
    changed(artifacts=[[]]), changed(exit_code="0"), changed(exit_code=10**30), changed(exit_code=-1),
    changed(failures=float("inf")), changed(seconds=None), changed(seconds=float("inf")), changed(units=[{}]),
    changed(units=5), changed(artifact={"bytes": "many"}), changed(artifact={"bytes": 10**400}),
    changed(artifact={"seconds": float("nan"), "total": []}),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_status_of_a_damaged_state_is_a_sentence(node: FakeNode, text: str, options: tuple[str, ...]) -> None:
    node.state_file.parent.mkdir()
    node.state_file.write_text(text)
    shown = node.run("status", *options)
    assert (shown.code, shown.out) == (1, "")
    assert re.fullmatch(r"pxe-fetch: .*damaged.*\n", shown.err)
    assert len(shown.err) < 400


# Not ru_maxrss, which a child inherits from the process that started it.
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (200_000_000, 200_000_000))\n"


@pytest.mark.parametrize("piece", ["[],", '{"a":[]},', "1.5,", '"ab",', "[[[[[[[[[[]]]]]]]]]],"])
def test_a_damaged_state_takes_little_memory(node: FakeNode, piece: str) -> None:
    """One of just under 64 MiB took 1.3 GB."""
    node.state_file.parent.mkdir()
    begin, end = changed(artifacts=["here"]).split('"here"')
    count = ((8 << 20) - len(begin) - len(end) - 1) // len(piece)
    node.state_file.write_text(f"{begin}{(piece * count)[:-1]}{end}")
    process = node.start("status", before=LIMITED)
    _, told = process.communicate(timeout=60)
    assert "damaged" in told
    assert process.returncode == 1


def test_the_state_of_the_largest_configuration_is_read(node: FakeNode) -> None:
    """1 MiB has about 9,500 artifacts, each with a digest, as short as it can be."""
    failed = {"phase": "failed", "error": "cannot connect to 10.0.0.1: Connection refused; " * 2, "cause": "network"}
    artifact = {**GOOD["artifacts"][0], **failed, "sha256": "0" * 64}  # type: ignore[index]
    many = [artifact | {"name": f"artifact-{n:05}", "dest": f"/srv/files/{n:05}"} for n in range(9500)]
    node.state_file.parent.mkdir()
    node.state_file.write_text(changed(artifacts=many, phase="failed", exit_code=69))
    shown = node.run("status")
    assert shown.code == 0, shown.err
    assert shown.out.count("/srv/files/") == 9500


def test_status_takes_only_a_file_of_a_run_for_its_state(node: FakeNode) -> None:
    file = node.state_file
    file.parent.mkdir()

    def complaint() -> str:
        process = node.start("status", "--wait")
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (1, "")
        file.rmdir() if file.is_dir() else file.unlink()
        return err

    file.symlink_to("/dev/zero")
    assert "is a symbolic link" in complaint()
    os.mkfifo(file)
    assert "is not a regular file" in complaint()
    file.mkdir()
    assert "is not a regular file" in complaint()
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    assert f"is larger than {8 << 20} bytes" in complaint()
    if os.geteuid() == 0:
        file.write_text(changed())
        os.chown(file, 12345, 12345)
        assert "belongs to another user (uid 12345)" in complaint()


def test_status_shows_no_control_characters_of_a_state(node: FakeNode) -> None:
    node.state_file.parent.mkdir()
    evil = "a\x1b]0;b\x07\r\n\u202ec\ud800"
    unit = {"name": evil, "artifact": evil, "required": True, "result": evil, "message": evil, "seconds": 1}
    artifact = {"name": evil, "dest": evil, "phase": evil, "error": evil, "cause": evil}
    node.state_file.write_text(
        changed(message=evil, config={"path_or_url": evil}, node={"a": evil}, units=[unit], artifact=artifact)
    )
    shown = node.run("status")
    assert shown.code == 0
    assert all(line.isprintable() for line in shown.out.removesuffix("\n").split("\n"))
    assert len(shown.out.splitlines()) == 12


@pytest.mark.parametrize("text", DAMAGED)
def test_run_that_finds_a_damaged_state_ends_as_any_other(node: FakeNode, text: str) -> None:
    node.state_file.parent.mkdir()
    node.state_file.write_text(text)
    ran = node.run("run")
    assert (ran.code, ran.state["phase"], ran.state["failures"]) == (0, "done", 0)


def test_run_that_finds_a_damaged_state_says_that_it_starts_afresh(node: FakeNode) -> None:
    node.state_file.parent.mkdir()
    node.state_file.write_text(HALF)
    (node.state_file.parent / "state.json.new").symlink_to("/dev/full")
    ran = node.run("run")
    assert ran.code == 0
    assert f"{node.state_file} is damaged: it is not a JSON document; starting afresh\n" in ran.err
    assert ran.state["phase"] == "done"
    assert "damaged" not in node.run("run").err


def test_state_of_an_earlier_run_does_not_outlive_one_that_cannot_write_its_own(node: FakeNode) -> None:
    assert node.run("run").state["phase"] == "done"
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"  # as a full disk
    process = node.start("run", before=limited)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert list(node.state_file.parent.iterdir()) == []


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
