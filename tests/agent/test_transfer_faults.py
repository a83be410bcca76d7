"""What the engine does about faults, and says: test_fault_matrix_*.py has all of them, in runs of the whole agent."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.exchange import Fault
from fakes.faults import (
    Flip,
    Raw,
    Serve,
    Status,
    cut,
    reset,
    unavailable,
)
from fakes.server import Script, Server
from fakes.transfers import Bench, EventRecorder, QuickClock
from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.errors import IntegrityError, NetworkError
from pxe_fetch.transport import Transports

BODY = random.Random(2).randbytes(300_000)
FEW = RetryPolicy(attempts_without_progress=2)


@pytest.mark.parametrize(
    "fault", [unavailable(), unavailable("7"), reset(0.5), cut(0.5), Flip(), Status(401), Raw(b"")], ids=repr
)
def test_nobody_waits_who_can_go_elsewhere(fault: Fault, tmp_path: Path) -> None:
    with Server({"/1": Script(body=BODY, then=fault)}) as bad, Server({"/1": Script(body=BODY)}) as good:
        bench = Bench(body=BODY, folder=tmp_path, urls=[bad.url("/1"), good.url("/1")], retry=FEW)
        assert bench.download().url == good.url("/1")
        assert not bench.clock.waits or max(bench.clock.waits) == 0


def test_a_body_beyond_the_size_is_left_at_its_first_byte_too_many(tmp_path: Path) -> None:
    body = BODY * 4  # more than a buffer of the agent's
    endless = Serve(body=body * 2, framing="chunked")
    with Server({"/1": Script(then=endless)}) as server:
        bench = Bench(body=body, size=len(body), folder=tmp_path, urls=[server.url("/1")])
        with pytest.raises(IntegrityError, match="wrong size") as caught:
            bench.download()
        # One byte more shows it; the rest is not waited for.
        assert caught.value.bytes_received == len(server.asked) * (len(body) + 1)


def test_a_refused_connection_is_tried_again(tmp_path: Path) -> None:
    with Server({"/1": Script(body=BODY)}) as server:
        server.down()

        def during(number: int) -> None:
            if number == 2:
                server.up()

        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/1")], clock=QuickClock(during=during))
        assert bench.download().attempts == 4
        assert all("refused the connection" in str(told["error"]) for told in bench.events.of("retrying"))


def test_a_server_that_stays_down_is_a_network_error(tmp_path: Path) -> None:
    with Server() as server:
        server.down()
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/1")])
        with pytest.raises(NetworkError, match=r"refused the connection.*10 attempts"):
            bench.download()


def test_a_name_that_does_not_resolve_is_a_network_error(tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=["http://no-such-host.invalid/m"], retry=FEW)
    with pytest.raises(NetworkError, match=r"the name no-such-host\.invalid cannot be resolved"):
        bench.download()


def test_each_story_is_told_with_the_artifacts_own_name(tmp_path: Path) -> None:
    events = EventRecorder()
    with Server({f"/{number}": Script(body=BODY, faults=[unavailable()]) for number in range(3)}) as server:
        transports = Transports()
        benches = [
            Bench(
                body=BODY,
                folder=tmp_path,
                urls=[server.url(f"/{n}")],
                name=f"m{n}",
                events=events,
                transports=transports,
            )
            for n in range(3)
        ]
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(Bench.download, benches))
        transports.close()
    told = {facts["name"]: facts["url"] for facts in events.of("retrying")}
    assert told == {f"m{n}": server.url(f"/{n}") for n in range(3)}
