"""One test boot, followed event by event and stage by stage until the node gives its verdict."""

from __future__ import annotations

import time
from contextlib import ExitStack
from queue import Empty

from pxe_fetch.contract.problem import Problem
from pxe_pack.boot.events import Ended, Event, Events, Report, Requested, Sent, Serial
from pxe_pack.boot.outcome import NodeState, Served, read_state, size
from pxe_pack.boot.served_layout import ServedLayout
from pxe_pack.boot.stages import USUAL_CAUSES, Stage, Stop, Watcher
from pxe_pack.console import Console, Step

REPORT_FOLLOWS = 30.0  # seconds to wait for the final report after the console's verdict; the agent retries for 15
STILL_SPEAKING = 1.0  # seconds to keep reading the console after a fatal message, so that the log is complete
LAST_LINES = 10
IN_PLACE = frozenset(("placed", "kept", "skipped"))  # phases of an artifact that is finished
NOT_FOUND = 404
TITLES = {
    Stage.FIRMWARE: "firmware: starting",
    Stage.TFTP: "network: loading the boot loader",
    Stage.GRUB: "GRUB: loading kernel and initrd over TFTP",
    Stage.KERNEL: "kernel: the initrd is configuring the network",
    Stage.LIVENET: "livenet: the node is downloading the ISO",
    Stage.PIVOT: "pivot: the image's own system is starting",
    Stage.UNIT: "unit: the agent is fetching the artifacts",
}


class StopError(Exception):
    """Marks the console step of the stage that failed."""


class Trial:
    """The progress of a test boot, shown on the console. Times are seconds since its creation."""

    def __init__(self, layout: ServedLayout, *, console: Console, reports: bool = True) -> None:
        self.node: NodeState | None = None  # the verdict
        self.so_far: NodeState | None = None  # the last report before the verdict
        self.watcher = Watcher()
        self.stages: list[tuple[Stage, float]] = []  # the finished ones, with the seconds each took
        self.served: dict[str, Served] = {}
        self._layout = layout
        self._reports = reports  # whether the node sends its report here
        self._console = console
        self._began = self._stage_began = time.monotonic()
        self._stage = Stage.FIRMWARE
        self._shown = ExitStack()
        self._step: Step
        self._show()

    @property
    def has_verdict(self) -> bool:
        """Whether the node has reported how its run ended."""
        return self.node is not None or self.watcher.verdict is not None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def follow(self, events: Events, *, timeout: float, keep: bool) -> Stop | None:
        """Process `events` until the verdict, or with `keep` until the machine is off, for at most `timeout` seconds.

        Returns why there is no verdict; None if there is one.
        """
        until = time.monotonic() + timeout
        ended: Ended | None = None
        while ended is None and (left := until - time.monotonic()) > 0:
            try:
                event = events.get(timeout=left)
            except Empty:
                break
            had_verdict = self.has_verdict
            self._take(event)
            if keep and self.has_verdict and not had_verdict:
                self._console.say(f"{self._verdict()}; keeping the node running until it powers off (Ctrl-C stops it)")
            if isinstance(event, Ended):
                ended = event
            elif self.node and not keep:
                break
            elif self.watcher.stop and not self.has_verdict:
                until = min(until, time.monotonic() + STILL_SPEAKING)
            elif self.has_verdict and not keep:
                until = min(until, time.monotonic() + (REPORT_FOLLOWS if self._reports else STILL_SPEAKING))
        if self.has_verdict:
            return None
        return self.watcher.stop or self._gone(ended) or self._silent(timeout)

    def close(self) -> None:
        """End the current stage; no more events will follow."""
        self.stages.append((self._stage, time.monotonic() - self._stage_began))
        if self.has_verdict:
            self._shown.close()
        else:
            self._shown.__exit__(StopError, StopError(), None)

    def explain(self, stop: Stop) -> Problem:
        """`stop` as a problem: the stage, the last lines of the serial console, the hint."""
        missed = [served.url for served in self.served.values() if served.missed]
        lines = [
            *(f"the node requested {url}, which is not in this layout" for url in missed),
            *(self._iso_so_far() if self._stage == Stage.LIVENET else ()),
            *(self._artifacts_so_far()),
            "the last lines of its serial console:",
            *(f"  {line}" for line in self.watcher.last_lines(LAST_LINES)),
        ]
        return Problem(
            reference=f"boot-stopped-{str(self._stage).lower()}",
            message=f"the node did not get past the stage {self._stage}: {stop.why}",
            label="\n  ".join(lines),
            hint=stop.hint,
        )

    def _take(self, event: Event) -> None:
        match event:
            case Serial(text=text):
                self.watcher.read(text)
            case Requested(url=url, status=status):
                served = self.served.setdefault(url, Served(url=url))
                served.requests += 1
                served.missed += status == NOT_FOUND
                if url in self._layout.http:
                    self.watcher.reached(Stage.LIVENET if url == self._layout.iso else Stage.UNIT)
            case Sent(url=url, amount=amount):
                self.served[url].bytes += amount
                if url == self._layout.iso and self._stage == Stage.LIVENET:
                    self._step.advance(amount)
            case Report(document=document):
                state = read_state(document)
                if state.exit_code is None:
                    self.so_far = state
                else:
                    self.node = state
                self.watcher.reached(Stage.UNIT)
            case Ended():
                pass
        if self.watcher.stage > self._stage:
            self.stages.append((self._stage, time.monotonic() - self._stage_began))
            self._stage = self.watcher.stage
            self._stage_began = time.monotonic()
            self._shown.close()
            self._show()

    def _verdict(self) -> str:
        """The node's verdict as a short phrase."""
        if self.node:
            return f"the agent's run has ended: {self.node.phase}, exit code {self.node.exit_code}"
        return self.watcher.verdict.text if self.watcher.verdict else ""

    def _show(self) -> None:
        iso = self._layout.http.get(self._layout.iso or "")
        total = self._layout.size(iso) if iso and self._stage == Stage.LIVENET else None
        self._shown = ExitStack()
        self._step = self._shown.enter_context(self._console.step(TITLES[self._stage], total=total))

    def _gone(self, ended: Ended | None) -> Stop | None:
        if ended is None:
            return None
        if ended.code:
            return Stop(why=f"QEMU ended with exit code {ended.code}: {ended.complaint}", hint="see QEMU's message")
        return Stop(
            why="the machine powered off or rebooted",
            hint="the last lines of the serial log show why; `on_failure: reboot` or `poweroff` is one cause",
        )

    def _silent(self, timeout: float) -> Stop:
        return Stop(why=f"no result within {timeout:.0f} s", hint=f"often: {USUAL_CAUSES[self._stage]}")

    def _artifacts_so_far(self) -> list[str]:
        """Lines from the node's last report about artifacts that are not in place yet."""
        if self.so_far is None:
            return []
        under_way = [one for one in self.so_far.artifacts if one.phase not in IN_PLACE]
        return [
            f"the node's last report, {self.so_far.seconds:.0f} s into its run: {self.so_far.phase}",
            *(
                f"  {one.name}: {one.phase}, {size(one.bytes)}{f', {one.error}' if one.error else ''}"
                for one in under_way
            ),
        ]

    def _iso_so_far(self) -> list[str]:
        iso = self._layout.iso
        if iso is None:
            return []
        served = self.served.get(iso)
        if served is None:
            return [f"the node never requested {iso}"]
        whole = self._layout.size(self._layout.http[iso])
        return [f"the node downloaded {size(served.bytes)} of {iso} ({size(whole)}) in {served.requests} requests"]
