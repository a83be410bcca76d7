"""The fault matrix: servers that are not there, that say no, come again, or look elsewhere, and that speak no HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import pytest

from fakes.cells import Case, Cell, cells, matrix
from fakes.certs import Authority
from fakes.exchange import Fault
from fakes.faults import Hang, Raw, Status, ToItself, cut, redirect, reset, unavailable
from fakes.node import FakeNode
from fakes.outages import Outages
from fakes.server import Server
from fakes.trial import Trial


def always(name: str, fault: Fault, cause: str, *, once: str | None = None, slow: bool = False) -> Case:
    """A fault that is the same whether it happens once or always; `once`: it is final."""
    return Case(name=name, passing=[fault], then=fault, cause=cause, once=once, slow=slow)


CASES = [
    always("503", unavailable(), "network"),
    always("503 for 7 seconds", unavailable("7"), "network"),
    always("503 until a date", unavailable("Fri, 31 Dec 2100 23:59:59 GMT"), "network"),
    always("503 for ten years", unavailable("315360000"), "network"),
    always("503 until nonsense", unavailable("soon"), "network"),
    always("500", Status(500), "network"),
    always("429", Status(429, {"Retry-After": "1"}), "network"),
    always("408", Status(408), "network"),
    always("421", Status(421), "network"),
    always("204", Status(204), "network"),
    always("304", Status(304), "network"),
    Case(name="404 for a while", passing=[Status(404)] * 3, then=Status(404), cause="not-found"),
    Case(  # a range may be what the server does not understand, so the whole is asked for
        name="400", passing=[Status(400)], then=Status(400), cause="refused", once="refused", once_chunked=None
    ),
    always("405", Status(405), "refused", once="refused"),
    always("401", Status(401, {"WWW-Authenticate": 'Basic realm="x"'}), "refused", once="refused"),
    Case(name="403", passing=[Status(403)], then=Status(403), cause="refused", once="refused", once_chunked=None),
    always("410", Status(410), "refused", once="refused"),
    always("301 loop", ToItself(), "network"),
    always("redirect to a file", redirect("file:///etc/passwd"), "policy", once="policy"),
    always("redirect to nowhere", Status(302), "network"),
    always("redirect to what is no URL", redirect("http://[::1/x"), "network"),
    always("no answer", Hang(), "network", slow=True),
    always("header byte by byte", Hang(every=0.03), "network", slow=True),
    always("hangs up", Raw(b""), "network"),
    always("not HTTP", Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "network"),
    always("half a header", Raw(b"HTTP/1.1 200 OK\r\nContent-Le"), "network"),
    always("a header of 1 MB", Status(200, {"X-Big": "x" * 1_000_000}), "network"),
    always("a header of 1 MB in fields", Status(200, {f"X-{n}": "x" * 90 for n in range(10_000)}), "network"),
    always("two lengths", Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), "network"),
]


@pytest.mark.parametrize(("case", "cell"), matrix(CASES), ids=str)
def test_in_every_cell_the_three_invariants_hold(case: Case, cell: Cell, node: FakeNode) -> None:
    Trial(case=case, cell=cell, node=node).run()


SECURE = [
    always("redirect from https to http", redirect("http://127.0.0.1:9/"), "policy", once="policy"),
    always("reset inside TLS", reset(0.5), "network"),
    always("cut inside TLS", cut(0.5), "network"),
]


@pytest.mark.parametrize(("case", "cell"), matrix(SECURE), ids=str)
def test_over_tls_they_hold_too(
    case: Case, cell: Cell, node: FakeNode, authority: Authority, localhost: ssl.SSLContext
) -> None:
    Trial(case=case, cell=cell, node=node, tls=localhost, ca_file=authority.certificate).run()


@contextmanager
def away(server: Server) -> Iterator[None]:
    """Nobody listens."""
    server.down()
    yield
    server.up()


@contextmanager
def late(server: Server) -> Iterator[None]:
    """Nobody listens yet."""
    server.down()
    timer = Timer(0.05, server.up)
    timer.start()
    yield
    timer.join()


REFUSALS = [
    Case(name="refused for ever", befall=away, cause="network"),
    Case(name="refused for a while", befall=late),
]


@pytest.mark.parametrize(
    ("case", "cell"),
    [(case, cell) for case, cell in matrix(REFUSALS) if (cell.lasts == "lasting") == bool(case.cause)],
    ids=str,
)
def test_refused_connections(case: Case, cell: Cell, node: FakeNode) -> None:
    Trial(case=case, cell=cell, node=node).run()


@pytest.mark.parametrize("cell", [cell for cell in cells(REFUSALS[0]) if cell.lasts == "lasting"], ids=str)
def test_down_and_up_twenty_times(cell: Cell, node: FakeNode) -> None:
    outages = Outages(number=20, share=1 / (21 * 8))
    case = Case(name="down and up twenty times", then=outages, befall=outages.befall)
    Trial(case=case, cell=cell, node=node).run()
    if cell.mirror == "alone":
        assert len(outages.been) == 20
