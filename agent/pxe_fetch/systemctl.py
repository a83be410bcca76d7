"""Jobs for systemd: start units whose artifact is in place, reboot after a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

TIMEOUT = 10.0  # seconds for systemctl to queue a job; it does not wait for the job

ACTIONS = {
    "reboot": ("reboot",),
    "poweroff": ("poweroff",),
    "emergency": ("isolate", "emergency.target"),
}


def start(unit: str) -> str | None:
    """Queue the start of `unit` and do not wait for it. None, or a sentence that says why it failed."""
    return _queue("start", unit)


def failed(units: Sequence[str]) -> list[str]:
    """Those of `units` that are in the state `failed` now; [] if systemctl does not answer."""
    done = _systemctl("is-failed", *units)
    if isinstance(done, str):
        return []
    return [
        unit
        for unit, state in zip(units, done.stdout.decode(errors="replace").split(), strict=False)
        if state == "failed"
    ]


def act(action: str) -> str | None:
    """Carry out `on_failure: ACTION`, a key of ACTIONS. None, or a sentence that says why it failed."""
    return _queue(*ACTIONS[action])


def _queue(*arguments: str) -> str | None:
    """Queue a job. None, or a sentence that says why it failed."""
    arguments = ("--no-block", "--no-ask-password", *arguments)
    done = _systemctl(*arguments)
    if isinstance(done, str):
        return done
    if done.returncode == 0:
        return None
    output = done.stderr.decode(errors="replace").strip().splitlines()
    return f"`systemctl {' '.join(arguments)}`: {output[-1] if output else f'exit code {done.returncode}'}"


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[bytes] | str:
    """Run systemctl: its exit code and output, or a sentence that says why it did not run."""
    command = ["systemctl", *arguments]
    shown = " ".join(command)
    try:
        return subprocess.run(
            command,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        return f"`{shown}`: this node has no systemctl"
    except subprocess.TimeoutExpired:
        return f"`{shown}` did not answer within {TIMEOUT:.0f} s"
    except OSError as error:
        return f"`{shown}`: {error.strerror}"


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
