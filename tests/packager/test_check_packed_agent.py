"""A configuration that comes by URL, checked against the agent and the unit in a layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import tiny
from packing.checking import Checked
from packing.site import ARTIFACT, Site, image_with_root

Check = Callable[..., Checked]
Packs = Callable[..., str]


def fleet(site: Site, *artifacts: dict[str, object], **rest: object) -> Path:
    """A configuration beside the site's own."""
    file = site.folder / "fleet.yaml"
    file.write_text(json.dumps({"version": 1, "artifacts": [{**ARTIFACT, **one} for one in artifacts], **rest}))
    return file


@pytest.mark.parametrize("inject", ["updates", "initrd", "rootfs"])
def test_destinations_have_to_be_below_the_packed_roots(site: Site, packs: Packs, checked: Check, inject: str) -> None:
    site.rest = {"allowed_roots": ["/srv/models", "/opt"], "artifacts": []}
    packs("--inject", inject)
    everywhere: dict[str, object] = {"allowed_roots": ["/srv", "/opt", "/var/lib"]}
    for dest, severity in {
        "/srv/models/m.bin": "",
        "/opt/m.bin": "",
        "/srv/m.bin": "error",
        "/srv/models-2/m.bin": "error",
        "/srv/models/${mac}": "",
        "/srv/${hostname}/m.bin": "",
        "/var/lib/${hostname}/m.bin": "error",
    }.items():
        told = checked(site.output, "--agent-config", fleet(site, {"dest": dest}, **everywhere))
        assert told.severity("dest-outside-packed") == severity, dest
    told = checked(site.output, "--agent-config", fleet(site, {"dest": "/srv/m", "required": False}, **everywhere))
    assert told.severity("dest-outside-packed") == "warning"
    assert "/srv/models, /opt" in told.found["dest-outside-packed"]["message"]


def test_the_configuration_that_was_packed_fits(site: Site, packs: Packs, checked: Check) -> None:
    (site.folder / "m.bin").write_bytes(b"model")
    site.rest = {"live_space": "60%", "artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m"}]}
    packs()
    told = checked(site.output, "--agent-config", site.config)
    assert not {"dest-outside-packed", "source-not-packed", "live-space-not-packed"} & set(told.found)


def test_what_was_not_packed_is_told(site: Site, packs: Packs, checked: Check) -> None:
    packs()
    (site.folder / "m.bin").write_bytes(b"model")
    source: dict[str, object] = {"name": "local", "url": None, "sha256": None, "source": "m.bin", "dest": "/srv/local"}
    told = checked(site.output, "--agent-config", fleet(site, source, live_space="60%"))
    assert told.severity("source-not-packed") == "error"
    assert told.severity("live-space-not-packed") == "warning"
    assert told.severity("agent-other-version") == "note"
    assert "the packed agent is 0.0.1" in told.found["agent-other-version"]["message"]


def test_credentials_that_an_older_systemd_has_to_be_told(
    site: Site, packs: Packs, checked: Check, tmp_path: Path
) -> None:
    secret: dict[str, object] = {"url": "https://10.0.0.1/m", "header_credential": "pxe-fetch.new"}
    packs()
    assert not checked(site.output, "--agent-config", fleet(site, secret)).severity("credential-not-packed")
    old = [replace(one, path=one.path.replace(str(tiny.SYSTEMD_VERSION), "252")) for one in tiny.tree()]
    site.image = image_with_root(site.image, old, tmp_path)
    packs()
    told = checked(site.output, "--agent-config", fleet(site, secret))
    assert told.severity("credential-not-packed") == "error"
    site.rest = {"artifacts": [{**ARTIFACT, **secret}]}
    packs()
    assert not checked(site.output, "--agent-config", fleet(site, secret)).severity("credential-not-packed")
