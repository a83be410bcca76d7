"""A node of an image that was made from a root filesystem's folder, booted by this machine's signed boot loaders."""

from __future__ import annotations

from boot.nodes import Booted
from boot.sites import BESIDE


def test_image_made_from_a_folder_boots_and_fetches(made: Booted) -> None:
    assert made.code == 0, made.shown
    assert made.has(BESIDE)
    assert made.inspected["units"]["pxe-fetch.target"]["ActiveState"] == "active"


def test_nothing_in_it_fails(made: Booted) -> None:
    assert made.inspected["failed_units"] == []
