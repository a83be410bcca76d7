"""A node that has artifacts from a share: a real NFS server, the units of examples/nfs, the agent in its sandbox."""

from __future__ import annotations

from boot.nodes import Booted
from boot.shares import CUT, LATE, LISTED, MOUNTED, TAKEN
from fakes.mounts import as_root
from fakes.server import Server
from pxe_fetch.contract.paths import MessageId

pytestmark = as_root  # who else may not serve NFS


def test_share_that_comes_late_is_mounted_when_it_is_asked_again(made: Booted, server: Server) -> None:
    assert made.has(LATE)
    first, *others = made.said("late", MessageId.RETRYING)
    assert first["PXE_FETCH_URL"] == f"{MOUNTED}/late.txt"
    assert "could not be mounted" in first["MESSAGE"]
    assert {asked.status for asked in server.asked_for("/late.txt")} == {503}
    assert others
    (placed,) = made.said("late", MessageId.PLACED)
    assert placed["PXE_FETCH_URL"] == f"{MOUNTED}/late.txt"


def test_file_goes_on_from_a_web_server_where_the_share_broke_off(made: Booted, server: Server) -> None:
    assert made.has(CUT)
    (broken,) = made.said("cut", MessageId.RETRYING)
    assert broken["PXE_FETCH_URL"] == f"{MOUNTED}/cut.bin"
    (resumed,) = made.said("cut", MessageId.RESUMED)
    (asked,) = server.asked_for("/cut.bin")
    offset = int(resumed["PXE_FETCH_BYTES"])
    assert offset > TAKEN // 2
    assert (asked.status, asked.range, asked.sent) == (206, f"bytes={offset}-", len(CUT.body) - offset)
    assert made.artifacts["cut"]["bytes_received"] == len(CUT.body)


def test_share_is_there_again_when_its_server_is(made: Booted) -> None:
    assert made.has(LISTED)
    (placed,) = made.said("listed", MessageId.PLACED)
    assert placed["PXE_FETCH_URL"] == f"{MOUNTED}/liveos.csv"
