"""The fault matrix: bodies that break off, stall, drip, or end otherwise than they were declared to."""

from __future__ import annotations

import pytest

from fakes.cells import Case, Cell, cells, matrix
from fakes.faults import Declares, Longer, Raw, Serve, cut, drip, reset, stall
from fakes.node import FakeNode
from fakes.trial import Trial

LAST = -1
CASES = [
    Case(name="reset at 0", passing=[reset(0)], then=reset(0), cause="network"),
    Case(name="reset at one byte", passing=[reset(1)], then=reset(1), cause="network"),
    Case(name="reset in the middle", passing=[reset(0.5)], then=reset(0.5), cause="network"),
    Case(name="reset at the last byte", passing=[reset(LAST)], then=reset(LAST), cause="network"),
    Case(name="five resets", passing=[reset(n / 6) for n in range(1, 6)]),
    Case(name="stall at 0", slow=True, passing=[stall(0)], then=stall(0), cause="network"),
    Case(name="stall in the middle", slow=True, passing=[stall(0.5)], then=stall(0.5), cause="network"),
    Case(name="cut at 0", passing=[cut(0)], then=cut(0), cause="network"),
    Case(name="cut Content-Length body", passing=[cut(0.5)], then=cut(0.5), cause="network"),
    Case(name="cut before the last byte", passing=[cut(LAST)], then=cut(LAST), cause="network"),
    Case(
        name="cut chunked body",
        passing=[cut(0.5, framing="chunked")],
        then=cut(0.5, framing="chunked"),
        cause="network",
    ),
    Case(
        name="stalled chunked body",
        slow=True,
        passing=[Serve(until=0.5, then="stall", framing="chunked")],
        then=Serve(until=0.5, then="stall", framing="chunked"),
        cause="network",
    ),
    Case(name="close-delimited body", passing=[Serve(framing="close")], then=Serve(framing="close")),
    Case(
        name="cut close-delimited body",
        passing=[cut(0.5, framing="close")],
        then=cut(0.5, framing="close"),
        cause="network",
    ),
    Case(name="longer than declared", passing=[Declares(extra=b"x" * 5000)], then=Declares(extra=b"x" * 5000)),
    # A server without a declared length may be taken at its word by nobody who knows the size, or the chunks.
    Case(
        name="longer than the file",
        passing=[Longer(extra=b"x" * 5000)],
        then=Longer(extra=b"x" * 5000),
        cause="integrity",
        chunked=None,
    ),
    # What was declared came, so that it is the bytes that are wrong, all of them; a range of another length is none.
    Case(name="declared too short", passing=[Declares(more=-100)], then=Declares(more=-100), cause="integrity"),
    Case(name="declared too long", passing=[Declares(more=100)], then=Declares(more=100), sized="integrity"),
    Case(
        name="bad chunk size",
        passing=[Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")],
        then=Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        cause="network",
    ),
    Case(
        name="endless chunk size",
        passing=[Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 70_000)],
        then=Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 70_000),
        cause="network",
    ),
]


# A mirror is left for being slow only where there is another.
DRIP = Case(name="drip", slow=True, passing=[drip(0.5, every=0.03)], then=drip(0.5, every=0.03))
DRIPS = [(DRIP, cell) for cell in cells(DRIP) if cell.mirror == "mirrored"]


@pytest.mark.parametrize(("case", "cell"), [*matrix(CASES), *DRIPS], ids=str)
def test_in_every_cell_the_three_invariants_hold(case: Case, cell: Cell, node: FakeNode) -> None:
    Trial(case=case, cell=cell, node=node).run()
