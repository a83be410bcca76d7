"""The fault matrix: answers to ranges that are not the bytes asked for, and files that change mid-way."""

from __future__ import annotations

import pytest

from fakes.cells import BODY, Case, Cell, Trial, matrix
from fakes.exchange import Fault
from fakes.faults import Flip, Gzipped, Serve, Status, ToRanges, WrongRange, cut
from fakes.node import FakeNode

OTHER = bytes(len(BODY))  # what the server has after its file was changed


def ranges(name: str, fault: Fault, chunked: str | None = None) -> Case:
    """Half comes, then `fault` to every range: the half comes again, unless a mirror can go on."""
    return Case(
        name=name, passing=[cut(0.5), fault], then=fault, again=0.5, again_mirrored=0, again_chunked=1, chunked=chunked
    )


CASES = [
    ranges("200 to a range", Serve(ranges=False)),
    ranges("206 too far", WrongRange(first=1)),
    ranges("206 too early", WrongRange(first=-1)),
    ranges("206 short", WrongRange(last=-1)),
    ranges("206 beyond the end", WrongRange(last=1)),
    ranges("206 of another total", WrongRange(whole=7), chunked="integrity"),  # its size is known to be another
    ranges("206 of other bytes", Serve(shift=9)),
    ranges("206 of earlier bytes", Serve(shift=-9)),
    ranges("206 of fewer bytes", Serve(short=9)),
    ranges("206 without range", WrongRange(missing=True)),
    ranges("416 in the middle", ToRanges(Status(416))),
    ranges("416 in the middle, of the whole", ToRanges(Status(416, {"Content-Range": f"bytes */{len(BODY)}"}))),
    # The end of the connection is the end of the file, so it is asked for what follows: 416, nothing does.
    Case(name="416 at the end", passing=[Flip(framing="close"), Serve(framing="close")], again=1),
    Case(name="changed ETag", passing=[cut(0.5), Serve(etag='"new"')], again=0.5, again_chunked=0),
    Case(
        name="changed ETag, If-Range unheeded",
        passing=[cut(0.5), Serve(etag='"new"', heeds_if_range=False)],
        again=0.5,
        again_mirrored=0,
    ),
    Case(name="weak ETag", passing=[Serve(until=0.5, etag="weak"), Serve(etag="weak")], then=Serve(etag="weak")),
    Case(name="no ETag", passing=[Serve(until=0.5, etag=None), Serve(etag=None)], then=Serve(etag=None)),
    Case(
        name="file changed mid-way",
        passing=[cut(0.5), Serve(body=OTHER)],
        then=Serve(body=OTHER),
        cause="integrity",
        again=2,
        again_chunked=1,  # as much as one buffer holds
    ),
    Case(
        name="file changed mid-way, weak ETag",
        passing=[Serve(until=0.5, etag="weak"), Serve(body=OTHER, etag="weak")],
        then=Serve(body=OTHER, etag="weak"),
        cause="integrity",
        again=2,
        again_chunked=1,  # as much as one buffer holds
    ),
    Case(name="wrong bytes in the middle", passing=[Flip()], then=Flip(), cause="integrity", again=1),
    Case(name="wrong first byte", passing=[Flip(at=0)], then=Flip(at=0), cause="integrity", again=1),
    Case(name="gzip not asked for", passing=[Gzipped()], then=Gzipped(), cause="integrity", again=1.01),
]


@pytest.mark.parametrize(("case", "cell"), matrix(CASES), ids=str)
def test_in_every_cell_the_three_invariants_hold(case: Case, cell: Cell, node: FakeNode) -> None:
    Trial(case=case, cell=cell, node=node).run()
