"""The whole run, from top to bottom: find the configuration, plan, make sure of the room, bring, place, tell."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from types import FrameType

from pxe_fetch.bring import Bringer
from pxe_fetch.contract import cmdline, validate
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.model import Digest, FetchConfig, RetryPolicy, Timeouts
from pxe_fetch.contract.paths import UNIT_NAME
from pxe_fetch.contract.problem import ProblemError
from pxe_fetch.errors import DeadlineError, FetchError, IntegrityError, StoppedError
from pxe_fetch.idle import NO_CONFIGURATION, SWITCHED_OFF
from pxe_fetch.locate import ReadUrl, credentials_directory, locate
from pxe_fetch.node import Node
from pxe_fetch.place.room import Room
from pxe_fetch.plan import Order, moved, plan
from pxe_fetch.redact import redact
from pxe_fetch.reporting.account import Account
from pxe_fetch.reporting.journal import INFO, WARNING, Journal, console
from pxe_fetch.reporting.ledger import Ledger
from pxe_fetch.reporting.notify import READY, is_service, notify
from pxe_fetch.reporting.outcome import RESTARTED, Outcome, of_error, of_run
from pxe_fetch.roots import Roots
from pxe_fetch.transport import Transports
from pxe_fetch.wording import span

TYPE_CHECKING = False  # a run that reports to nobody does not import what reports
if TYPE_CHECKING:
    from pxe_fetch.reporting.report import Reporter

LAST_RUN = 6  # the unit's StartLimitBurst=: after so many failed runs in a row nobody starts another


@dataclass(kw_only=True, slots=True)
class Run:
    """One run under way: what it was given, and what it has found out so far."""

    given: Path | None  # --config
    root: Path  # "/" but for tests: where the node's own files are read below
    ledger: Ledger
    account: Account
    deadline: float = float("inf")  # monotonic
    arguments: cmdline.KernelArguments = field(default_factory=cmdline.KernelArguments)
    config: FetchConfig = field(default_factory=FetchConfig)
    stop: Event = field(default_factory=Event)
    reporter: Reporter | None = None


def run(*, given: Path | None, debug: bool, root: Path) -> Outcome:
    """Bring this node's artifacts; how that ended. `given` is --config's file, `root` "/" but for tests.

    Whatever goes wrong is the outcome, and has been told to the journal, the state file, systemd, the console and the
    report's URL when this returns.
    """
    text = _kernel_command_line(root)
    ledger = Ledger()
    one = Run(given=given, root=root, ledger=ledger, account=Account(journal=Journal(debug=debug), ledger=ledger))
    ledger.begin()
    try:
        with _stopped_by_signals(one.stop):
            one.arguments = cmdline.parse(text)
            outcome = _bring(one)
    except Exception as error:  # each has its exit code; what has none is a bug, and is told as one
        outcome = of_error(error)
        one.account.explain(error)
    _tell(one, outcome)
    return outcome


def _bring(one: Run) -> Outcome:
    """The recipe. Raises FetchError, ProblemError, KernelArgumentError."""
    account, arguments = one.account, one.arguments
    if arguments.off:
        return Outcome(exit_code=Exit.DONE, message=SWITCHED_OFF)
    if arguments.debug:
        account.show_debug()
    if arguments.deadline is not None:
        one.deadline = one.ledger.state.began + arguments.deadline
    credentials = credentials_directory()
    node = Node(root=one.root, arguments=arguments)
    _report(one, node)

    found = locate(arguments, root=one.root, given=one.given, credentials=credentials, read_url=_url_reader(one))
    if found is None:
        return Outcome(exit_code=Exit.DONE, message=NO_CONFIGURATION)
    account.configuration(found)
    one.config = validate.read(found.text, name=found.name).fetch
    _report(one, node)

    account.identity(node.summary())
    roots = Roots(one.config.allowed_roots)
    planned = plan(
        moved(one.config, artifact_url=arguments.artifact_url),
        roots=roots,
        node=node,
        base_url=arguments.base_url,
        credentials=credentials,
    )
    account.planned(planned, config=one.config)
    room = Room()
    no_room = room.preflight(planned.orders)

    _wait_a_while(one)
    transports = Transports(tls=one.config.tls, proxy=one.config.proxy)
    bringer = Bringer(
        account=account,
        transports=transports,
        roots=roots,
        room=room,
        deadline=one.deadline,
        stop=one.stop,
    )
    for name, error in [*((artifact.name, error) for artifact, error in planned.failed), *no_room.items()]:
        bringer.failed(name, error)
    parallel = one.config.parallel
    bringer.bring_all(
        [order for order in planned.orders if order.name not in no_room],
        parallel=parallel,
        many=lambda waiting: _bring_together(bringer, waiting, parallel=parallel),
    )
    transports.close()
    return of_run(one.ledger.state, failures=bringer.failures)


def _bring_together(bringer: Bringer, waiting: SimpleQueue[Order], *, parallel: int) -> None:
    from pxe_fetch.together import bring_together  # few runs have so many artifacts

    bring_together(bringer, waiting, parallel=parallel)


def _kernel_command_line(root: Path) -> str:
    """What the kernel was started with; "" where /proc does not tell (a container, a sandbox)."""
    try:
        return (root / "proc/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _url_reader(one: Run) -> ReadUrl:
    """Reads the configuration's URL, with the persistence that an artifact has."""

    def read(url: str, digest: Digest | None, limit: int) -> bytes:
        from pxe_fetch.transfer.receive import fetch_text
        from pxe_fetch.transport import Transports

        transports = Transports()
        try:
            return fetch_text(
                (url,),
                name="configuration",
                digest=digest,
                limit=limit,
                transports=transports,
                events=one.account,
                stop=one.stop,
                retry=RetryPolicy(),
                timeouts=Timeouts(),
                deadline=one.deadline,
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
            one.account.remark(f"nothing is reported: {error}", priority=WARNING)
            return
        from pxe_fetch.reporting.report import Reporter

        one.reporter = Reporter(url, ledger=one.ledger, tls=one.config.tls, proxy=one.config.proxy)
        one.reporter.begin()


def _wait_a_while(one: Run) -> None:
    """Let a random part of start_jitter pass, so that a thousand nodes do not ask at once. Raises DeadlineError."""
    if not one.config.start_jitter:
        return
    import random

    wait = random.uniform(0, one.config.start_jitter)  # noqa: S311  to spread the load, not to keep a secret
    one.account.remark(f"starting in {span(wait)} (start_jitter)", priority=INFO)
    one.stop.wait(max(min(wait, one.deadline - time.monotonic()), 0))
    if time.monotonic() >= one.deadline:
        raise DeadlineError("the run's deadline was over before it began to fetch")


def _tell(one: Run, outcome: Outcome) -> None:
    """The end, for everybody who waits for it, and what the configuration wants done after a failure."""
    one.account.finish(outcome)
    console(f"pxe-fetch: {one.ledger.state.phase}: {outcome.message}")
    if not outcome.failed:
        notify(READY, f"STATUS={outcome.message}")
    else:
        notify(f"STATUS={outcome.message}")
    if one.reporter and (trouble := one.reporter.finish(hurried=outcome.cause == StoppedError.reference)):
        one.account.remark(f"the report was not delivered: {trouble}", priority=WARNING)
    if outlook := _outlook(one, outcome):
        one.account.remark(outlook, priority=WARNING)
    _act(one, outcome)


def _outlook(one: Run, outcome: Outcome) -> str | None:
    """What becomes of the service after a failure, for who reads its journal."""
    if not outcome.failed or not is_service() or outcome.cause == StoppedError.reference:
        return None
    failures = one.ledger.state.failures
    if outcome.exit_code in RESTARTED and failures < LAST_RUN:
        return f"systemd starts the service again, after {failures} of {LAST_RUN} failed runs; what has arrived is kept"
    why = f"{LAST_RUN} runs in a row failed" if outcome.exit_code in RESTARTED else "another run would end alike"
    # systemd.unit(5), StartLimitBurst=: after so many starts it refuses another, a person's too, until that is reset.
    again = f"systemctl reset-failed {UNIT_NAME} && systemctl start {UNIT_NAME}"
    return f"systemd does not start the service again, since {why}; once mended: {again}"


def _act(one: Run, outcome: Outcome) -> None:
    """Carry out on_failure: at once where no restart can mend the failure, else after the last run that there will be.

    Only for the service. A person who tries a configuration by hand does not want the machine to go down.
    """
    action = one.config.on_failure
    if not outcome.failed or action == "continue" or not is_service() or outcome.cause == "stopped":
        return
    if outcome.exit_code in RESTARTED and one.ledger.state.failures < LAST_RUN:
        one.account.remark(f"on_failure: {action} waits: the service is started again first")
        return
    from pxe_fetch import units

    one.account.remark(f"on_failure: {action}", priority=WARNING)
    if trouble := units.act(action):
        one.account.remark(f"on_failure: {action} could not be carried out: {trouble}", priority=WARNING)


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
