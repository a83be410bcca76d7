"""What `check` says of a layout whose nodes fetch their configuration by URL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.server import Script, Server
from packing.checking import Checked
from packing.keys import KeyPair, sign
from packing.pins import URL, Pins
from pxe_pack import cli

Check = Callable[..., Checked]
OWN = {"config-unsigned", "config-unpinned", "config-pin-differs", "config-expired", "config-serial-lower"}


def by_hand(pins: Pins, *arguments: str) -> None:
    """Write kernel arguments into grub.cfg as people do."""
    grub = pins.site.output / "boot/grub2/grub.cfg"
    grub.write_text(grub.read_text().replace(" rd.live.image", f" rd.live.image {' '.join(arguments)}"))


def record(pins: Pins, **pinned: object) -> None:
    """Change what the manifest says of the pin."""
    manifest = pins.site.manifest()
    manifest["pinned"] = {**pins.recorded, **pinned}
    (pins.site.output / "manifest.json").write_text(json.dumps(manifest))


def test_state_of_a_pin_is_a_note(trusting: Pins, keys: KeyPair, checked: Check) -> None:
    assert "config-pinned" not in checked(trusting.site.output).found
    trusting.write(serial=7, expires="2999-12-31")
    trusting.done()
    message = checked(trusting.site.output).found["config-pinned"]["message"]
    assert f"fleet.yaml from {URL}: pinned by its digest, sha256 {trusting.digest}" in message
    trusting.done("--sign", keys.secret)
    told = checked(trusting.site.output)
    message = told.found["config-pinned"]["message"]
    assert (
        f"signed by site.pub (minisign key {keys.id}), serial 7 (packed: 5), expires at 2999-12-31T23:59:59Z" in message
    )
    assert told.severity("config-pinned") == "note"
    assert not OWN & set(told.found)


def test_what_is_neither_signed_nor_pinned_is_an_error_where_the_image_has_keys(trusting: Pins, checked: Check) -> None:
    by_hand(trusting, "pxe-fetch.config=https://10.0.0.1/f.yaml?sig=s3cret")
    told = checked(trusting.site.output)
    assert told.severity("config-unsigned") == "error"
    assert "https://10.0.0.1/f.yaml.minisig" in told.found["config-unsigned"]["message"]
    assert "s3cret" not in told.found["config-unsigned"]["message"]
    by_hand(trusting, f"pxe-fetch.config.sha256={'0' * 64}")
    assert "config-unsigned" not in checked(trusting.site.output).found


def test_plain_http_without_a_digest_is_an_error_where_the_image_has_no_keys(pins: Pins, checked: Check) -> None:
    by_hand(pins, "pxe-fetch.config=http://10.0.0.1/f.yaml")
    assert checked(pins.site.output).severity("config-unpinned") == "error"
    by_hand(pins, f"pxe-fetch.config.sha256={'0' * 64}")
    assert "config-unpinned" not in checked(pins.site.output).found


def test_arguments_are_told_as_the_agent_reads_them(trusting: Pins, checked: Check) -> None:
    assert "configuration by URL" not in links(trusting)
    by_hand(trusting, "pxe_fetch.config=https://evil.example/x")
    assert "configuration by URL" in links(trusting)
    told = checked(trusting.site.output)
    assert "https://evil.example/x" in told.found["config-unsigned"]["message"]
    by_hand(trusting, f"pxe_fetch.config_sha256={'0' * 64}")
    assert "config-unsigned" in checked(trusting.site.output).found, "the agent has no argument of this name"
    by_hand(trusting, f"pxe-fetch.config.sha256={'0' * 64}")
    assert "config-unsigned" not in checked(trusting.site.output).found


def links(pins: Pins) -> list[str]:
    """The links of the chain that `check` shows."""
    cli.main(["check", str(pins.site.output), "--offline", "--json"])
    result = json.loads(pins.capsys.readouterr().out.splitlines()[-1])
    return [one["link"] for one in result["chain"]]


def test_the_isos_digest_is_told_as_dracut_reads_it(pins: Pins, checked: Check) -> None:
    by_hand(pins, f"pxe_fetch.iso.sha256={'0' * 64}")
    assert not {"iso-digest-differs", "iso-digest-unread"} & set(checked(pins.site.output).found)
    by_hand(pins, f"pxe-fetch.iso.sha256={'0' * 64}")
    assert {"iso-digest-differs", "iso-digest-unread"} & set(checked(pins.site.output).found)


def test_a_signature_by_a_key_that_the_image_does_not_have_is_none(
    trusting: Pins, keys: KeyPair, checked: Check
) -> None:
    trusting.done("--sign", keys.secret)
    record(trusting, signed_by="0123456789ABCDEF")
    told = checked(trusting.site.output)
    assert "signed by the key 0123456789ABCDEF, which is not in the image" in told.found["config-unsigned"]["message"]


def test_a_pin_that_nodes_refuse_by_now_is_an_error(trusting: Pins, keys: KeyPair, checked: Check) -> None:
    trusting.done("--sign", keys.secret)
    for changed, reference in (
        ({"expires": "2001-02-03T04:05:06Z"}, "config-expired"),
        ({"expires": None, "serial": 4}, "config-serial-lower"),
        ({"serial": None}, "config-serial-missing"),
    ):
        record(trusting, **changed)
        assert checked(trusting.site.output).severity(reference) == "error"


def test_grub_cfg_and_manifest_that_differ_are_told(pins: Pins, checked: Check) -> None:
    pins.done()
    grub = pins.site.output / "boot/grub2/grub.cfg"
    grub.write_text(grub.read_text().replace(URL, "http://10.0.0.1/other.yaml"))
    assert checked(pins.site.output).severity("config-pin-differs") == "warning"
    pins.run("--remove")
    assert "config-pin-differs" not in checked(pins.site.output).found


def test_a_pinned_configuration_and_its_signature_are_asked_for(
    trusting: Pins, keys: KeyPair, packs: Callable[..., str], checked: Check
) -> None:
    with Server({"/fleet.yaml": Script(body=b"")}) as server:
        url = server.url("/fleet.yaml")
        trusting.site.rest["artifacts"] = []
        packs("--trust", keys.public, "--boot-url", server.url("/liveos.iso"))
        trusting.write(artifacts=[])
        trusting.done(url=url)
        told = checked(trusting.site.output, online=True).messages
        assert [one for one in told if one.startswith(f"the configuration fleet.yaml: {url} has 0 bytes, expected ")]
        server.scripts["/fleet.yaml"] = Script(body=trusting.fleet.read_bytes())
        trusting.done("--sign", keys.secret, url=url)
        told = checked(trusting.site.output, online=True).messages
        assert not [one for one in told if one.startswith("the configuration fleet.yaml:")]
        assert [
            one for one in told if f"the signature of the configuration fleet.yaml: cannot fetch {url}.minisig" in one
        ]


@pytest.fixture
def served(trusting: Pins, keys: KeyPair, packs: Callable[..., str]) -> Iterator[tuple[Pins, Server]]:
    """A layout whose nodes fetch a configuration from a server that runs."""
    with Server({}) as server:
        trusting.site.rest["artifacts"] = []
        packs("--trust", keys.public, "--boot-url", server.url("/liveos.iso"))
        trusting.write(artifacts=[])
        yield trusting, server


def served_now(server: Server, *files: Path) -> None:
    for file in files:
        server.scripts[f"/{file.name}"] = Script(body=file.read_bytes())


def refusals(checked: Check, pins: Pins) -> dict[str, str]:
    told = checked(pins.site.output, online=True)
    mine = {"config-served-differs", "config-served-unsigned", "config-serial-lower", "config-expired", "unknown-key"}
    return {name: one["message"] for name, one in told.found.items() if name in mine}


def test_a_served_configuration_has_to_have_the_pinned_digest(served: tuple[Pins, Server], checked: Check) -> None:
    pins, server = served
    url = server.url("/fleet.yaml")
    pins.done(url=url)
    served_now(server, pins.fleet)
    assert refusals(checked, pins) == {}
    server.scripts["/fleet.yaml"] = Script(body=pins.fleet.read_bytes().replace(b"5", b"6"))
    message = refusals(checked, pins)["config-served-differs"]
    assert f"served at {url} has the sha256 " in message
    assert f"not {pins.digest} as the kernel arguments say: nodes refuse it" in message


def test_a_served_configuration_has_to_be_signed_and_no_older_than_the_packed_one(
    served: tuple[Pins, Server], keys: KeyPair, checked: Check
) -> None:
    pins, server = served
    pins.done("--sign", keys.secret, url=server.url("/fleet.yaml?x=1"))
    served_now(server, pins.fleet, sign(pins.fleet, keys))
    assert refusals(checked, pins) == {}
    pins.write(artifacts=[], serial=6)  # a newer one needs no new pin
    served_now(server, pins.fleet, sign(pins.fleet, keys))
    assert refusals(checked, pins) == {}
    pins.write(artifacts=[], serial=7)
    served_now(server, pins.fleet)
    assert "fleet.yaml.minisig, does not fit" in refusals(checked, pins)["config-served-unsigned"]
    for values, reference in (
        ({"serial": 4}, "config-serial-lower"),
        ({"expires": "2001-02-03"}, "config-expired"),
        ({"sreial": 4}, "unknown-key"),
    ):
        pins.write(artifacts=[], **values)
        served_now(server, pins.fleet, sign(pins.fleet, keys))
        assert set(refusals(checked, pins)) == {reference}


def test_a_manifest_with_another_kind_of_highest_serial_is_refused(
    pins: Pins, capsys: pytest.CaptureFixture[str]
) -> None:
    pins.done()
    manifest = pins.site.manifest()
    assert manifest["pinned_serial"] == 5
    for changed in (-1, "5", True, 2**60, [5]):
        (pins.site.output / "manifest.json").write_text(json.dumps({**manifest, "pinned_serial": changed}))
        assert pins.run(pins.fleet) == 2
        assert "pinned_serial that is not a whole number" in " ".join(capsys.readouterr().err.split()), changed


def test_a_manifest_with_another_kind_of_pin_is_refused(pins: Pins, capsys: pytest.CaptureFixture[str]) -> None:
    pins.done()
    right = pins.recorded
    for changed in (
        {"url": 1},
        {"url": "http://10.0.0.1/a b"},
        {"name": None},
        {"size": "1"},
        {"size": True},
        {"sha256": "x"},
        {"serial": -1},
        {"serial": 2**60},
        {"expires": "soon"},
        {"signed_by": 7},
    ):
        record(pins, **{**right, **changed})
        assert cli.main(["show", str(pins.site.output)]) == 2
        assert "error[layout-unreadable]" in capsys.readouterr().err, changed
        assert pins.run(pins.fleet) == 2
        assert "error[layout-unreadable]" in capsys.readouterr().err, changed
