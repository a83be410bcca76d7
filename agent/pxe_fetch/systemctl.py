"""What systemd is asked to do: start units once their artifact is there, or end the boot that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

PATIENCE = 10.0  # seconds for systemctl to hand a job over; it does not wait for the job

ACTIONS = {
    "reboot": ("reboot",),
    "poweroff": ("poweroff",),
    "emergency": ("isolate", "emergency.target"),
}


def start(unit: str) -> str | None:
    """Have `unit` started, without waiting for it. None, or a sentence that says why it could not be asked for."""
    return _ask_for("start", unit)


def failed(units: Sequence[str]) -> list[str]:
    """Those of `units` that systemd says have failed by now."""
    done = _systemctl("is-failed", *units)
    if isinstance(done, str):
        return []
    return [
        unit
        for unit, state in zip(units, done.stdout.decode(errors="replace").split(), strict=False)
        if state == "failed"
    ]


def act(action: str) -> str | None:
    """Carry out `on_failure: ACTION`, one of ACTIONS. None, or a sentence that says why it could not be."""
    return _ask_for(*ACTIONS[action])


def _ask_for(*arguments: str) -> str | None:
    """Have systemd take up a job. None, or a sentence that says why it does not."""
    arguments = ("--no-block", "--no-ask-password", *arguments)
    done = _systemctl(*arguments)
    if isinstance(done, str):
        return done
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return f"`systemctl {' '.join(arguments)}`: {said[-1] if said else f'exit code {done.returncode}'}"


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[bytes] | str:
    """How systemctl ended and what it said, or a sentence that says why it did not."""
    command = ["systemctl", *arguments]
    shown = " ".join(command)
    try:
        return subprocess.run(
            command,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        return f"`{shown}`: this node has no systemctl"
    except subprocess.TimeoutExpired:
        return f"`{shown}` gave no answer within {PATIENCE:.0f} s"
    except OSError as error:
        return f"`{shown}`: {error.strerror}"


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child: what PyInstaller's boot loader changed for the agent's own libraries is put back.

    https://pyinstaller.org/en/stable/common-issues-and-pitfalls.html: LD_LIBRARY_PATH_ORIG, only where there was one.
    """
    theirs = dict(ours)
    if hasattr(sys, "frozen"):
        theirs.pop("LD_LIBRARY_PATH", None)
        if before := theirs.pop("LD_LIBRARY_PATH_ORIG", None):
            theirs["LD_LIBRARY_PATH"] = before
    return theirs
