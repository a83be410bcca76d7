"""Public keys in the image: checked, baked in by every injector, shown, replaced and removed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.keys import KeyPair, key_pair
from packing.site import Site, files_of
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]
Shown = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], list[dict[str, str]]]:
    """Gives the keys that `show` finds in an image or a layout."""

    def run(path: Path) -> list[dict[str, str]]:
        assert cli.main(["show", str(path), "--json"]) == 0
        (result,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"result"' in line]
        found = result["trust"]
        assert isinstance(found, list)
        for one in found:
            assert cli.main(["show", str(path)]) == 0
            assert f"{one['file']} (minisign key {one['key_id']})" in capsys.readouterr().out
        return found

    return run


@pytest.mark.parametrize("inject", ["updates", "initrd", "rootfs"])
def test_every_injector_puts_the_keys_into_the_image_and_show_finds_them(
    site: Site, packs: Packs, keys: KeyPair, inject: str, shown: Shown
) -> None:
    following = key_pair(site.folder, "next")
    site.pack = {"trust": [str(keys.public), "next.pub"]}
    packs("--inject", inject)
    expected = [{"file": "next.pub", "key_id": following.id}, {"file": "site.pub", "key_id": keys.id}]
    assert shown(site.output) == expected
    assert sorted(site.manifest()["trust"], key=str) == sorted(expected, key=str)  # type: ignore[call-overload]


def test_keys_are_files_as_given_which_everybody_can_read(site: Site, packs: Packs, keys: KeyPair) -> None:
    said = packs("--inject", "updates", "--trust", keys.public)
    assert f"site.pub (minisign key {keys.id})" in said
    assert files_of(site.iso)["updates/etc/pxe-fetch/trust/site.pub"] == keys.public.read_bytes()
    payload = site.manifest()["inject"]["payload"]  # type: ignore[index]
    (entry,) = [one for one in payload if one["path"] == "/etc/pxe-fetch/trust/site.pub"]
    assert entry["mode"] == "0644"


@pytest.mark.parametrize("inject", ["updates", "initrd", "rootfs"])
def test_a_pack_replaces_the_keys_of_an_earlier_one_and_remove_takes_them_out(
    site: Site, packs: Packs, keys: KeyPair, inject: str, shown: Shown
) -> None:
    following = key_pair(site.folder, "next")
    packs("--inject", inject, "--trust", keys.public)
    earlier = site.folder / "earlier"
    site.output.rename(earlier)
    site.image = earlier
    packs("--inject", inject, "--trust", following.public)
    assert shown(site.output) == [{"file": "next.pub", "key_id": following.id}]
    assert cli.main(["remove", str(site.output)]) == 0
    assert shown(site.output) == []
    assert "trust" not in site.manifest()


def test_flags_win_and_the_plan_names_the_keys(site: Site, packs: Packs, keys: KeyPair) -> None:
    following = key_pair(site.folder, "next")
    site.pack = {"trust": [str(keys.public)]}
    planned = packs("--dry-run", "--trust", following.public)
    assert f"trust     next.pub (minisign key {following.id})" in planned
    assert keys.id not in planned


@pytest.mark.parametrize("name", ["site.key", "site.pub"])
def test_a_secret_key_is_refused_whatever_its_name(refused: Refused, keys: KeyPair, tmp_path: Path, name: str) -> None:
    file = tmp_path / "given" / name
    file.parent.mkdir()
    secret = keys.secret.read_bytes().splitlines()
    for content in (
        b"\n".join(secret),
        b"\r\n".join([*secret, b""]),
        secret[1],
        b"untrusted comment: mine\n" + secret[1],
    ):
        file.write_bytes(content)
        said = refused("--trust", file)
        assert "error[trust-key-secret]" in said
        assert "SECRET key, which must never get into an image" in said
        assert secret[1].decode()[:20] not in said


def test_another_programs_private_key_is_refused_as_one(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "site.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True, capture_output=True)
    assert "error[trust-key-secret]" in refused("--trust", file)


def test_keys_with_the_line_ends_of_windows_are_the_same_keys(site: Site, packs: Packs, keys: KeyPair) -> None:
    public, secret = site.folder / "site.pub", site.folder / "site.key"
    public.write_bytes(keys.public.read_bytes().replace(b"\n", b"\r\n"))
    secret.write_bytes(keys.secret.read_bytes().replace(b"\n", b"\r\n"))
    packs("--inject", "updates", "--trust", public)
    assert files_of(site.iso)["updates/etc/pxe-fetch/trust/site.pub"] == keys.public.read_bytes()
    fleet = site.folder / "fleet.yaml"
    fleet.write_text("version: 1\nserial: 1\nartifacts: []\n")
    pin = ["pin", str(site.output), str(fleet), "--url", "http://10.0.0.1/fleet.yaml", "--quiet"]
    assert cli.main([*pin, "--sign", str(secret)]) == 0
    subprocess.run(["minisign", "-V", "-p", keys.public, "-m", fleet], check=True, capture_output=True)


def test_files_that_are_no_public_keys_are_refused(refused: Refused, keys: KeyPair, tmp_path: Path) -> None:
    comment, key = keys.public.read_bytes().splitlines()
    wrong = {
        "empty": b"",
        "text": b"hello\n",
        "short": comment + b"\n" + key[:-4] + b"\n",
        "other-algorithm": comment + b"\nRU" + key[2:] + b"\n",
        "no-comment": key + b"\n",
        "two": keys.public.read_bytes() * 2,
        "long": keys.public.read_bytes() + b"\n" * 5000,
    }
    for name, content in wrong.items():
        (tmp_path / f"{name}.pub").write_bytes(content)
    os.mkfifo(tmp_path / "pipe.pub")
    (tmp_path / "folder.pub").mkdir()
    names = [*wrong, "pipe", "folder", "missing"]
    said = refused(*(word for name in names for word in ("--trust", tmp_path / f"{name}.pub")))
    assert said.count("error[trust-key-invalid]") == len(wrong)
    assert said.count("error[trust-key-unreadable]") == 3
    assert all(f"{name}.pub" in said for name in names)


def test_one_key_twice_and_two_keys_of_one_name_are_refused(refused: Refused, keys: KeyPair, tmp_path: Path) -> None:
    (tmp_path / "again.pub").write_bytes(keys.public.read_bytes())
    said = refused("--trust", keys.public, "--trust", tmp_path / "again.pub")
    assert "has the same key as site.pub" in said
    other = key_pair(tmp_path)
    assert "would be site.pub in the image" in refused("--trust", keys.public, "--trust", other.public)


def test_check_tells_of_a_wrong_key_in_the_configuration(site: Site, checked: Callable[..., object]) -> None:
    site.pack = {"trust": ["missing.pub"]}
    site.write_config()
    assert "trust-key-unreadable" in checked(site.image, "--agent-config", site.config).found  # type: ignore[attr-defined]
