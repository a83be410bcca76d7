"""What both halves hold an archive's members to."""

from __future__ import annotations

import pytest

from pxe_fetch.contract.tar import file_mode, folder_mode, leads_outside


@pytest.mark.parametrize(
    ("archived", "on_node"),
    [
        (0o644, 0o644), (0o755, 0o755), (0o777, 0o755), (0o666, 0o644), (0o4755, 0o755), (0o2644, 0o644),
        (0o1777, 0o755), (0o000, 0o600), (0o400, 0o600), (0o500, 0o700), (0o111, 0o711), (0o011, 0o600), (0o055, 0o644),
    ],
)  # fmt: skip
def test_a_file_has_the_mode_that_tarfiles_data_filter_gives_it(archived: int, on_node: int) -> None:
    # Written out: tarfile of Python 3.11.2 has no filters (tarfile, "Extraction filters").
    assert oct(file_mode(archived)) == oct(on_node)


def test_a_folder_is_its_owners_and_nobody_else_may_write() -> None:
    assert [oct(folder_mode(mode)) for mode in (0o2777, 0o500, 0o0, 0o1770)] == ["0o755", "0o700", "0o700", "0o750"]


@pytest.mark.parametrize("target", ["file", ".", "./x", "a/b/c", "..", "../..", "../../x", "../.", "... /x", "..."])
def test_links_that_stay_inside(target: str) -> None:
    assert not leads_outside(target, depth=2)


@pytest.mark.parametrize(
    "target", ["", "/", "/x", "//x", "../../..", "a/..", "../a/../b", "./..\0", "x\0", "a/../../.."]
)
def test_links_that_lead_outside_or_could(target: str) -> None:
    assert leads_outside(target, depth=2)
