"""A node's report as it comes in: checked, bounded and cleaned. Nobody else reads what a node has sent.

The document is the agent's state (docs/node.md, "The report"). Keys that this version does not know are dropped, so a
newer agent can report to an older collector.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_BODY = 256 << 10  # bytes of a report
MAX_TEXT = 2000  # characters of a value
MAX_LINES = 200  # of the journal
MAX_ENTRIES = 5000  # artifacts or units
_MAX_NUMBER = 1 << 50  # so that the bytes of MAX_ENTRIES artifacts have a sum that databases can hold (64 bits)
_MAX_EXIT_CODE = 255
_PHASES = ("locating", "fetching", "done", "failed")
_ARTIFACT_PHASES = ("waiting", "fetching", "verifying", "placing", "placed", "kept", "skipped", "failed")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5,19}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WORD = re.compile(r"(?:[a-z0-9-]{1,64})?")
_HEX = re.compile(r"[0-9a-f]{32}")

Clean = Callable[[Any, str], Any]  # (value, its key) -> the value to keep; raises ReportError


class ReportError(Exception):
    """The report is not one of an agent; the text says where."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report that has been checked."""

    document: dict[str, Any]  # the keys of `_REPORT`, each of its type
    keys: tuple[str, ...]  # what the node is known by, the best first: `mac:…`, `uuid:…`, `machine:…`

    @property
    def key(self) -> str:
        """What the node is known by."""
        return self.keys[0]

    @property
    def node(self) -> dict[str, str]:
        """The facts of the node: hostname, arch, mac, uuid, machine_id; each may be empty."""
        facts: dict[str, str] = self.document["node"]
        return facts

    @property
    def received(self) -> int:
        """Bytes of artifacts that this run has received so far."""
        return sum(one["bytes_received"] for one in self.document["artifacts"])


def read(body: bytes) -> Report:
    """The report in `body`. Raises ReportError."""
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ReportError("the body is not a JSON document") from None
    document = _fields(_REPORT)(found, "the report")
    facts = document["node"]
    keys = tuple(f"{kind}:{facts[name]}" for kind, name in _IDENTITIES if facts[name])
    if not keys:
        raise ReportError("node has neither a mac nor a uuid nor a machine_id, so nobody knows whose report this is")
    return Report(document=document, keys=keys)


def clean(text: str) -> str:
    """`text` with a blank for each character that is not printable, and no more than MAX_TEXT of them."""
    text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)  # NaN and Infinity are not JSON (RFC 8259, 6)


def _text(value: object, key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ReportError(f"{key} is not a text")
    return clean(value)


def _pattern(pattern: re.Pattern[str]) -> Clean:
    """A text that may be empty; one that does not match is taken as empty, for it identifies nobody."""

    def checked(value: object, key: str) -> str:
        text = _text(value, key).lower()
        return text if pattern.fullmatch(text) and text.strip("0:-") and text.strip("f:-") else ""

    return checked


def _one_of(*choices: str) -> Clean:
    def checked(value: object, key: str) -> str:
        if value not in choices:
            raise ReportError(f"{key} is none of {', '.join(choices)}")
        return str(value)

    return checked


def _cause(value: object, key: str) -> str:
    """A word of the agent; any other text is one cause, since people and Prometheus count by them."""
    text = _text(value, key)
    return text if _WORD.fullmatch(text) else "unknown"


def _run(value: object, key: str) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ReportError(f"{key} is not an id of 32 hexadecimal digits")
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_NUMBER:
        raise ReportError(f"{key} is not a number from 0 to {_MAX_NUMBER}")
    return value


def _whole(value: object, key: str) -> int:
    return math.floor(_number(0 if value is None else value, key))


def _exit_code(value: object, key: str) -> int | None:
    code = _whole_or_none(value, key)
    if code is not None and code > _MAX_EXIT_CODE:
        raise ReportError(f"{key} is above {_MAX_EXIT_CODE}")
    return code


def _whole_or_none(value: object, key: str) -> int | None:
    return None if value is None else _whole(value, key)


def _truth(value: object, _key: str) -> bool:
    return value is True


def _list(entry: Clean, *, longest: int) -> Clean:
    def checked(value: object, key: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > longest:
            raise ReportError(f"{key} is not a list of at most {longest} entries")
        return [entry(one, f"{key}[{number}]") for number, one in enumerate(value)]

    return checked


def _fields(fields: dict[str, Clean]) -> Clean:
    def checked(value: object, key: str) -> dict[str, Any]:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ReportError(f"{key} is not an object")
        return {name: clean_it(value.get(name), f"{key}.{name}") for name, clean_it in fields.items()}

    return checked


_IDENTITIES = (("mac", "mac"), ("uuid", "uuid"), ("machine", "machine_id"))
_NODE: dict[str, Clean] = {
    **dict.fromkeys(("hostname", "arch"), _text),
    "mac": _pattern(_MAC),
    "uuid": _pattern(_UUID),
    "machine_id": _pattern(_HEX),
}
_ARTIFACT: dict[str, Clean] = {
    **dict.fromkeys(("name", "dest", "url", "final_url", "remark", "sha256", "error"), _text),
    "cause": _cause,
    "phase": _one_of(*_ARTIFACT_PHASES),
    "required": _truth,
    **dict.fromkeys(("bytes", "bytes_received", "attempts"), _whole),
    "total": _whole_or_none,
    "seconds": _number,
}
_UNIT: dict[str, Clean] = {
    **dict.fromkeys(("name", "artifact", "result", "message"), _text),
    "required": _truth,
    "seconds": _number,
}
_REPORT: dict[str, Clean] = {
    "run": _run,
    "phase": _one_of(*_PHASES),
    "final": _truth,
    "exit_code": _exit_code,
    **dict.fromkeys(("message", "started", "agent"), _text),
    "cause": _cause,
    "seconds": _number,
    "failures": _whole,
    "config": _fields(dict.fromkeys(("source", "path_or_url", "sha256"), _text)),
    "node": _fields(_NODE),
    "artifacts": _list(_fields(_ARTIFACT), longest=MAX_ENTRIES),
    "units": _list(_fields(_UNIT), longest=MAX_ENTRIES),
    "journal": _list(_text, longest=MAX_LINES),
}
