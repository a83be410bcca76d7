"""The fault matrix: answers to ranges that are not the bytes asked for, and files that change mid-way."""

from __future__ import annotations

import pytest

from fakes.cells import Case, Cell, Restart, matrix
from fakes.exchange import Fault
from fakes.faults import Another, Flip, Gzipped, NoSuchRange, RefusesRanges, Serve, WrongRange, cut
from fakes.node import FakeNode
from fakes.trial import Trial


def ranges(name: str, fault: Fault, *, chunked: str | None = None) -> Case:
    """The half is here, and `fault` is the answer to a request for the rest."""
    return Case(name=name, begun=True, passing=[fault], then=fault, chunked=chunked, restart=Restart.NO_RANGES)


CASES = [
    ranges("200 to a range", Serve(ranges=False)),
    ranges("206 too far", WrongRange(first=1)),
    ranges("206 too early", WrongRange(first=-1)),
    ranges("206 short", WrongRange(last=-1)),
    ranges("206 beyond the end", WrongRange(last=1)),
    ranges("206 of another total", WrongRange(whole=7), chunked="integrity"),  # its size is known to be another
    ranges("206 of later bytes", Serve(shift=9)),
    ranges("206 of earlier bytes", Serve(shift=-9)),
    ranges("206 of fewer bytes", Serve(short=9)),
    ranges("206 without range", WrongRange(missing=True)),
    ranges("400 to a range", RefusesRanges(400)),
    ranges("412 to a range", RefusesRanges(412)),
    ranges("416 in the middle", NoSuchRange()),
    ranges("416 in the middle, of the whole", NoSuchRange(tells=True)),
    Case(name="no ranges", passing=[Serve(ranges=False)], then=Serve(ranges=False)),
    # The end of the connection is the end of the file, so it is asked for what follows: 416, nothing does.
    Case(name="416 at the end", passing=[Flip(framing="close"), Serve(framing="close")]),
    Case(
        name="changed ETag",
        before=[cut(0.5)],
        passing=[Serve(etag='"new"')],
        then=Serve(etag='"new"'),
        restart=Restart.OTHER_FILE,
    ),
    Case(
        name="changed ETag, If-Range unheeded",
        before=[cut(0.5)],
        passing=[Serve(etag='"new"', heeds_if_range=False)],
        then=Serve(etag='"new"', heeds_if_range=False),
        restart=Restart.OTHER_FILE,
    ),
    Case(name="weak ETag", passing=[Serve(until=0.5, etag="weak"), Serve(etag="weak")], then=Serve(etag="weak")),
    Case(name="no ETag", passing=[Serve(until=0.5, etag=None), Serve(etag=None)], then=Serve(etag=None)),
    Case(
        name="file changed mid-way",
        before=[cut(0.5)],
        passing=[Another()],
        then=Another(),
        cause="integrity",
        restart=Restart.OTHER_FILE,
    ),
    Case(
        name="file changed mid-way, weak ETag",
        before=[Serve(until=0.5, etag="weak")],
        passing=[Another(etag="weak")],
        then=Another(etag="weak"),
        cause="integrity",
    ),
    Case(name="another file", passing=[Another()], then=Another(), cause="integrity"),
    Case(name="wrong bytes in the middle", passing=[Flip()], then=Flip(), cause="integrity"),
    Case(name="wrong first byte", passing=[Flip(at=0)], then=Flip(at=0), cause="integrity"),
    Case(name="gzip not asked for", passing=[Gzipped()], then=Gzipped(), cause="integrity"),
]


@pytest.mark.parametrize(("case", "cell"), matrix(CASES), ids=str)
def test_in_every_cell_the_three_invariants_hold(case: Case, cell: Cell, node: FakeNode) -> None:
    Trial(case=case, cell=cell, node=node).run()
