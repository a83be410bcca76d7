"""The whole run, from top to bottom: find the configuration, plan, make sure of the room, bring, place, tell."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import FrameType

from pxe_fetch.allowed_roots import AllowedRoots
from pxe_fetch.config_source import ReadUrl, credentials_directory, locate
from pxe_fetch.contract import cmdline, reader
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.model import Digest, FetchConfig, RetryPolicy, Timeouts
from pxe_fetch.contract.paths import UNIT_NAME
from pxe_fetch.contract.problem import ProblemError
from pxe_fetch.errors import DeadlineError, FetchError, IntegrityError, StoppedError
from pxe_fetch.fetcher import Fetcher
from pxe_fetch.humanize import span
from pxe_fetch.idle import NO_CONFIGURATION, SWITCHED_OFF
from pxe_fetch.install.disk_space import DiskSpace
from pxe_fetch.node import Node
from pxe_fetch.plan import moved, plan
from pxe_fetch.redact import redact
from pxe_fetch.reporting.event_log import EventLog
from pxe_fetch.reporting.journal import INFO, WARNING, Journal, console
from pxe_fetch.reporting.notify import READY, is_service, notify
from pxe_fetch.reporting.result import RESTARTED, Result, of_run, result_of_error
from pxe_fetch.reporting.state_store import StateStore
from pxe_fetch.transport import Transports

TYPE_CHECKING = False  # a run that reports to nobody does not import what reports
if TYPE_CHECKING:
    from pxe_fetch.reporting.webhook_reporter import WebhookReporter

LAST_RUN = 6  # the unit's StartLimitBurst=: after so many failed runs in a row nobody starts another


@dataclass(kw_only=True, slots=True)
class Run:
    """One run under way: what it was given, and what it has found out so far."""

    given: Path | None  # --config
    root: Path  # "/" but for tests: where the node's own files are read below
    store: StateStore
    event_log: EventLog
    deadline: float = float("inf")  # monotonic
    arguments: cmdline.KernelArguments = field(default_factory=cmdline.KernelArguments)
    config: FetchConfig = field(default_factory=FetchConfig)
    stop: Event = field(default_factory=Event)
    reporter: WebhookReporter | None = None


def run(*, given: Path | None, debug: bool, root: Path) -> Result:
    """Bring this node's artifacts; how that ended. `given` is --config's file, `root` "/" but for tests.

    Whatever goes wrong is the result, and has been told to the journal, the state file, systemd, the console and the
    report's URL when this returns.
    """
    text = _kernel_command_line(root)
    store = StateStore()
    one = Run(given=given, root=root, store=store, event_log=EventLog(journal=Journal(debug=debug), store=store))
    store.begin()
    try:
        with _stopped_by_signals(one.stop):
            one.arguments = cmdline.parse(text)
            result = _fetch(one)
    except Exception as error:  # each has its exit code; what has none is a bug, and is told as one
        result = result_of_error(error)
        one.event_log.explain(error)
    _tell(one, result)
    return result


def _fetch(one: Run) -> Result:
    """The recipe. Raises FetchError, ProblemError, KernelArgumentError."""
    event_log, arguments = one.event_log, one.arguments
    if arguments.off:
        return Result(exit_code=Exit.DONE, message=SWITCHED_OFF)
    if arguments.debug:
        event_log.show_debug()
    if arguments.deadline is not None:
        one.deadline = one.store.state.began + arguments.deadline
    credentials = credentials_directory()
    node = Node(root=one.root, arguments=arguments)
    _report(one, node)

    found = locate(arguments, root=one.root, given=one.given, credentials=credentials, read_url=_url_reader(one))
    if found is None:
        return Result(exit_code=Exit.DONE, message=NO_CONFIGURATION)
    event_log.configuration(found)
    one.config = reader.read(found.text, name=found.name).fetch
    _report(one, node)

    event_log.identity(node.summary())
    roots = AllowedRoots(one.config.allowed_roots)
    planned = plan(
        moved(one.config, artifact_url=arguments.artifact_url),
        roots=roots,
        node=node,
        base_url=arguments.base_url,
        credentials=credentials,
    )
    event_log.planned(planned, config=one.config)
    room = DiskSpace()
    no_room = room.preflight(planned.orders)

    _wait_a_while(one)
    transports = Transports(tls=one.config.tls, proxy=one.config.proxy)
    fetcher = Fetcher(
        event_log=event_log,
        transports=transports,
        roots=roots,
        room=room,
        deadline=one.deadline,
        stop=one.stop,
    )
    for name, error in [*((artifact.name, error) for artifact, error in planned.failed), *no_room.items()]:
        fetcher.failed(name, error)
    fetcher.fetch_all([order for order in planned.orders if order.name not in no_room], parallel=one.config.parallel)
    transports.close()
    return of_run(one.store.state, failures=fetcher.failures)


def _kernel_command_line(root: Path) -> str:
    """What the kernel was started with; "" where /proc does not tell (a container, a sandbox)."""
    try:
        return (root / "proc/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _url_reader(one: Run) -> ReadUrl:
    """Reads the configuration's URL, with the persistence that an artifact has."""

    def read(url: str, digest: Digest | None, limit: int) -> bytes:
        from pxe_fetch.download.download import fetch_text
        from pxe_fetch.transport import Transports

        transports = Transports()
        try:
            return fetch_text(
                (url,),
                name="configuration",
                digest=digest,
                limit=limit,
                transports=transports,
                events=one.event_log,
                stop=one.stop,
                retry=RetryPolicy(),
                timeouts=Timeouts(),
                run_deadline=one.deadline,
            )
        except (IntegrityError, StoppedError):
            raise
        except FetchError as error:
            error.args = (f"the configuration cannot be had from {redact(url)}: {error}",)
            raise
        finally:
            transports.close()

    return read


def _report(one: Run, node: Node) -> None:
    """Have each phase reported from now on, to whom and through what is known by now."""
    url = one.arguments.report or one.config.report_url
    if one.reporter:
        one.reporter.end()
    if url:
        try:
            url = node.fill_in(url)
        except ProblemError as error:
            one.event_log.remark(f"nothing is reported: {error}", priority=WARNING)
            return
        from pxe_fetch.reporting.webhook_reporter import WebhookReporter

        one.reporter = WebhookReporter(url, store=one.store, tls=one.config.tls, proxy=one.config.proxy)
        one.reporter.begin()


def _wait_a_while(one: Run) -> None:
    """Let a random part of start_jitter pass, so that a thousand nodes do not ask at once. Raises DeadlineError."""
    if not one.config.start_jitter:
        return
    import random

    wait = random.uniform(0, one.config.start_jitter)  # noqa: S311  to spread the load, not to keep a secret
    one.event_log.remark(f"starting in {span(wait)} (start_jitter)", priority=INFO)
    one.stop.wait(max(min(wait, one.deadline - time.monotonic()), 0))
    if time.monotonic() >= one.deadline:
        raise DeadlineError("the run's deadline was over before it began to fetch")


def _tell(one: Run, result: Result) -> None:
    """The end, for everybody who waits for it, and what the configuration wants done after a failure."""
    one.event_log.finish(result)
    console(f"pxe-fetch: {one.store.state.phase}: {result.message}")
    if not result.failed:
        notify(READY, f"STATUS={result.message}")
    else:
        notify(f"STATUS={result.message}")
    if one.reporter and (trouble := one.reporter.finish(hurried=result.cause == StoppedError.reference)):
        one.event_log.remark(f"the report was not delivered: {trouble}", priority=WARNING)
    if outlook := _outlook(one, result):
        one.event_log.remark(outlook, priority=WARNING)
    _act(one, result)


def _outlook(one: Run, result: Result) -> str | None:
    """What becomes of the service after a failure, for who reads its journal."""
    if not result.failed or not is_service() or result.cause == StoppedError.reference:
        return None
    failures = one.store.state.failures
    if result.exit_code in RESTARTED and failures < LAST_RUN:
        return f"systemd starts the service again, after {failures} of {LAST_RUN} failed runs; what has arrived is kept"
    why = f"{LAST_RUN} runs in a row failed" if result.exit_code in RESTARTED else "another run would end alike"
    # systemd.unit(5), StartLimitBurst=: after so many starts it refuses another, a person's too, until that is reset.
    again = f"systemctl reset-failed {UNIT_NAME} && systemctl start {UNIT_NAME}"
    return f"systemd does not start the service again, since {why}; once mended: {again}"


def _act(one: Run, result: Result) -> None:
    """Carry out on_failure: at once where no restart can mend the failure, else after the last run that there will be.

    Only for the service. A person who tries a configuration by hand does not want the machine to go down.
    """
    action = one.config.on_failure
    if not result.failed or action == "continue" or not is_service() or result.cause == "stopped":
        return
    if result.exit_code in RESTARTED and one.store.state.failures < LAST_RUN:
        one.event_log.remark(f"on_failure: {action} waits: the service is started again first")
        return
    from pxe_fetch import systemctl

    one.event_log.remark(f"on_failure: {action}", priority=WARNING)
    if trouble := systemctl.act(action):
        one.event_log.remark(f"on_failure: {action} could not be carried out: {trouble}", priority=WARNING)


@contextmanager
def _stopped_by_signals(stop: Event) -> Iterator[None]:
    """While this lasts, SIGTERM and SIGINT set `stop` and raise StoppedError in the main thread, once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            raise StoppedError(f"stopped by {signal.Signals(number).name}; what has arrived is kept for the next run")

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
