"""`pxe-fetch status`: the state file, as text or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from pxe_fetch.contract.problem import printable
from pxe_fetch.contract.quantity import amount, span
from pxe_fetch.reporting import state_file
from pxe_fetch.reporting.state_file import ENDED, Document, StateError

POLL_INTERVAL = 0.2  # seconds
NO_STATE = 1  # exit code


def status(*, wait: bool, as_json: bool) -> int:
    """Print the state of the latest run; return the exit code.

    With `wait`, wait until that run has ended and return its exit code. Otherwise 0, or NO_STATE if there is no state,
    or none that can be used.
    """
    try:
        document = state_file.latest()
        while wait and (document is None or document["phase"] not in ENDED):
            time.sleep(POLL_INTERVAL)
            document = state_file.latest()
        if document is None:
            sys.stderr.write("pxe-fetch: no run has been recorded since this machine booted\n")
            return NO_STATE
        text, code = _render(document), bytes([document["exit_code"] or 0])[0]
        text = json.dumps(document, indent=2) + "\n" if as_json else text
    except StateError as error:
        sys.stderr.write(f"pxe-fetch: {printable(str(error))}\n")
        return NO_STATE
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):  # no run writes it so
        sys.stderr.write("pxe-fetch: the state file is damaged; the next run starts afresh\n")
        return NO_STATE
    sys.stdout.write(text)
    return code if wait else 0


def _render(document: Document) -> str:
    """The state as text: the run, then a table with one row for each artifact, its error below it, then the units.

    Raises TypeError and the like if the document has values that no run writes.
    """
    config, node, units = document["config"], document["node"], document["units"]
    lines = [f"{document['phase']}: {document['message']}" if document["message"] else str(document["phase"])]
    if config:
        lines.append(f"configuration: {config.get('path_or_url')} ({config.get('source')})")
    lines.append(f"started {document['started']}, {span(document['seconds'])}, pxe-fetch {document['agent']}")
    if node:
        lines.append(f"node: {' '.join(str(value) for value in node.values() if value)}")
    if artifacts := document["artifacts"]:
        errors = [f"{one['cause'] or 'last error'}: {one['error']}" if one["error"] else "" for one in artifacts]
        lines += _table(("ARTIFACT", "STATE", "SIZE", "TRIES", "TIME", "DESTINATION"), map(_row, artifacts), errors)
    if units:
        rows = [(one["name"], one["artifact"], one["result"], span(one["seconds"])) for one in units]
        lines += _table(("UNIT", "ARTIFACT", "RESULT", "TIME"), rows, [one["message"] for one in units])
    return "".join(f"{printable(line)}\n" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str | None]) -> Iterator[str]:
    """A blank line, and the lines of a table, with the notes below their rows."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    yield ""
    for row, note in zip(cells, [None, *notes], strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if note:
            yield f"    {note}"


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
