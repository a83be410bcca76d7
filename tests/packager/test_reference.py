"""The tables in docs/fetch-yaml.md are those that the declarations of the keys make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from pxe_fetch.contract.keys import METADATA
from pxe_fetch.contract.model import FetchConfig
from pxe_pack import reference
from pxe_pack.config import SECTIONS, Pack

DOCUMENT = Path(__file__).parents[2] / "docs/fetch-yaml.md"
COMMAND = "python3 -m pxe_pack.reference docs/fetch-yaml.md"


def test_the_documentation_has_the_keys_that_are_declared() -> None:
    text = DOCUMENT.read_text()
    assert text == reference.rewritten(text), f"run: {COMMAND}"
    assert COMMAND in (reference.__doc__ or "")


def test_a_changed_table_is_made_anew_and_the_text_around_it_stays() -> None:
    details = r"Written `by hand \| kept`."
    old = f"old\n| `gone` | x | y | z |\n| `client_key` |  |  | {details} |\n"
    text = f"before\n<!-- keys of tls -->\n{old}<!-- end of keys -->\nafter\n"
    found = reference.rewritten(text)
    assert found.startswith("before\n<!-- keys of tls -->\n| key | default | meaning | details |\n")
    assert found.endswith("|\n<!-- end of keys -->\nafter\n")
    assert "| `ca_file` |" in found
    assert "old" not in found
    assert "gone" not in found
    assert re.search(rf"(?m)^\| `client_key` \|  \| [^|]+ \| {re.escape(details)} \|$", found)
    assert reference.rewritten(found) == found


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_key_has_a_short_sentence_that_says_what_it_means(section: str) -> None:
    for name, declared in SECTIONS[section].keys.items():
        meaning = declared.key.meaning
        assert meaning.endswith("."), name
        assert len(meaning) <= 80, name  # it stands behind the key in what `pxe-pack init` writes


def unspelled(model: type) -> Iterator[str]:
    """The fields below `model` that no key fills."""
    for field in fields(model):
        if METADATA not in field.metadata:
            yield f"{model.__name__}.{field.name}"
    for each in fields(model):
        if isinstance(each.default, object) and is_dataclass(type(each.default)):
            yield from unspelled(type(each.default))


def test_every_field_of_the_configuration_is_spelled_by_a_key() -> None:
    assert list(unspelled(FetchConfig)) == []
    assert list(unspelled(Pack)) == []
