"""From a boot's events to the verdict, or the reason why there is none, and how both are shown."""

from __future__ import annotations

import json
from pathlib import Path

from pxe_pack.boot.events import Ended, Event, Events, Report, Requested, Sent, Serial
from pxe_pack.boot.outcome import NodeState, Outcome, as_document, as_text, read_state
from pxe_pack.boot.served_layout import ServedLayout
from pxe_pack.boot.stages import Stage
from pxe_pack.boot.trial import Trial
from pxe_pack.console import PlainConsole

ISO = "http://10.0.0.1/liveos.iso"
MODEL = "http://10.0.0.1/files/m.bin"
STATE: dict[str, object] = {
    "phase": "done",
    "exit_code": 2,
    "cause": None,
    "message": "1 of 2 artifacts in place",
    "config": {"source": "etc", "path_or_url": "/etc/pxe-fetch/fetch.yaml", "sha256": "00"},
    "seconds": 3.5,
    "artifacts": [
        {"name": "model", "dest": "/srv/m.bin", "phase": "placed", "required": True, "bytes": 3 << 20, "total": 3 << 20,
         "bytes_received": 4 << 20, "attempts": 2, "url": MODEL, "sha256": "11", "seconds": 2.25, "error": None},
        {"name": "hints", "dest": "/srv/hints", "phase": "failed", "required": False, "bytes": 0, "total": None,
         "attempts": 3, "url": "http://mirror.lan/hints", "seconds": 1, "error": "answered 404", "cause": "not-found"},
    ],
    "units": [
        {"name": "app.service", "artifact": "model", "required": False, "result": "not-found", "message": "Not found.",
         "seconds": 0.1},
        5,
    ],
}  # fmt: skip


def followed(*happened: Event, timeout: float = 30, keep: bool = False) -> Outcome:
    """The outcome of a boot with these events."""
    layout = ServedLayout(
        root=Path("/nowhere"), tftp=(), http={ISO: "liveos.iso", MODEL: "m.bin"}, iso=ISO, findings=()
    )
    events = Events()
    for event in happened:
        events.put(event)
    trial = Trial(layout, console=PlainConsole())
    stop = trial.follow(events, timeout=timeout, keep=keep)
    trial.close()
    return Outcome(
        node=trial.node,
        console_verdict=trial.watcher.verdict,
        stage=trial.watcher.stage,
        stages=tuple(trial.stages),
        served=tuple(trial.served.values()),
        failure=trial.explain(stop) if stop else None,
        serial_log=Path("pxe.serial.log"),
        accelerator="TCG",
        seconds=trial.seconds,
    )


def test_report_is_the_verdict_and_names_every_artifact() -> None:
    outcome = followed(Serial(text="\npxe-fetch: done 1 of 2\n"), Report(document=STATE))
    assert outcome.node
    assert not outcome.ok, "exit code 2 is not 0"
    assert outcome.failure is None
    text = as_text(outcome)
    assert "exit code 2" in text
    assert "/srv/m.bin" in text
    assert "3.0 MiB" in text
    assert "hints (optional)" in text
    assert "not-found: answered 404" in text
    assert "/etc/pxe-fetch/fetch.yaml (etc)" in text
    assert "unit           app.service: not-found, Not found." in text
    document = as_document(outcome)
    assert document["ok"] is False
    assert json.loads(json.dumps(document))["node"]["units"] == STATE["units"][:1]  # type: ignore[index]


def test_consoles_line_is_the_verdict_when_the_machine_is_off_before_the_report_came() -> None:
    done = followed(Serial(text="\npxe-fetch: done 2 artifacts\n"), Ended(code=0, complaint=""))
    failed = followed(Serial(text="\npxe-fetch: failed model: refused\n"), Ended(code=0, complaint=""))
    assert (done.ok, failed.ok) == (True, False)
    assert "pxe-fetch: failed model: refused" in as_text(failed)


def test_consoles_last_line_counts_for_a_node_that_is_kept() -> None:
    lines = [Serial(text=f"\npxe-fetch: {said}\n") for said in ("failed: note: refused", "done: 2 artifacts")]
    outcome = followed(*lines, Ended(code=0, complaint=""), keep=True)
    assert outcome.ok
    assert "done: 2 artifacts" in as_text(outcome)


def test_last_report_counts_for_a_node_that_is_kept() -> None:
    failed = {**STATE, "phase": "failed", "exit_code": 69}
    both = (Report(document=failed), Report(document={**STATE, "exit_code": 0}), Ended(code=0, complaint=""))
    assert not followed(*both).ok
    assert followed(*both, keep=True).ok


def test_reports_of_a_run_that_goes_on_are_no_verdict_but_say_how_far_it_was() -> None:
    waiting = {"name": "big", "dest": "/srv/big", "phase": "fetching", "bytes": 3 << 20, "error": "10.0.0.1 was silent"}
    early = Report(document={**STATE, "exit_code": None, "phase": "locating", "artifacts": []})
    late = Report(document={**STATE, "exit_code": None, "phase": "fetching", "seconds": 42, "artifacts": [waiting]})
    outcome = followed(early, late, Ended(code=0, complaint=""))
    assert outcome.node is None
    assert outcome.failure
    assert outcome.failure.reference == "boot-stopped-unit"
    assert "last report, 42 s into its run: fetching" in outcome.failure.label
    assert "big: fetching, 3.0 MiB, 10.0.0.1 was silent" in outcome.failure.label


def test_report_on_the_way_that_comes_late_does_not_take_the_verdict_back() -> None:
    late = Report(document={**STATE, "exit_code": None, "phase": "fetching"})
    outcome = followed(Report(document={**STATE, "exit_code": 0}), late, Ended(code=0, complaint=""), keep=True)
    assert outcome.ok


def test_silence_is_explained_by_what_the_node_took_from_the_server() -> None:
    log = Serial(text="[    0.000000] Linux version 6.1\r\n")
    never = followed(log, timeout=0.2)
    assert (never.stage, never.failure and never.failure.reference) == (Stage.KERNEL, "boot-stopped-kernel")
    half = followed(log, Requested(method="GET", url=ISO, status=200), Sent(url=ISO, amount=5 << 20), timeout=0.2)
    assert half.stage is Stage.LIVENET
    assert half.failure
    assert f"5.0 MiB of {ISO}" in half.failure.label
    assert "--memory" in half.failure.hint


def test_what_the_layout_has_not_is_named() -> None:
    missed = Requested(method="GET", url="http://10.0.0.1/models/x", status=404)
    outcome = followed(missed, Report(document=STATE))
    assert "http://10.0.0.1/models/x is not part of this layout" in as_text(outcome)


def test_qemus_complaint_is_passed_on() -> None:
    outcome = followed(Ended(code=1, complaint="qemu: could not set up host forwarding"))
    assert outcome.failure
    assert "could not set up host forwarding" in outcome.failure.message


def test_state_of_another_form_is_read_as_far_as_it_goes() -> None:
    odd = {"exit_code": "0", "artifacts": [1, {"name": 5, "bytes": "x", "required": None}], "config": "none"}
    account = read_state(odd)
    assert isinstance(account, NodeState)
    assert account.exit_code is None
    assert [(one.name, one.bytes, one.required) for one in account.artifacts] == [("", 0, True)]
