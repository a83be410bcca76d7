"""`pxe-fetch status`: the state file, as text or as JSON."""

from __future__ import annotations

import json
import sys
import time

from pxe_fetch.humanize import amount, span
from pxe_fetch.reporting import state_file
from pxe_fetch.reporting.state_file import ENDED, Document

POLL_INTERVAL = 0.2  # seconds
NO_STATE = 1  # exit code


def status(*, wait: bool, as_json: bool) -> int:
    """Print the state of the latest run; return the exit code.

    With `wait`, wait until that run has ended and return its exit code. Otherwise 0, or NO_STATE if there is no state.
    """
    document = state_file.latest()
    while wait and (document is None or document["phase"] not in ENDED):
        time.sleep(POLL_INTERVAL)
        document = state_file.latest()
    if document is None:
        sys.stderr.write("pxe-fetch: no run has been recorded since this machine booted\n")
        return NO_STATE
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if as_json else render(document))
    return int(document["exit_code"] or 0) if wait else 0


def render(document: Document) -> str:
    """The state as text: the run, then a table with one row for each artifact, its error below it."""
    config, node = document["config"], document["node"]
    lines = [f"{document['phase']}: {document['message']}" if document["message"] else str(document["phase"])]
    if config:
        lines.append(f"configuration: {config.get('path_or_url')} ({config.get('source')})")
    lines.append(f"started {document['started']}, {span(document['seconds'])}, pxe-fetch {document['agent']}")
    if node:
        lines.append(f"node: {' '.join(str(value) for value in node.values() if value)}")
    if artifacts := document["artifacts"]:
        rows = [("ARTIFACT", "STATE", "SIZE", "TRIES", "TIME", "DESTINATION"), *map(_row, artifacts)]
        errors = ["", *(f"{one['cause'] or 'last error'}: {one['error']}" if one["error"] else "" for one in artifacts)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append("")
        for row, error in zip(rows, errors, strict=True):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            if error:
                lines.append(f"    {error}")
    return "\n".join(lines) + "\n"


def _row(artifact: Document) -> tuple[str, ...]:
    here, total, seconds = artifact["bytes"], artifact["total"], artifact["seconds"]
    return (
        f"{artifact['name']}{'' if artifact['required'] else ' (optional)'}",
        str(artifact["phase"]),
        f"{amount(here)} of {amount(total)}" if total not in {None, here} else amount(here) if here else "-",
        str(artifact["attempts"] or "-"),
        span(seconds) if seconds else "-",
        str(artifact["dest"]),
    )
