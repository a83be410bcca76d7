"""Records: what every class of named values can rely on."""

from __future__ import annotations

from dataclasses import field, fields, replace

import pytest

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.contract.record import mutable_record, record
from pxe_fetch.contract.url import parse


@record
class Place:
    host: str
    port: int = 80
    notes: list[str] = field(default_factory=list)


@record
class NamedPlace(Place):
    name: str


@mutable_record
class Counter:
    count: int = 0


def test_records_with_the_same_values_are_equal_and_hash_alike() -> None:
    one, same, other = (Timeouts(connect=seconds) for seconds in (1.0, 1.0, 2.0))
    assert one == same
    assert hash(one) == hash(same)
    assert len({one, same, other}) == 2


def test_a_record_differs_from_one_of_another_class_with_the_same_values() -> None:
    assert NamedPlace(host="a", name="b") != Place(host="a")


def test_a_derived_record_has_the_fields_of_both() -> None:
    assert [one.name for one in fields(NamedPlace)] == ["host", "port", "notes", "name"]
    assert repr(NamedPlace(host="a", name="b")) == "NamedPlace(host='a', port=80, notes=[], name='b')"


def test_each_record_has_a_default_of_its_own() -> None:
    first, second = Place(host="a"), Place(host="a")
    first.notes.append("seen")
    assert second.notes == []


def test_replace_keeps_the_other_values() -> None:
    assert replace(Place(host="a", port=1), host="b") == Place(host="b", port=1)


def test_a_missing_an_unknown_and_a_positional_value_are_refused() -> None:
    with pytest.raises(TypeError, match="host"):
        Place()  # type: ignore[call-arg]  # it is what is refused
    with pytest.raises(TypeError, match="hots"):
        Place(host="a", hots="b")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Place("a")  # type: ignore[call-arg]


def test_a_field_that_does_not_exist_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        Counter().cuont = 1  # type: ignore[attr-defined]  # it is what is refused


def test_a_record_that_changes_equals_only_itself() -> None:
    one = Counter()
    one.count += 1
    assert {one, one} == {one}
    assert one != Counter(count=1)


def test_the_secret_parts_of_a_url_are_not_shown() -> None:
    shown = repr(parse("http://user:word@host/path?signature"))
    assert "user" not in shown
    assert "signature" not in shown
    assert "host='host'" in shown
