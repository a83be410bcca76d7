"""A signed boot: one program with kernel, initrd and arguments in it, and what happens when any of them changes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from liveos import shapes
from packing.checking import Checked
from packing.keys import key_pair
from packing.signing import Authority, authority, section
from packing.site import ARTIFACT, BOOT_URL, Site
from pxe_pack import cli, tools
from pxe_pack.trust import stub

Packs = Callable[..., str]
Checks = Callable[..., Checked]
NEW = "http://192.0.2.7/images/other.iso"
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("keys"), "Site Boot")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("others"), "Somebody")


@pytest.fixture
def signed(site: Site, key: Authority, packs: Packs) -> Site:
    """A layout that firmware with the site's key boots."""
    site.pack = {"secure_boot": {"key": str(key.key), "cert": str(key.certificate)}}
    packs()
    return site


def flags(key: Authority) -> list[str]:
    return ["--secure-boot-key", str(key.key), "--secure-boot-cert", str(key.certificate)]


def kernel_and_initrd(site: Site) -> tuple[Path, Path]:
    boot = site.output / "boot"
    return next(boot.glob("vmlinuz*")), next(boot.glob("init*"))


def error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main([*map(str, arguments)]) == 2
    return capsys.readouterr().err


def remains(capsys: pytest.CaptureFixture[str], site: Site, *arguments: str | Path) -> dict[str, str]:
    """What an attacker can still change, by link, as `check` says."""
    capsys.readouterr()
    cli.main(["check", str(site.output), "--offline", "--json", *map(str, arguments)])
    return {row["link"]: row["remains"] for row in json.loads(capsys.readouterr().out.splitlines()[-1])["chain"]}


def test_one_signed_program_has_what_the_layout_boots(signed: Site, key: Authority, checked: Checks) -> None:
    program, (kernel, initrd) = signed.output / "bootx64.efi", kernel_and_initrd(signed)
    assert key.has_signed(program)
    assert section(program, ".linux").startswith(kernel.read_bytes())
    assert section(program, ".initrd").startswith(initrd.read_bytes())
    words = section(program, ".cmdline").rstrip(b"\0").decode().split()
    assert f"root=live:{BOOT_URL}" in words
    assert "ip=dhcp" in words
    assert b"ID=" in section(program, ".osrel")
    assert not (signed.output / "grubx64.efi").exists()
    assert "kernel bootx64.efi ||" in (signed.output / "boot.ipxe").read_text()
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=signed.output, check=True)
    assert not [one for one in checked(signed.output).found if one.startswith(("signed", "secure", "image", "ipxe"))]


def test_a_shim_starts_the_program_as_its_second_stage(site: Site, key: Authority, packs: Packs) -> None:
    packs()
    shim = (site.output / "bootx64.efi").read_bytes()
    packs(*flags(key), "--secure-boot-chain", "shim")
    assert (site.output / "bootx64.efi").read_bytes() == shim
    assert key.has_signed(site.output / "grubx64.efi")
    assert b"systemd-stub" in (site.output / "grubx64.efi").read_bytes()


def test_the_same_inputs_give_the_same_program(signed: Site, packs: Packs) -> None:
    before = (signed.output / "bootx64.efi").read_bytes()
    packs()
    assert (signed.output / "bootx64.efi").read_bytes() == before


def test_the_private_key_is_in_no_file_and_in_no_log(
    site: Site, key: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(site.command("-vv", *flags(key))) == 0
    shown = capsys.readouterr()
    lines = [line.encode() for line in key.key.read_text().splitlines() if not line.startswith("---")]
    for content in [shown.out.encode() + shown.err.encode(), *_contents(site.output)]:
        assert not [line for line in lines if line in content]
    assert str(key.key) not in json.dumps(site.manifest())


def _contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def test_a_moved_layout_is_signed_again(signed: Site, key: Authority, checked: Checks) -> None:
    program = signed.output / "bootx64.efi"
    before = {name: section(program, name) for name in (".linux", ".initrd", ".osrel", ".sbat")}
    assert cli.main(["relocate", str(signed.output), "--boot-url", NEW, *flags(key)]) == 0
    assert f"root=live:{NEW} ".encode() in section(program, ".cmdline")
    assert {name: section(program, name) for name in before} == before
    assert key.has_signed(program)
    assert not checked(signed.output).severity("signed-boot-outdated")
    assert cli.main(["relocate", str(signed.output), "--boot-url", BOOT_URL, *flags(key)]) == 0
    moved_back = program.read_bytes()
    shutil.rmtree(signed.output)
    assert cli.main(signed.command("--quiet")) == 0
    assert program.read_bytes() == moved_back


def test_moving_or_removing_without_the_key_changes_nothing(signed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in signed.output.rglob("*") if path.is_file()}
    assert "error[signed-boot-no-key]" in error(capsys, "relocate", signed.output, "--boot-url", NEW)
    assert "error[signed-boot-no-key]" in error(capsys, "remove", signed.output)
    assert {path: path.read_bytes() for path in signed.output.rglob("*") if path.is_file()} == before


def _content_by_path(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _pin(site: Site, key: Authority) -> list[str]:
    fleet = site.folder / "fleet.yaml"
    fleet.write_text("version: 1\nartifacts: []\n")
    return ["pin", str(site.output), str(fleet), "--url", "http://10.0.0.1/fleet.yaml", *flags(key)]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ("boot/vmlinuz*", "the kernel /boot/vmlinuz"),
        ("boot/init*", "the initrd /boot/init"),
        ("boot/grub2/grub.cfg", "the kernel arguments in boot/grub2/grub.cfg"),
        ("bootx64.efi", "no valid signature"),
    ],
)
def test_nothing_that_was_changed_is_ever_signed_again(
    signed: Site, key: Authority, capsys: pytest.CaptureFixture[str], changed: str, what: str
) -> None:
    file = next(signed.output.glob(changed))
    content = bytearray(file.read_bytes())
    if changed.endswith(".cfg"):
        content = content.replace(b"ip=dhcp", b"ip=dhcp rd.break=pre-mount")
    elif "init" in changed:
        content += bytes(4)  # where an attacker would append an archive
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    before = _content_by_path(signed.output)
    relocation = ["relocate", str(signed.output), "--boot-url", NEW, *flags(key)]
    for command in (relocation, _pin(signed, key), ["remove", str(signed.output), *flags(key)]):
        shown = error(capsys, *command)
        assert "error[signed-boot-changed]" in shown
        assert what in shown
        assert "pack again" in shown
        assert _content_by_path(signed.output) == before


def test_a_new_certificate_needs_a_new_pack(signed: Site, other: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    before = _content_by_path(signed.output)
    shown = error(capsys, "relocate", signed.output, "--boot-url", NEW, *flags(other))
    assert "it is by Site Boot" in shown
    assert "a new certificate needs a new pack" in shown
    assert _content_by_path(signed.output) == before


def test_a_pin_that_was_killed_is_completed_by_the_next(
    signed: Site, key: Authority, capsys: pytest.CaptureFixture[str], checked: Checks
) -> None:
    program, old = signed.output / "bootx64.efi", _content_by_path(signed.output)
    assert cli.main(_pin(signed, key)) == 0
    new = _content_by_path(signed.output)
    for path, content in old.items():  # the program is the first file that it exchanges
        if path != program:
            path.write_bytes(content)
    remedy = checked(signed.output).found["signed-boot-outdated"]["remedy"]
    assert "relocate" not in remedy
    assert "run that again" in remedy
    relocation = ["relocate", str(signed.output), "--boot-url", NEW, *flags(key)]
    assert "the kernel arguments in boot/grub2/grub.cfg" in error(capsys, *relocation)
    assert cli.main(_pin(signed, key)) == 0
    assert _content_by_path(signed.output) == new


def test_values_of_the_manifest_are_not_signed(site: Site, key: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    chained = Site(folder=site.folder, image=shapes.cached(shapes.SHAPES["ic16"]), agent=site.agent)
    assert cli.main(chained.command("--quiet", *flags(key))) == 0
    manifest, digest = chained.output / "manifest.json", hashlib.sha256(chained.iso.read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(digest, "0" * 64))
    relocation = ["relocate", str(chained.output), "--boot-url", NEW, *flags(key)]
    assert "the kernel argument pxe-fetch.iso.sha256" in error(capsys, *relocation)
    (site.folder / "m.bin").write_bytes(b"weights")
    site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
    assert cli.main(site.command("--quiet", *flags(key))) == 0
    document = site.manifest()
    manifest.write_text(json.dumps({**document, "artifact_url": "http://192.0.2.66/"}))
    assert "the kernel argument pxe-fetch.artifact_url" in error(capsys, *relocation)
    moved = [*relocation, "--artifact-url", "http://192.0.2.7/files/"]
    assert cli.main(moved) == 0
    assert b"pxe-fetch.artifact_url=http://192.0.2.7/files/" in section(site.output / "bootx64.efi", ".cmdline")


def test_a_pinned_configuration_is_in_the_signed_arguments(
    signed: Site, key: Authority, checked: Checks, capsys: pytest.CaptureFixture[str]
) -> None:
    program = signed.output / "bootx64.efi"
    before = section(program, ".cmdline")
    fleet = signed.folder / "fleet.yaml"
    fleet.write_text("version: 1\nartifacts: []\n")
    command = ["pin", str(signed.output), str(fleet), "--url", "http://10.0.0.1/fleet.yaml"]
    assert "error[signed-boot-no-key]" in error(capsys, *command)
    assert section(program, ".cmdline") == before
    assert cli.main([*command, *flags(key)]) == 0
    digest = hashlib.sha256(fleet.read_bytes()).hexdigest()
    assert f"pxe-fetch.config.sha256={digest}" in section(program, ".cmdline").decode()
    assert key.has_signed(program)
    assert not [one for one in checked(signed.output).found if one.startswith(("signed", "ipxe"))]
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=signed.output, check=True)
    assert cli.main(["pin", str(signed.output), "--remove", *flags(key)]) == 0
    assert section(program, ".cmdline") == before


def test_without_the_payload_the_program_has_the_images_own_initrd(site: Site, key: Authority, packs: Packs) -> None:
    packs("--inject", "initrd", *flags(key))
    program = site.output / "bootx64.efi"
    with_payload = len(section(program, ".initrd"))
    assert cli.main(["remove", str(site.output), *flags(key)]) == 0
    _, initrd = kernel_and_initrd(site)
    assert section(program, ".initrd").startswith(initrd.read_bytes())
    assert len(section(program, ".initrd")) < with_payload
    assert key.has_signed(program)


def test_one_bit_of_the_program_is_found(signed: Site, checked: Checks) -> None:
    program = signed.output / "bootx64.efi"
    content = bytearray(program.read_bytes())
    content[content.index(b"root=live:") + 12] ^= 1
    program.write_bytes(content)
    found = checked(signed.output)
    assert found.severity("signed-boot-invalid") == "error"
    assert "modified after it was signed" in found.found["signed-boot-invalid"]["message"]
    assert found.found["signed-boot-invalid"]["remedy"] == "pack again"
    assert "kernel arguments" in found.found["signed-boot-outdated"]["message"]


@pytest.mark.parametrize(
    ("changed", "what"), [("vmlinuz*", "kernel"), ("init*", "initrd"), ("grub2/grub.cfg", "kernel arguments")]
)
def test_what_is_signed_and_what_is_served_have_to_agree(
    signed: Site, checked: Checks, changed: str, what: str
) -> None:
    file = next((signed.output / "boot").glob(changed))
    content = file.read_bytes()
    file.write_bytes(content.replace(b"ip=dhcp", b"ip=none") if changed.endswith("cfg") else content + bytes(4))
    found = checked(signed.output)
    assert found.severity("signed-boot-outdated") == "error"
    assert f"its {what} differ" in found.found["signed-boot-outdated"]["message"]


def test_another_keys_signature_is_found(signed: Site, other: Authority, checked: Checks) -> None:
    program = signed.output / "bootx64.efi"
    subprocess.run(["sbattach", "--remove", program], check=True, capture_output=True)
    program.write_bytes(other.sign(program.read_bytes()))
    assert "Somebody" in checked(signed.output).found["signed-boot-other-key"]["message"]


def test_check_compares_with_the_certificate_of_the_configuration(
    signed: Site, other: Authority, checked: Checks, tmp_path: Path
) -> None:
    assert "signed-boot-other-key" not in checked(signed.output, "--agent-config", signed.config).found
    signed.pack = {"secure_boot": {"key": str(other.key), "cert": str(other.certificate)}}
    signed.write_config()
    found = checked(signed.output, "--agent-config", signed.config)
    assert found.severity("signed-boot-other-key") == "error"
    signed.pack = {"secure_boot": {"key": str(tmp_path / "gone"), "cert": str(other.certificate)}}
    signed.write_config()
    assert checked(signed.image, "--agent-config", signed.config).severity("signing-no-key") == "error"


def test_a_key_with_a_passphrase_needs_a_file_with_it(site: Site, key: Authority, packs: Packs, refused: Packs) -> None:
    locked, word = site.folder / "locked.key", site.folder / "word"
    word.write_text("s3cret")
    command = ["openssl", "rsa", "-aes256", "-in", str(key.key), "-passout", f"file:{word}", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    locked_flags = flags(Authority(key=locked, certificate=key.certificate))
    said = refused(*locked_flags)
    assert f"error[signing-failed]: osslsigncode could not sign with the key {locked}: it has a passphrase" in said
    wrong = site.folder / "wrong"
    wrong.write_text("secret")
    assert f"it is not the one in {wrong}" in refused(*locked_flags, "--secure-boot-passphrase", wrong)
    packs(*locked_flags, "--secure-boot-passphrase", word)
    assert key.has_signed(site.output / "bootx64.efi")


def test_a_certificate_of_another_key_is_refused_before_anything_is_made(
    site: Site, key: Authority, other: Authority, refused: Packs, checked: Checks
) -> None:
    said = refused(*flags(Authority(key=key.key, certificate=other.certificate)))
    assert f"error[signing-failed]: osslsigncode could not sign with the key {key.key}: it does not belong to" in said
    assert "error[signing-failed]" in refused(*flags(Authority(key.certificate, key.certificate)))
    site.pack = {"secure_boot": {"key": str(key.key), "cert": str(other.certificate)}}
    site.write_config()
    assert checked(site.image, "--agent-config", site.config).severity("signing-failed") == "error"


def test_what_is_missing_for_signing_is_told_before_anything_is_written(
    key: Authority, refused: Packs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "error[signing-incomplete]" in refused("--secure-boot-key", key.key)
    gone = Authority(key=tmp_path / "gone.key", certificate=tmp_path / "gone.pem")
    shown = refused(*flags(gone))
    assert "error[signing-no-key]" in shown
    assert "error[signing-no-certificate]" in shown
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes(key.key.read_bytes() + key.certificate.read_bytes())
    assert "has a private key in it" in refused(*flags(Authority(key=key.key, certificate=mixed)))
    monkeypatch.setattr(stub, "ROOT", tmp_path)
    assert "systemd-boot-efi" in refused(*flags(key))
    monkeypatch.setattr(tools, "SEARCH_PATH", "/nowhere")
    assert "osslsigncode is required to sign the boot program" in refused(*flags(key))


@pytest.fixture
def install_stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], None]:
    """Give this machine another stub."""
    monkeypatch.setattr(stub, "ROOT", tmp_path)

    def install(content: bytes) -> None:
        path = tmp_path / STUB.relative_to("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return install


def test_a_damaged_stub_is_an_error_and_never_a_traceback(
    site: Site, key: Authority, install_stub: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(20260711)
    for content in _damaged(STUB.read_bytes(), chance):
        install_stub(content)
        code = cli.main(site.command("--quiet", *flags(key)))
        shown = capsys.readouterr().err
        assert code in (0, 1, 2), shown
        assert "Traceback" not in shown


def _damaged(stub: bytes, chance: random.Random) -> list[bytes]:
    found = [b"", b"MZ", stub[:100], stub[:1000], b"not a program"]
    for _ in range(6):
        content = bytearray(stub)
        for _ in range(8):
            content[chance.randrange(0x40, 0x400)] = chance.randrange(256)
        found.append(bytes(content))
    return found


def test_a_test_boot_adds_arguments_if_the_stub_takes_them(
    site: Site, key: Authority, packs: Packs, install_stub: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    secure = ("--secure-boot", site.folder / "none.fd")
    for version, reference in ((252, "boot-signed-arguments"), (254, "firmware-variables")):
        install_stub(re.sub(rb"systemd-stub \d{3}", f"systemd-stub {version}".encode(), STUB.read_bytes()))
        packs(*flags(key))
        assert f"error[{reference}]" in error(capsys, "boot", site.output, "--append", "rd.break", *secure)
        assert "error[boot-secure-ipxe]" in error(capsys, "boot", site.output, "--via", "ipxe", *secure)


def test_show_and_the_plan_name_the_signer(signed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(signed.output)]) == 0
    assert "signed    bootx64.efi with kernel, initrd and arguments, signed by Site Boot" in capsys.readouterr().out
    assert cli.main(["show", str(signed.output), "--json"]) == 0
    (program,) = json.loads(capsys.readouterr().out)["signed_boot"]
    assert (program["path"], program["signed_by"], program["signature_intact"]) == ("bootx64.efi", ["Site Boot"], True)
    assert cli.main(signed.command("--dry-run")) == 0
    assert "by Site Boot; started by the firmware" in capsys.readouterr().out


def test_the_table_says_what_remains_open(
    site: Site, key: Authority, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    def links() -> dict[str, tuple[str | None, str]]:
        cli.main(["check", str(site.output), "--offline", "--json"])
        table = json.loads(capsys.readouterr().out.splitlines()[-1])["chain"]
        return {row["link"]: (row["protection"], row["remains"]) for row in table}

    packs()
    before = links()
    assert before["grub.cfg, kernel arguments"] == (None, "anything")
    assert before["initrd"] == (None, "anything")
    assert before["artifacts"][0] is None
    packs("--inject", "initrd", *flags(key))
    after = links()
    assert after["initrd"] == ("in the signed program", "nothing")
    assert after["kernel arguments"] == ("in the signed program", "nothing")
    assert after["ISO"] == (None, "anything")
    cli.main(["check", str(site.output), "--offline"])
    assert "what an attacker on the network can still change" in capsys.readouterr().out
    program = site.output / "bootx64.efi"
    program.write_bytes(program.read_bytes().replace(b"ip=dhcp", b"ip=none"))
    broken = links()
    for link in ("boot program", "kernel arguments", "kernel", "initrd"):
        assert broken[link] == (None, "anything")
    assert broken["agent, packed configuration"][1].startswith("anything")


def test_the_program_has_the_digest_of_the_iso_and_the_url_of_the_signed_configuration(
    tmp_path: Path, site: Site, key: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = key_pair(tmp_path, "site")
    listed = {**ARTIFACT, "name": "listed", "dest": "/srv/listed", "sha256_url": "http://10.0.0.1/SHA256SUMS"}
    del listed["sha256"]
    chained = Site(folder=site.folder, image=shapes.cached(shapes.SHAPES["ic16"]), agent=site.agent)
    chained.rest = {"artifacts": [ARTIFACT, listed]}
    assert cli.main(chained.command("--quiet", "--trust", keys.public, *flags(key))) == 0
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(json.dumps({"version": 1, "serial": 2, **chained.rest}))
    pinned = ["pin", str(chained.output), str(fleet), "--url", "http://10.0.0.1/fleet.yaml"]
    assert cli.main([*pinned, "--sign", str(keys.secret), *flags(key)]) == 0
    words = section(chained.output / "bootx64.efi", ".cmdline").rstrip(b"\0").decode().split()
    assert f"pxe-fetch.iso.sha256={hashlib.sha256(chained.iso.read_bytes()).hexdigest()}" in words
    assert "pxe-fetch.config=http://10.0.0.1/fleet.yaml" in words
    assert not [word for word in words if word.startswith("pxe-fetch.config.sha256")]
    secret = keys.secret.read_bytes().splitlines()[1]
    assert not [content for content in _contents(chained.output) if secret in content]
    table = remains(capsys, chained)
    assert (table["ISO"], table["agent, packed configuration"]) == ("nothing", "nothing")
    assert table["configuration by URL"].startswith("an older one that has not expired")
    assert table["configuration by URL"].endswith("; one for other nodes, signed with the same key")
    assert table["artifacts"].startswith("nothing; anything, if")
    table = remains(capsys, chained, "--agent-config", fleet)
    assert table["artifacts"] == "anything in listed: the list with the digest comes unprotected"


def test_nothing_protects_what_an_unverified_agent_compares(
    site: Site, key: Authority, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    packs(*flags(key), "--verify-iso", "false")
    fleet = site.folder / "fleet.yaml"
    fleet.write_text(json.dumps({"version": 1, **site.rest}))
    assert cli.main(["pin", str(site.output), str(fleet), "--url", "http://10.0.0.1/fleet.yaml", *flags(key)]) == 0
    table = remains(capsys, site)
    assert table["configuration by URL"].startswith("anything")
    assert table["artifacts"].startswith("anything")


def test_a_digest_that_no_initrd_compares_protects_no_iso(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    packs("--verify-iso", "false")
    cfg = site.output / "boot/grub2/grub.cfg"
    cfg.write_text(re.sub(r"(root=live:\S+)", rf"\1 pxe-fetch.iso.sha256={'0' * 64}", cfg.read_text()))
    assert remains(capsys, site)["ISO"] == "anything"


@pytest.mark.parametrize("name", ["vmlinuz", "initrd.img"])
def test_a_file_that_changes_while_it_is_signed_again_is_not_signed(
    signed: Site, key: Authority, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who can write to the layout may wait for the moment after a comparison: at any opening of the file."""
    before = {one: section(signed.output / "bootx64.efi", one) for one in (".linux", ".initrd")}
    for opening in count(1):
        layout = tmp_path / f"layout{opening}"
        shutil.copytree(signed.output, layout)
        with changing(layout / "boot" / name, opening=opening) as changed:
            code = cli.main(["relocate", str(layout), "--boot-url", NEW, *flags(key)])
        program = layout / "bootx64.efi"
        assert {one: section(program, one) for one in before} == before
        assert key.has_signed(program)
        assert (NEW.encode() in section(program, ".cmdline")) == (code == 0)
        assert code == 0 or "error[" in capsys.readouterr().err
        if not changed:
            break
    assert opening > 1


@contextmanager
def changing(file: Path, *, opening: int) -> Iterator[list[Path]]:
    """Change `file` in place when it is opened by that number, also by another name; the list then has it."""
    counted, about = 0, file.stat()
    changed: list[Path] = []
    active = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal counted, active
        if not active or event != "open" or not isinstance(arguments[0], str):
            return
        with suppress(OSError):
            counted += os.path.samestat(Path(arguments[0]).stat(), about)
            if counted == opening:
                active = False
                with file.open("r+b") as stream:
                    stream.seek(about.st_size // 2)
                    stream.write(b"changed")
                changed.append(file)

    sys.addaudithook(hook)
    try:
        yield changed
    finally:
        active = False
