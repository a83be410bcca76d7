"""`pxe-pack nodes`: the nodes that a collector knows, from the shell."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.quantity import count, span
from pxe_fetch.contract.url import redact
from pxe_pack import https
from pxe_pack.choices import ENDED, STAGES
from pxe_pack.console import Console, joined
from pxe_pack.input_file import read_input
from pxe_pack.parser import duration
from pxe_pack.tools import InputError, WorkError

FOUND_FAILED = 3
DEFAULT_URL = "http://127.0.0.1:8787/"
POLL_INTERVAL = 1.0  # seconds
_PAGE_SIZE = 1000
_TIMEOUT = 15.0  # seconds
_BROKEN = 500  # statuses from here on are the server's own faults (RFC 9110, 15.6)
_NAMED = 5  # nodes that have the same to be done about them

# What an answer has at least, by what is asked for.
_ANSWERS: Mapping[str, Mapping[str, type]] = {
    "summary": {"states": dict, "total": int},
    "nodes": {"nodes": list, "total": int},
}
_NO_URL = (
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
)

Document = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `nodes`."""
    parser.description = (
        "List the nodes that a collector knows: state, stage, time since, and the last message. "
        "Exits with 3 if any of the nodes listed has failed."
    )
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the collector's page (default: {DEFAULT_URL})")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="the password of the page, if it has one")
    parser.add_argument("--failed", action="store_true", help="only nodes that have failed")
    parser.add_argument("--stage", choices=STAGES, help="only nodes at this stage")
    parser.add_argument("--wait", type=_positive, metavar="N", help="wait until N nodes are done or have failed")
    parser.add_argument(
        "--timeout", type=duration, default=1800.0, metavar="TIME", help="wait no longer than this (default: 30m)"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """List the nodes. Raises InputError, and WorkError if the collector does not answer or the wait is over."""
    collector = _Collector(arguments.url, arguments.password_file)
    if arguments.wait:
        with console.step(f"waiting for {count(arguments.wait, 'node')}", total=arguments.wait) as step:
            _wait(collector, arguments.wait, timeout=arguments.timeout, advance=step.advance)
    wanted = {"state": "failed" if arguments.failed else "", "stage": arguments.stage or "", "sort": "state"}
    nodes = [*collector.nodes(wanted)]
    summary = collector.summary()
    console.result({"summary": summary, "nodes": nodes}, joined(_lines(summary, nodes)))
    return FOUND_FAILED if any(one["state"] == "failed" for one in nodes) else 0


def _wait(collector: _Collector, wanted: int, *, timeout: float, advance: Callable[[int], None]) -> None:
    """Wait until `wanted` nodes have ended. Raises WorkError after `timeout` seconds."""
    end, known, has_answered = time.monotonic() + timeout, 0, False
    while True:
        try:
            states, has_answered = collector.summary()["states"], True
        except WorkError:
            if not has_answered or time.monotonic() >= end:
                raise
            time.sleep(POLL_INTERVAL)  # it is being restarted, or its database is
            continue
        ended = sum(states.get(name, 0) for name in ENDED)
        advance(max(min(ended, wanted) - known, 0))
        known = max(ended, known)
        if ended >= wanted:
            return
        if time.monotonic() >= end:
            message = f"after {span(timeout)}, {ended} of {count(wanted, 'node')} are done or have failed"
            hint = "`pxe-pack nodes` shows where the others are"
            raise WorkError(Problem(reference="nodes-timeout", message=message, hint=hint))
        time.sleep(min(POLL_INTERVAL, max(end - time.monotonic(), 0)))


class _Collector:
    """Asks the collector. Each method raises InputError if it refuses, WorkError if it does not answer."""

    def __init__(self, url: str, password_file: Path | None) -> None:
        self._url = url.rstrip("/")
        self._shown = redact(self._url)
        self._session = https.session()
        if password_file:
            self._session.headers["Authorization"] = b"Bearer " + _password(password_file)

    def summary(self) -> Document:
        """How many nodes there are, by state, stage and cause."""
        return self._get("summary", {})

    def nodes(self, wanted: Mapping[str, str]) -> Iterator[Document]:
        """All nodes that match `wanted`, page by page."""
        page, left = 1, 1
        while left > 0:
            answer = self._get("nodes", {**wanted, "page": str(page), "size": str(_PAGE_SIZE)})
            yield from answer["nodes"]
            left = answer["total"] - page * _PAGE_SIZE if answer["nodes"] else 0
            page += 1

    def _get(self, what: str, parameters: Mapping[str, str]) -> Document:
        try:
            answer = self._session.get(f"{self._url}/api/{what}", params=parameters, timeout=_TIMEOUT)
        except _NO_URL as error:
            message, hint = f"--url {self._shown} is not an http URL", f"the collector's page, as {DEFAULT_URL}"
            raise InputError(Problem(reference="collector-url", message=message, hint=hint)) from error
        except requests.RequestException as error:
            message = f"no collector answers at {self._shown}: {type(error).__name__}"
            hint = "`pxe-pack serve` starts one; --url names another"
            raise WorkError(Problem(reference="collector-silent", message=message, hint=hint)) from None
        try:
            found = answer.json() if answer.ok else None
        except (ValueError, RecursionError):  # no JSON, or JSON that nobody would write
            found = None
        if answer.ok and not _has(found, _ANSWERS[what]):
            message = f"{self._shown} answers, but it is not a collector"
            hint = "give the URL of the collector's page with --url"
            raise InputError(Problem(reference="collector-refused", message=message, hint=hint))
        if not isinstance(found, dict):
            message = f"{self._shown} answered {answer.status_code}: {answer.text.strip()[:200]}"
            hint = "give the page's password with --password-file" if answer.status_code in (401, 403) else ""
            problem = Problem(reference="collector-refused", message=message, hint=hint)
            raise WorkError(problem) if answer.status_code >= _BROKEN else InputError(problem)
        return found


def _has(found: object, keys: Mapping[str, type]) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in keys.items())


def _password(file: Path) -> bytes:
    """The password in `file`, in UTF-8. Raises InputError if it has none, or more than a header field can hold."""
    try:
        text = read_input(file).decode().strip()
        why = "" if text.isprintable() and text else "it does not have one line of text"
    except OSError as error:
        why = f"it cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        why = "it is not text in UTF-8"
    if why:
        raise InputError(Problem(reference="collector-password", message=f"{file} has no password: {why}"))
    return text.encode()


def _lines(summary: Document, nodes: list[Document]) -> Iterator[str]:
    """A line for each node, one with the counts, and what to do about those that are not well."""
    names = _names(nodes)
    columns = [
        (name, one["state"], _stage(one), span(one["stage_seconds"])) for name, one in zip(names, nodes, strict=True)
    ]
    widths = [max((len(row[at]) for row in columns), default=0) for at in range(4)]
    for row, one in zip(columns, nodes, strict=True):
        padded = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield f"{padded}  {one['message']}".rstrip()
    counts = ", ".join(f"{number:,} {state}" for state, number in summary["states"].items() if number)
    yield f"{count(summary['total'], 'node')}{f': {counts}' if counts else ''}"
    advised: dict[str, list[str]] = {}
    for name, one in zip(names, nodes, strict=True):
        if one["advice"]:
            advised.setdefault(one["advice"], []).append(name)
    for advice, concerned in advised.items():
        more = f" and {len(concerned) - _NAMED:,} more" if len(concerned) > _NAMED else ""
        yield ""
        yield f"{', '.join(concerned[:_NAMED])}{more}: {advice}"


def _names(nodes: list[Document]) -> list[str]:
    """The name of each node, with its MAC address if others have the same, as nodes of one image often have."""
    times = Counter(one["name"] for one in nodes)
    return [f"{one['name']} ({one['mac']})" if times[one["name"]] > 1 else one["name"] for one in nodes]


def _stage(node: Document) -> str:
    percent = node["percent"]
    return node["stage"] if percent is None or node["stage"] == "done" else f"{node['stage']} {percent:g} %"


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)
