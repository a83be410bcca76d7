"""Downloads by the agent, as a child process: as a node would do it, with its transports, retries and checks.

The agent takes a configuration made for it, and its state file says how each download is going and how it ended.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pxe_fetch.contract.model import Artifact, FetchConfig, Report, When
from pxe_fetch.contract.problem import Problem
from pxe_pack import dump, tools
from pxe_pack.console import Step
from pxe_pack.tools import WorkError

IN_PLACE = frozenset({"placed", "kept"})  # phases of an artifact that is at its destination
_POLL = 0.2  # seconds; the agent saves its state four times a second


@dataclass(frozen=True, kw_only=True, slots=True)
class Downloads:
    """How the downloads of a run ended: its state file (docs/node.md)."""

    message: str  # of the run
    artifacts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # by name
    final: bool = False

    @property
    def received(self) -> int:
        """The bytes of all files that are here."""
        return sum(number for one in self.artifacts.values() if isinstance(number := one.get("bytes"), int))

    def why(self, name: str) -> str:
        """Why the artifact `name` is not in place, in the agent's words."""
        return str(self.artifacts.get(name, {}).get("error") or self.message)


def as_file(artifact: Artifact, *, dest: Path) -> Artifact:
    """`artifact` as it is to be downloaded on this machine: the bytes on the wire, to `dest`, and nothing else."""
    return replace(
        artifact,
        dest=str(dest),
        mode=None,
        owner=None,
        group=None,
        extract=None,
        when=When(),
        start=(),
        start_required=False,
        required=True,
    )


def download(
    config: FetchConfig, artifacts: tuple[Artifact, ...], *, root: Path, work: Path, reference: str, step: Step
) -> Downloads:
    """Run the agent until it has ended, to download `artifacts`, whose URLs are absolute and destinations below `root`.

    All else is as in `config`. Artifacts without a digest are taken as they come. `work` is an empty folder for its
    own files. Progress goes to `step`. Raises WorkError, with this `reference`, if the agent could not begin.
    """
    here = replace(
        config,
        artifacts=artifacts,
        base_url=None,
        artifact_url=None,
        allowed_roots=(str(root),),
        live_space=None,
        start_jitter=0.0,
        report=Report(),
        on_failure="continue",
    )
    file, run = work / "fetch.yaml", work / "state"
    file.write_text(dump.dump(here), encoding="utf-8")
    run.mkdir()
    # Not as a service, whatever runs pxe-pack; with a state file of its own, also for root.
    environment = {"RUNTIME_DIRECTORY": str(run), "NOTIFY_SOCKET": "", "INVOCATION_ID": "", "JOURNAL_STREAM": ""}
    done = 0
    with (work / "log").open("wb") as log:
        command = (sys.executable, "-P", "-m", "pxe_fetch", "run", "--unpinned", "--config", file)
        with tools.start(*command, stdout=log, stderr=log, env=environment, cwd=work) as process:
            while process.poll() is None:
                time.sleep(_POLL)
                if (received := _state(run).received) > done:  # a download that starts over has fewer
                    step.advance(received - done)
                    done = received
    found = _state(run)
    if not found.final:
        tools.check("pxe-fetch", process.returncode or 1, (work / "log").read_bytes())
    if not found.artifacts:  # it did not get as far as the first download
        message = f"the agent downloads nothing: {found.message}"
        hint = "credentials are read from $CREDENTIALS_DIRECTORY, and the paths in `tls` are those of this machine"
        raise WorkError(Problem(reference=reference, message=message, hint=hint))
    step.advance(max(found.received - done, 0))
    return found


def _state(run: Path) -> Downloads:
    """The state that the agent has saved."""
    with suppress(OSError, ValueError):
        state = json.loads((run / "state.json").read_bytes())
        if isinstance(state, dict):
            listed = state.get("artifacts")
            artifacts = {str(one["name"]): one for one in listed} if isinstance(listed, list) else {}
            return Downloads(message=str(state.get("message")), artifacts=artifacts, final=bool(state.get("final")))
    return Downloads(message="")
