"""`pxe-fetch status`: what the state file says, for a person or a program."""

from __future__ import annotations

import json
import os
import sys
import time

from pxe_fetch.contract import paths
from pxe_fetch.humanize import amount, span

PATIENCE = 0.2  # seconds between two looks at the file
ENDED = ("done", "failed")
NOTHING = 1  # exit code: there is no state to show

TYPE_CHECKING = False  # typing is an import that `status` need not pay
if TYPE_CHECKING:
    from typing import Any

    Document = dict[str, Any]  # whatever json gives; `_is_whole` looks at what is used


def status(*, wait: bool, as_json: bool) -> int:
    """Show the state of the latest run, with `wait` once it is over; the exit code is then the run's.

    Without `wait` the exit code is 0, or 1 when there is nothing to show.
    """
    found = read()
    while wait and (found is None or found["phase"] not in ENDED):
        time.sleep(PATIENCE)
        found = read()
    if found is None:
        sys.stderr.write("pxe-fetch: there is no account of a run on this machine since it booted\n")
        return NOTHING
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if as_json else render(found))
    return int(found["exit_code"] or 0) if wait else 0


def read() -> Document | None:
    """The state that was written last, of the service or of this user; None where there is none that can be read."""
    latest: tuple[int, str] | None = None
    for file in _files():
        try:
            latest = max(latest or (0, ""), (os.stat(file).st_mtime_ns, file))  # noqa: PTH116
        except OSError:
            continue
    if latest is None:
        return None
    try:
        with open(latest[1], encoding="utf-8") as stream:  # noqa: PTH123
            document = json.load(stream)
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and _is_whole(document) else None


def render(document: Document) -> str:
    """The state as text: how the run stands, then a line for each artifact, with its error below it."""
    config, node = document["config"], document["node"]
    lines = [f"{document['phase']}: {document['message']}" if document["message"] else str(document["phase"])]
    if config:
        lines.append(f"configuration: {config.get('path_or_url')} ({config.get('source')})")
    lines.append(f"started {document['started']}, {span(document['seconds'])}, pxe-fetch {document['agent']}")
    if node:
        lines.append(f"node: {' '.join(str(value) for value in node.values() if value)}")
    rows = [("ARTIFACT", "STATE", "SIZE", "TRIES", "TIME", "DESTINATION")]
    errors = [""]
    for artifact in document["artifacts"]:
        size, total = artifact["bytes"], artifact["total"]
        shown = "-" if not size and not total else amount(size) if size == total or not total else ""
        rows.append(
            (
                str(artifact["name"]) + ("" if artifact["required"] else " (optional)"),
                str(artifact["phase"]),
                shown or f"{amount(size)} of {amount(total)}",
                str(artifact["attempts"] or "-"),
                span(artifact["seconds"]) if artifact["seconds"] else "-",
                str(artifact["dest"]),
            )
        )
        errors.append(f"{artifact['cause'] or 'so far'}: {artifact['error']}" if artifact["error"] else "")
    if len(rows) > 1:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines.append("")
        for row, error in zip(rows, errors, strict=True):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            if error:
                lines.append(f"    {error}")
    return "\n".join(lines) + "\n"


def _files() -> list[str]:
    directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if directory:
        return [f"{directory}/state.json"]
    own = os.environ.get("XDG_RUNTIME_DIR")
    return [paths.STATE, *([f"{own}/{paths.USER_STATE_DIR}/state.json"] if own and os.geteuid() else [])]


def _is_whole(document: Document) -> bool:
    """Whether all that is shown is there, so that a file of another version is not taken for ours."""
    keys = ("phase", "message", "config", "node", "started", "seconds", "agent", "artifacts", "exit_code")
    return document.get("version") == 1 and all(key in document for key in keys)
