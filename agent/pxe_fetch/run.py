"""One run, from top to bottom: locate config, plan, check disk space, fetch, install, report."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from threading import Event
from types import FrameType

from pxe_fetch.config_source import check_fresh, locate
from pxe_fetch.contract import checks, reader
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import Digest, FetchConfig, Report
from pxe_fetch.contract.paths import UNIT_NAME
from pxe_fetch.contract.problem import ProblemError
from pxe_fetch.contract.quantity import span
from pxe_fetch.contract.reader import Pin
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.contract.url import redact, with_query
from pxe_fetch.deadline import Clock
from pxe_fetch.download.context import Context
from pxe_fetch.download.sequential import fetch_text
from pxe_fetch.errors import RESTARTED, DeadlineError, FetchError, IntegrityError, Result, StoppedError, error_result
from pxe_fetch.fetcher import Fetcher
from pxe_fetch.filesystem import AllowedRoots
from pxe_fetch.install.disk_space import DiskSpace, check_live_space
from pxe_fetch.node import Node
from pxe_fetch.plan import Source, nested, plan
from pxe_fetch.reporting.event_log import EventLog
from pxe_fetch.reporting.journal import INFO, READY, WARNING, Journal, is_service, notify, write_to_console
from pxe_fetch.reporting.state_store import StateStore
from pxe_fetch.reporting.webhook_reporter import WebhookReporter
from pxe_fetch.systemctl import Units, act
from pxe_fetch.transport import Transports

SWITCHED_OFF = "switched off by pxe-fetch=off on the kernel command line"
NO_CONFIG = "no configuration found, nothing to do"
MAX_FAILURES = 6  # the unit's StartLimitBurst=: systemd does not start it again after so many failed runs in a row


@mutable_record
class RunContext:
    """What the steps of a run share: its inputs, and what the earlier steps have found out."""

    config_file: Path | None  # --config
    pin: Pin  # what artifacts without a digest become, or why they are refused
    node: Node
    store: StateStore
    event_log: EventLog
    stop: Event = field(default_factory=Event)
    deadline: float = float("inf")  # monotonic
    config: FetchConfig = field(default_factory=FetchConfig)
    webhook: WebhookReporter | None = None


def run(*, config_file: Path | None, pin: Pin, debug: bool, root: Path) -> Result:
    """Fetch and install this node's artifacts; how that ended.

    `config_file` is that of --config; `pin` takes artifacts without a digest, or refuses them (reader.read); the node's
    own files are read below `root` ("/" except in tests). Whatever goes wrong is in the result, and has been reported
    to the journal, the state file, systemd, the console and the webhook.
    """
    os.umask(0o022)  # folders get their mode as they are made, for later another one may be in their place
    store = StateStore()
    event_log = EventLog(journal=Journal(debug=debug), store=store)
    context = RunContext(config_file=config_file, pin=pin, node=Node(root=root), store=store, event_log=event_log)
    store.node = context.node.summary()
    store.start()
    if store.read_error:
        event_log.log(f"{store.read_error}; starting afresh", priority=WARNING)
    try:
        with _stopped_by_signals(context.stop):
            result = _run_steps(context)
    except Exception as error:  # `error_result` has an exit code for each; an unknown one is a bug
        result = error_result(error)
        event_log.log_details(error)
    _report(context, result)
    _act_on_failure(context, result)
    return result


def _run_steps(context: RunContext) -> Result:
    """All steps but the report. Raises FetchError and ProblemError."""
    event_log = context.event_log
    node, arguments = context.node, context.node.arguments
    if arguments.off:
        return Result(exit_code=Exit.DONE, message=SWITCHED_OFF)
    if arguments.debug:
        event_log.journal.debug = True
    if arguments.deadline is not None:
        context.deadline = context.store.started_monotonic + arguments.deadline
    _start_webhook(context)

    located = locate(node, config_file=context.config_file, read_url=partial(_read_url, context))
    if located is None:
        return Result(exit_code=Exit.DONE, message=NO_CONFIG)
    event_log.config_located(located)
    config = reader.read(located.text, name=located.location, pin=context.pin)
    for doubt in check_fresh(config, located=located, node=node):
        event_log.log(doubt, priority=WARNING)
    config = context.config = replace(config, proxy=node.with_password(config.proxy))
    _start_webhook(context)

    roots = AllowedRoots(config.allowed_roots)
    planned = plan(config, roots=roots, node=node)
    event_log.planned(planned, config=config)

    if config.live_space and is_service():
        is_large, sentence = check_live_space(config.live_space)
        event_log.log(sentence, priority=INFO if is_large else WARNING)
    disk_space = DiskSpace()
    refused: dict[str, FetchError] = {**nested(planned.transfers, earlier=context.store.earlier, roots=roots)}
    refused |= disk_space.preflight([one for one in planned.transfers if one.name not in refused])

    _wait_start_jitter(context)
    warn = partial(event_log.log, priority=WARNING)
    transports = Transports(tls=config.tls, proxy=config.proxy, warn=warn)
    downloads = Context(transports=transports, events=event_log, stop=context.stop, run_deadline=context.deadline)
    units = Units(event_log=event_log, stop=context.stop, run_deadline=context.deadline)
    fetcher = Fetcher(
        event_log=event_log,
        context=downloads,
        roots=roots,
        disk_space=disk_space,
        units=units,
        is_unpinned_allowed=context.pin is not checks.unpinned,
    )
    for name, error in {**planned.failed, **refused}.items():
        fetcher.failed(name, error)
    wanted = [transfer for transfer in planned.transfers if transfer.name not in refused]
    fetcher.fetch_all(wanted, parallel=config.parallel)
    transports.close()
    if context.store.units:
        units.settle()
    return context.store.result(fetcher.failures)


def _read_url(context: RunContext, url: str, digest: Digest | None, limit: int) -> bytes:
    """The configuration at `url`, of at most `limit` bytes, retried as an artifact is. Raises FetchError."""
    transports = Transports()
    downloads = Context(
        transports=transports, events=context.event_log, stop=context.stop, run_deadline=context.deadline
    )
    source = Source(name="configuration", mirrors=((url,),), digest=digest)
    try:
        return fetch_text(source, downloads, limit=limit, accept=_refuse_page)
    except FetchError as error:
        if not (isinstance(error, StoppedError) or (digest and isinstance(error, IntegrityError))):
            error.args = (f"cannot fetch the configuration from {redact(url)}: {error}",)
        raise
    finally:
        transports.close()


def _refuse_page(text: bytes) -> None:
    """Raise IntegrityError if `text` begins as HTML, which neither a configuration nor its signature does."""
    if text.lstrip().startswith(b"<"):
        raise IntegrityError("a web page came, perhaps a login or an error", expected="a configuration", found="HTML")


def _start_webhook(context: RunContext) -> None:
    """Post the state to the URL known so far; that of the kernel command line comes first."""
    if context.webhook:
        context.webhook.stop()
    node, report = context.node, context.config.report
    if node.arguments.report:
        report = Report(url=node.arguments.report)  # the credentials are for the configuration's own
    if not report.url:
        return
    try:
        url = node.fill_in(report.url)
        headers = node.secret_headers(report.header_credential) if report.header_credential else {}
        url = with_query(url, node.secret_query(report.query_credential)) if report.query_credential else url
    except ProblemError as error:  # no report fails a run
        context.event_log.log(f"reporting to no URL: {error}", priority=WARNING)
        context.webhook = None
        return
    context.webhook = WebhookReporter(
        url,
        headers=headers,
        store=context.store,
        journal=context.event_log.journal,
        tls=context.config.tls,
        proxy=context.config.proxy,
    )
    context.webhook.start()


def _wait_start_jitter(context: RunContext) -> None:
    """Wait for a random part of start_jitter, so that not all nodes start at once. Raises DeadlineError."""
    if not context.config.start_jitter:
        return
    seconds = random.uniform(0, context.config.start_jitter)  # noqa: S311  it spreads the load, it keeps no secret
    context.event_log.log(f"starting in {span(seconds)} (start_jitter)", priority=INFO)
    Clock().sleep(max(min(seconds, context.deadline - time.monotonic()), 0), stop=context.stop)
    if time.monotonic() >= context.deadline:
        raise DeadlineError("the run's deadline passed before the first fetch")


def _report(context: RunContext, result: Result) -> None:
    """Report the end of the run to the journal, the state file, the console, systemd and the webhook."""
    event_log = context.event_log
    event_log.finished(result)
    more = f" (see: journalctl -u {UNIT_NAME})" if result.failed and is_service() else ""
    write_to_console(f"pxe-fetch: {context.store.phase}: {result.message}{more}")
    notify(*([] if result.failed else [READY]), f"STATUS={result.message}")
    if context.webhook and (failure := context.webhook.finish(stopped=result.cause == StoppedError.reference)):
        event_log.log(f"the report was not delivered: {failure}", priority=WARNING)


def _act_on_failure(context: RunContext, result: Result) -> None:
    """Log whether systemd starts the service again; if it does not, carry out `on_failure`.

    Only for the service: a configuration that is tried by hand must not reboot the machine.
    """
    if not result.failed or not is_service() or result.cause == StoppedError.reference:
        return
    event_log, action, failures = context.event_log, context.config.on_failure, context.store.failures
    if result.exit_code in RESTARTED and failures < MAX_FAILURES:
        event_log.log(
            f"run {failures} of {MAX_FAILURES} failed; systemd will start the service again, and downloads will resume",
            priority=WARNING,
        )
        return
    why = f"{MAX_FAILURES} runs in a row failed" if result.exit_code in RESTARTED else "another run would fail too"
    # After StartLimitBurst= starts, systemd refuses manual ones as well until the counter is reset (systemd.unit(5)).
    command = f"systemctl reset-failed {UNIT_NAME} && systemctl start {UNIT_NAME}"
    event_log.log(f"systemd will not start the service again: {why}; once it is fixed: {command}", priority=WARNING)
    if action == "continue":
        return
    event_log.log(f"on_failure: {action}", priority=WARNING)
    if failure := act(action):
        event_log.log(f"on_failure: {action} failed: {failure}", priority=WARNING)


@contextmanager
def _stopped_by_signals(stop: Event) -> Iterator[None]:
    """Within this context, the first SIGTERM or SIGINT sets `stop` and raises StoppedError in the main thread."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            raise StoppedError(f"stopped by {signal.Signals(number).name}; the next run resumes the downloads")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
