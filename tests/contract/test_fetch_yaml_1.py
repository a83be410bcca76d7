"""A `fetch.yaml` of version 1 stays readable, and means the same: fetch-yaml-1/ has some, and is never changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from pxe_fetch.contract import reader
from pxe_pack import dump
from pxe_pack.config import SECTIONS, read
from pxe_pack.reference import default_of

CORPUS = Path(__file__).parent / "fetch-yaml-1"
NAMES = sorted(path.stem for path in CORPUS.glob("*.yaml"))


def text(name: str) -> str:
    return (CORPUS / f"{name}.yaml").read_text()


def stored(name: str) -> object:
    return json.loads((CORPUS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_of_version_1_means_what_it_meant(name: str) -> None:
    document = read(text(name), name=f"{name}.yaml")
    assert yaml.safe_load(dump.dump(document.fetch, pack=document.pack)) == stored(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_node_gets_of_a_configuration_of_version_1_means_the_same(name: str) -> None:
    fetch = reader.read(text(name), name=f"{name}.yaml")
    assert reader.read(dump.dump(fetch), name="packed") == fetch


def test_the_defaults_of_version_1_are_what_they_were() -> None:
    found = {
        f"{section}.{key}": default_of(one) for section, keys in SECTIONS.items() for key, one in keys.keys.items()
    }
    expected = stored("defaults")
    assert isinstance(expected, dict)
    assert len(expected) > 20
    assert {key: found.get(key) for key in expected} == expected


def test_the_corpus_is_what_it_was() -> None:
    lines = (CORPUS / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split() for line in lines)}
    files = [path for path in CORPUS.iterdir() if path.suffix in {".yaml", ".json"}]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == listed
    assert {name.rpartition(".")[0] for name in listed if name.endswith(".json")} == {*NAMES, "defaults"}
