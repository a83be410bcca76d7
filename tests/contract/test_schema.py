"""The published schema accepts what the validator accepts, and has the validator's keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from contract.test_round_trips import configs
from pxe_fetch.contract import document
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import ProblemError
from pxe_pack import dump
from pxe_pack.config import read
from pxe_pack.schema import Json, Schema, schema

ROOT = Path(__file__).parents[2]
SCHEMA = schema()
CHECKER = Draft7Validator(SCHEMA)
SHA256 = "0" * 64


def plain(value: document.Value) -> Json:
    """A value of ours as every reader of YAML would give it."""
    if isinstance(value.data, dict):
        return {key: plain(entry.value) for key, entry in value.data.items()}
    if isinstance(value.data, list):
        return [plain(item) for item in value.data]
    return value.data


def load(text: str) -> Json:
    return plain(document.load(text, name="fetch.yaml", problems=document.Problems(text, name="fetch.yaml")))


def complaints(text: str) -> list[str]:
    return [error.message for error in CHECKER.iter_errors(load(text))]


def sections(part: Json = SCHEMA, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every section that the schema knows, by its path."""
    if isinstance(part, dict):
        if isinstance(properties := part.get("properties"), dict):
            yield path, properties
            for key, value in properties.items():
                yield from sections(value, f"{path}.{key}" if path else key)
        yield from sections(part.get("items"), f"{path}[]")


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@given(configs)
def test_every_configuration_that_the_agent_takes_is_accepted(config: FetchConfig) -> None:
    assert complaints(dump.dump(config)) == []


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/**/fetch.yaml")), ids=lambda path: path.parent.name)
def test_every_example_is_accepted(file: Path) -> None:
    assert complaints(file.read_text()) == []


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/fetch-yaml.md").read_text(), re.DOTALL))
def test_what_the_documentation_shows_is_accepted(text: str) -> None:
    whole = text if "version:" in text else f"version: 1\nartifacts:\n{text}"
    read(whole, name="fetch.yaml")
    assert complaints(whole) == []


@pytest.mark.parametrize("path", [path for path, _ in sections()])
def test_a_key_that_no_section_has_is_refused_by_both_and_the_known_ones_are_the_same(path: str) -> None:
    """The validator lists the keys that it knows when it meets one that it does not."""
    keys = dict(sections())[path]
    inner: dict[str, object] = {"qqqqqqqqqqqq": 1}
    for name in reversed(path.split(".") if path else []):
        inner = {name.removesuffix("[]"): [inner] if name.endswith("[]") else inner}
    text = json.dumps({"version": 1, **inner})
    with pytest.raises(ProblemError) as caught:
        read(text, name="fetch.yaml")
    (unknown,) = [problem for problem in caught.value.problems if problem.reference == "unknown-key"]
    assert unknown.hint.removeprefix("known keys here: ").split(", ") == list(keys)
    assert any("qqqqqqqqqqqq" in complaint for complaint in complaints(text))


@pytest.mark.parametrize("path", [path for path, _ in sections()])
def test_every_key_says_what_it_means_and_stands_in_the_documentation(path: str) -> None:
    documented = (ROOT / "docs/fetch-yaml.md").read_text()
    for key, form in dict(sections())[path].items():
        assert isinstance(form, dict)
        assert form.get("description"), f"{path}.{key}"
        assert re.search(rf"\b{key}\b", documented), f"{path}.{key}"


@pytest.mark.parametrize(
    "text",
    [
        "parallel: 4",
        "version: 2",
        "version: 1\nparallel: many",
        "version: 1\nparallel: 65",
        "version: 1\nstart_jitter: 5",
        "version: 1\non_failure: explode",
        "version: 1\npack: {inject: magic}",
        "version: 1\nreport: {url: file:///x}",
        f"version: 1\nartifacts: [{{name: a, url: a, source: a, sha256: '{SHA256}', dest: /srv/a}}]",
        f"version: 1\nartifacts: [{{name: a, url: a, sha256: '{SHA256}', sha256_url: b, dest: /srv/a}}]",
        f"version: 1\nartifacts: [{{name: a, url: a, sha256: '{SHA256}', dest: srv/a}}]",
        f"version: 1\nartifacts: [{{name: a, url: a, sha256: '{SHA256}', dest: /srv/a, size: lots}}]",
        f"version: 1\nartifacts: [{{name: a, url: a, sha256: '{SHA256}', dest: /srv/a, mode: rwx}}]",
        f"version: 1\nartifacts: [{{url: a, sha256: '{SHA256}', dest: /srv/a}}]",
        "version: 1\nartifacts: [{name: a, url: a, sha256: abc, dest: /srv/a}]",
    ],
)
def test_refuses_what_the_validator_refuses(text: str) -> None:
    with pytest.raises(ProblemError):
        read(text, name="fetch.yaml")
    assert complaints(text)


def test_takes_an_artifact_without_a_digest_which_a_lock_file_may_have() -> None:
    assert not complaints("version: 1\nartifacts: [{name: a, url: http://h/a, dest: /srv/a}]")


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2000), st.sampled_from(["/srv/a", "http://h/", "a", "5s", "1KiB", "tar"])
)


@given(st.data())
def test_what_the_validator_takes_by_chance_the_schema_takes_too(data: st.DataObject) -> None:
    """One artifact and one further key with some value: whenever the validator has nothing against it."""
    path = data.draw(st.sampled_from([path for path, _ in sections()]))
    keys = dict(sections())[path]
    inner: dict[str, object] = {}
    inner[data.draw(st.sampled_from(sorted(keys)))] = data.draw(scalars | st.lists(scalars, max_size=2))
    if path == "artifacts[]":
        inner = {"name": "a", "url": "a", "sha256": SHA256, "dest": "/srv/a", **inner}
    for name in reversed(path.split(".") if path else []):
        inner = {name.removesuffix("[]"): [inner] if name.endswith("[]") else inner}
    text = json.dumps({"version": 1, **inner})
    try:
        read(text, name="fetch.yaml")
    except ProblemError:
        return
    assert complaints(text) == []
