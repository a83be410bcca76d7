"""Jobs for systemd: start the units that wait for an artifact and see what becomes of them, reboot after a failure."""

from __future__ import annotations

import os
import re
import selectors
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from threading import Event

from pxe_fetch.contract.paths import TARGET_NAME, UNIT_NAME
from pxe_fetch.contract.problem import printable
from pxe_fetch.contract.record import record
from pxe_fetch.deadline import Clock
from pxe_fetch.plan import Transfer
from pxe_fetch.reporting.event_log import EventLog
from pxe_fetch.reporting.state_store import UnitState

TIMEOUT = 10.0  # seconds for systemctl to queue a job; it does not wait for the job
MOST_WAITING = 32  # systemctls that wait for their jobs, each with two descriptors and memory; others only queue theirs
SETTLE = 0.5  # seconds at the end of the run in which a unit may still start or fail, to be reported so
POLL_INTERVAL = 0.1  # seconds
_LONGEST = 16 * 1024 * 1024  # bytes of what systemctl prints; a thousand units take less than one

ACTIONS = {"reboot": ("reboot",), "poweroff": ("poweroff",), "emergency": ("isolate", "emergency.target")}
# Properties of a unit (org.freedesktop.systemd1(5)). Times are those of CLOCK_MONOTONIC, in microseconds.
_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "Job", "After", "ConditionResult",
    "ConditionTimestampMonotonic", "ActiveEnterTimestampMonotonic", "StateChangeTimestampMonotonic",
)  # fmt: skip
_MICROSECONDS = re.compile(r"\d{1,20}", re.ASCII)
_NOT_LOADED = ("not-found", "bad-setting", "error", "masked")  # of LoadState


class _SystemctlError(Exception):
    """systemctl is not there, does not answer, or refuses."""


@record
class Units:
    """The units in the `start:` lists of a run's artifacts. `start` may be called from several threads."""

    event_log: EventLog
    stop: Event
    run_deadline: float  # monotonic
    # Each with the systemctl that waits for its job, if one does. Killed, that leaves the job to systemd.
    _starts: list[tuple[UnitState, Popen[bytes] | None]] = field(default_factory=list)

    def start(self, transfer: Transfer) -> None:
        """Request the start of the units that wait for this artifact, also where it was in place before."""
        for name in transfer.start:
            unit = UnitState(name=name, artifact=transfer.name, required=transfer.start_required)
            self.event_log.unit_added(unit)
            try:
                process = _run("--no-ask-password", "start", name) if len(self._starts) < MOST_WAITING else None
                if process is None:
                    _ask("--no-block", "--no-ask-password", "start", name)
                self._starts.append((unit, process))
            except _SystemctlError as error:
                unit.result, unit.message = "failed", str(error)
                self.event_log.unit_settled(unit)

    def settle(self) -> None:
        """Report what became of the units. Waits for those that are required, and SETTLE seconds for others.

        A unit that is ordered after pxe-fetch's own starts after this run, so nothing waits for it. Raises StoppedError
        when a signal arrives in the calling thread.
        """
        begin = time.monotonic()
        waiting = self._starts
        try:
            while waiting:
                _look(waiting)
                waiting = [one for one in waiting if self._may_change(one[0], since=begin)]
                Clock().sleep(POLL_INTERVAL if waiting else 0, stop=self.stop)
        finally:
            for process in filter(None, (process for _, process in self._starts)):
                with process:
                    process.kill()
        for unit, _ in self._starts:
            self.event_log.unit_settled(unit)

    def _may_change(self, unit: UnitState, *, since: float) -> bool:
        """Whether to look at the unit again. If it took too long, that is its result."""
        now = time.monotonic()
        if unit.result == "asking" and now >= unit.requested + TIMEOUT:
            unit.result, unit.message = "unknown", f"systemctl did not answer within {TIMEOUT:.0f} s"
        if unit.result == "starting" and unit.required and now >= self.run_deadline:
            unit.result, unit.message = "failed", "it had not started when the run's deadline passed"
        return unit.result == "asking" or (unit.result == "starting" and (unit.required or now < since + SETTLE))


def act(action: str) -> str | None:
    """Carry out `on_failure: ACTION`, a key of ACTIONS. None, or a sentence that says why it failed."""
    try:
        _ask("--no-block", "--no-ask-password", *ACTIONS[action])
    except _SystemctlError as error:
        return str(error)
    return None


def _look(starts: Sequence[tuple[UnitState, Popen[bytes] | None]]) -> None:
    """Update units with what systemd says about them, and with what the systemctl of each has said."""
    # Before asking: the answer is no older than that.
    ended = [process is None or process.poll() is not None for _, process in starts]
    try:
        shown = _ask("show", f"--property={','.join(_PROPERTIES)}", "--", *(unit.name for unit, _ in starts))
    except _SystemctlError as error:
        for unit, _ in starts:
            unit.result, unit.message = "unknown", str(error)
        return
    # One block for each unit, in their order; values have no line breaks.
    for (unit, process), has_ended, block in zip(starts, ended, shown.strip().split("\n\n"), strict=False):
        found = dict(line.partition("=")[::2] for line in block.splitlines())
        is_active = found.get("ActiveState") == "active" and not found.get("Job")
        is_queued = process is None and found.get("Job")
        if is_queued or not (has_ended or is_active or found.get("SubState") == "auto-restart"):
            unit.seconds = time.monotonic() - unit.requested
            unit.result = _pending(found)
        elif process and process.returncode:
            unit.result = load if (load := found.get("LoadState", "")) in _NOT_LOADED else "failed"
            unit.message = _error(process, _printed(process, until=0)[1])
        else:
            unit.seconds = max(_since(unit, found, "StateChange"), 0.0)
            unit.result, unit.message = _outcome(unit, found)


def _pending(found: Mapping[str, str]) -> str:
    """The result of a unit whose job has not ended."""
    if found.get("ActiveState") == "activating":
        return "starting"
    if not found.get("Job"):
        return "asking"
    return "queued" if {UNIT_NAME, TARGET_NAME} & {*found.get("After", "").split()} else "starting"


def _outcome(unit: UnitState, found: Mapping[str, str]) -> tuple[str, str | None]:
    """Result and message of a unit whose job has ended well, which may have failed since, or which is restarted."""
    state = found.get("ActiveState")
    if state in {"active", "reloading", "refreshing"}:
        return "already-active" if _since(unit, found, "ActiveEnter") < 0 else "started", None
    if state == "failed" or found.get("SubState") == "auto-restart":
        result = f"result {found.get('Result')}, exit status {found.get('ExecMainStatus', 'unknown')}"
        return "failed", printable(result)
    if _since(unit, found, "Condition") < 0:  # systemd forgets an inactive unit that no other unit refers to
        return "inactive", "it has done its work, or a condition of it is not met"
    if found.get("ConditionResult") == "no":
        return "skipped", "a condition of it is not met"
    return "started", None  # and has ended, as a oneshot does


def _since(unit: UnitState, found: Mapping[str, str], event: str) -> float:
    """Seconds from the request to the latest `event`; negative if that was before, or nothing is known of it."""
    text = found.get(f"{event}TimestampMonotonic", "")
    return (int(text) if _MICROSECONDS.fullmatch(text) else 0) / 1e6 - unit.requested


def _ask(*arguments: str) -> str:
    """What systemctl prints. Raises _SystemctlError."""
    with _run(*arguments) as process:
        until = time.monotonic() + TIMEOUT
        output, errors = _printed(process, until=until)
        with suppress(TimeoutExpired):
            process.wait(max(until - time.monotonic(), 0))
        if process.returncode is None:
            process.kill()
            limits = f"{TIMEOUT:.0f} s and {_LONGEST >> 20} MiB"
            raise _SystemctlError(f"`systemctl {arguments[0]}` did not answer within {limits}")
    if process.returncode:
        raise _SystemctlError(_error(process, errors))
    return output


def _printed(process: Popen[bytes], *, until: float) -> list[str]:
    """What systemctl prints to its output and to its errors: all of it, or what has come by then, or _LONGEST bytes."""
    texts = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe}
    with selectors.DefaultSelector() as selector:
        for pipe, text in texts.items():
            selector.register(pipe, selectors.EVENT_READ, text)
        while selector.get_map() and (ready := selector.select(max(until - time.monotonic(), 0))):
            for key, _ in ready:
                piece = os.read(key.fd, 64 * 1024)
                key.data.extend(piece)
                if not piece or len(key.data) >= _LONGEST:
                    selector.unregister(key.fileobj)
    return [text.decode(errors="replace") for text in texts.values()]


def _run(*arguments: str) -> Popen[bytes]:
    """systemctl, running. Raises _SystemctlError."""
    command, ours = ["systemctl", *arguments], environment(os.environ)
    try:
        return Popen(command, env=ours, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    except OSError as error:
        why = "this node has no systemctl" if isinstance(error, FileNotFoundError) else error.strerror
        raise _SystemctlError(f"`{' '.join(command)}`: {why}") from None


def _error(process: Popen[bytes], errors: str) -> str:
    """What a systemctl that failed said: its first line, the others say where to look."""
    ended = f"ended with exit code {process.returncode}" if process.returncode > 0 else "was killed"
    return printable(next(iter(errors.strip().splitlines()), f"`systemctl` {ended}"))


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process: `ours` without the LD_LIBRARY_PATH that PyInstaller's boot loader sets.

    It keeps the previous value in LD_LIBRARY_PATH_ORIG, if there was one
    (https://pyinstaller.org/en/stable/common-issues-and-pitfalls.html).
    """
    theirs = dict(ours)
    if hasattr(sys, "frozen"):
        theirs.pop("LD_LIBRARY_PATH", None)
        if before := theirs.pop("LD_LIBRARY_PATH_ORIG", None):
            theirs["LD_LIBRARY_PATH"] = before
    return theirs
