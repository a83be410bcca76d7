"""Growing the last file of an ISO: what must hold for the image before, and what holds afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from packing.site import files_of, make_iso
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.inject.grow_last_file import grow_last_file
from pxe_pack.tools import WorkError

FILES: dict[str, str | bytes] = {"a/first": b"1" * 5000, "m": b"2" * 3000, "z/last": b"3" * 2048}


def in_two_extents(image: Path, name: str) -> None:
    """Split a file of 8 KiB into two extents, as files from 4 GiB are: two records, one name (ECMA-119 9.1.6)."""
    raw = bytearray(image.read_bytes())
    with open_iso(image) as opened:
        folder = opened.entries[name.rpartition("/")[0]].spans[0]
    records, at = [], folder.offset
    while raw[at]:
        records.append(bytes(raw[at : at + raw[at]]))
        at += raw[at]
    first, second = bytearray(records[-1]), bytearray(records[-1])
    sector = int.from_bytes(first[2:6], "little")
    for record, start in ((first, sector), (second, sector + 2)):
        record[2:10] = start.to_bytes(4, "little") + start.to_bytes(4, "big")
        record[10:18] = (4096).to_bytes(4, "little") + (4096).to_bytes(4, "big")
    first[25] |= 0x80
    at -= len(first)
    raw[at : at + 2 * len(first)] = first + second
    image.write_bytes(raw)


def test_the_file_and_the_volume_are_longer_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    image = make_iso(tmp_path / "x.iso", FILES, options=["-J"])
    before = image.stat().st_size
    place = grow_last_file(image, name="z/last", size=9000)
    with image.open("r+b") as file:
        file.seek(place)
        file.write(b"4" * 9000)
    assert files_of(image) == {**FILES, "z/last": b"4" * 9000}
    with open_iso(image) as opened:
        assert opened.volume_size == opened.size == before + 4 * 2048


def test_a_file_that_is_not_the_last_is_refused(tmp_path: Path) -> None:
    image = make_iso(tmp_path / "x.iso", FILES)
    raw = image.read_bytes()
    with pytest.raises(WorkError, match="a/first is not the last file"):
        grow_last_file(image, name="a/first", size=9000)
    assert image.read_bytes() == raw


def test_a_file_in_several_extents_may_be_the_last(tmp_path: Path) -> None:
    image = make_iso(tmp_path / "x.iso", {**FILES, "z/last": b"3" * 4096 + b"4" * 4096})
    in_two_extents(image, "z/last")
    with open_iso(image) as opened:
        assert [span.size for span in opened.entries["z/last"].spans] == [4096, 4096]
        start = opened.entries["z/last"].spans[0].offset
    assert grow_last_file(image, name="z/last", size=8192) == start
