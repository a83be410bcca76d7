"""Artifacts by tags: `pxe-pack lock` resolves them, and nodes get digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fakes import registry as fake
from fakes.registry import Registry
from packing.registries import SMALL, Fails, Runs, skopeo
from packing.site import Site, files_of
from pxe_pack import cli


@pytest.fixture
def tagged(registry: Registry, site: Site, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A configuration with an artifact by a tag."""
    monkeypatch.chdir(site.folder)
    (site.folder / "m").mkdir()
    (site.folder / "m/m.bin").write_bytes(SMALL)
    runs("push", "m", f"{registry.place}/site/{site.folder.name.lower()}:v1")
    name = f"{registry.place}/site/{site.folder.name.lower()}:v1"
    site.rest = {"artifacts": [{"name": "model", "oci": name, "title": "m.bin", "dest": "/srv/m.bin"}]}
    site.write_config()
    return site


def test_a_tag_is_packed_as_the_digest_that_the_lock_file_has(
    tagged: Site,
    packs: Callable[..., str],
    refused: Callable[..., str],
    runs: Runs,
) -> None:
    assert "error[oci-tag]" in refused()
    runs("lock", "fetch.yaml")
    (entry,) = yaml.safe_load(Path("fetch.lock").read_text())["artifacts"]
    reference = tagged.rest["artifacts"][0]["oci"]  # type: ignore[index]
    assert (entry["oci"], entry["title"], entry["size"]) == (reference, "m.bin", len(SMALL))
    assert entry["sha256"] == hashlib.sha256(SMALL).hexdigest()
    packs()
    text = files_of(tagged.iso)["updates/etc/pxe-fetch/fetch.yaml"].decode()
    (artifact,) = yaml.safe_load(text)["artifacts"]
    assert artifact["oci"] == f"{reference.rpartition(':')[0]}@sha256:{entry['manifest']}"
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference.removeprefix('http://')}")
    assert fake.digest(raw) == f"sha256:{entry['manifest']}"


def test_a_tag_that_has_moved_is_found_and_the_packed_digest_stays(
    tagged: Site, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs("lock", "fetch.yaml")
    before = Path("fetch.lock").read_text()
    assert cli.main(["lock", "--check", "fetch.yaml"]) == 0
    Path("m/m.bin").write_bytes(b"something else\n")
    runs("push", "m", str(tagged.rest["artifacts"][0]["oci"]))  # type: ignore[index]
    capsys.readouterr()
    assert cli.main(["lock", "--check", "fetch.yaml"]) == 3
    assert "model has changed" in capsys.readouterr().out
    runs("lock", "fetch.yaml")
    assert Path("fetch.lock").read_text() == before
    runs("lock", "--upgrade", "model", "fetch.yaml")
    assert Path("fetch.lock").read_text() != before


def test_registries_whose_tags_mean_different_manifests_are_not_locked(
    tagged: Site, fails: Fails, tmp_path: Path
) -> None:
    first = str(tagged.rest["artifacts"][0]["oci"])  # type: ignore[index]
    with fake.registry(tmp_path / "other") as other:
        second = f"{other.place}/site/model:v1"
        fake.put(
            other,
            "site/model",
            fake.manifest(fake.descriptor(SMALL, title="m.bin"), annotations={"a": "b"}),
            SMALL,
            tag="v1",
        )
        tagged.rest["artifacts"][0]["oci"] = [first, second]  # type: ignore[index]
        tagged.write_config()
        assert "error[lock-mirrors-differ]" in fails("lock", "fetch.yaml")
    assert not Path("fetch.lock").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("manifest: ", "x-manifest: "), ("title: m.bin", "title: n.bin"), ("manifest: ", "manifest: 0")]
)
@pytest.mark.usefixtures("tagged")
def test_an_entry_that_was_edited_is_refused(runs: Runs, refused: Callable[..., str], old: str, new: str) -> None:
    runs("lock", "fetch.yaml")
    text = Path("fetch.lock").read_text()
    Path("fetch.lock").write_text(text.replace(old, new))
    assert "error[" in refused()


# The checks of a configuration


def findings(out: str) -> dict[str, str]:
    (document,) = (json.loads(line) for line in out.splitlines() if '"findings"' in line)
    return {one["reference"]: one["message"] for one in document["findings"] if one["reference"].startswith("url-un")}


def test_check_asks_the_registry_for_the_layer(tagged: Site, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs("lock", "fetch.yaml")
    artifact = tagged.rest["artifacts"][0]  # type: ignore[index]

    def check() -> dict[str, str]:
        capsys.readouterr()
        cli.main(["check", str(tagged.image), "--agent-config", "fetch.yaml", "--json"])
        return {key: text for key, text in findings(capsys.readouterr().out).items() if "artifact model" in text}

    assert check() == {}
    digest = yaml.safe_load(Path("fetch.lock").read_text())["artifacts"][0]["manifest"]
    artifact["oci"] = f"{artifact['oci'].rpartition(':')[0]}@sha256:{digest}"
    artifact["title"] = "other"
    tagged.write_config()
    Path("fetch.lock").unlink()
    assert "no layer has the title other; there are: m.bin" in check()["url-unreachable"]
    artifact["oci"] = f"{artifact['oci'].rpartition(':')[0]}:{'0' * 64}"
    tagged.write_config()
    assert "404" in check()["url-unreachable"]
    artifact["registry_credential"], artifact["insecure"] = "pxe-fetch.registry", True
    tagged.write_config()
    assert "a credential that only nodes have" in check()["url-unasked"]
    place = artifact["oci"].removeprefix("http://").partition("/")[0]
    artifact["tiers"] = {f"http://{place}/v2/": ["http://127.0.0.1:1/files/"]}
    del artifact["registry_credential"]
    tagged.write_config()
    cli.main(["check", str(tagged.image), "--agent-config", "fetch.yaml", "--json"])
    assert "http://127.0.0.1:1/files/" in capsys.readouterr().out
