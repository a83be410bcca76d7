"""Layouts and images that former versions packed: each command understands them (upgrades/make.py has made them)."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packing.signing import Authority, section
from packing.site import Site, files_of
from pxe_pack import cli

LAYOUTS = Path(__file__).parent / "upgrades/layouts.tar.xz"
VERSIONS = ("2026-11-29", "2026-11-30-morning", "2026-11-30-noon", "0.2.0")
WAYS = ("updates", "rootfs", "initrd")
WITHOUT_RECORD = VERSIONS[0]  # its packed ISOs do not say what their originals were
TRUST = ("2026-11-30-trust", "2026-11-30-noon", "0.2.0")  # with a verified ISO, a signed boot and pins
VERIFIED, SIGNED = ([f"{version}-{way}" for version in TRUST] for way in ("verified", "signed"))
UPDATES = [f"{version}-updates" for version in VERSIONS]
INJECTED = [f"{version}-{way}" for version in VERSIONS for way in WAYS]
EVERY = [*INJECTED, *VERIFIED, *SIGNED]
ISOS = [name for name in [*INJECTED, *VERIFIED] if not name.endswith("initrd")]
FLEET = "http://10.0.0.1/fleet.yaml"
ISO_SHA256 = re.compile(r"pxe-fetch\.iso\.sha256=([0-9a-f]{64})")

Told = Callable[..., Any]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upgrades")
    with tarfile.open(LAYOUTS) as archive:
        # The documented way to name a filter to a Python that may not know them (3.11.2).
        archive.extraction_filter = getattr(tarfile, "tar_filter", lambda member, _: member)
        archive.extractall(folder)  # noqa: S202  our own
    return folder


@pytest.fixture
def layout(unpacked: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a former version's layout."""
    return Path(shutil.copytree(unpacked / request.param, tmp_path / str(request.param)))


@pytest.fixture
def key(unpacked: Path) -> Authority:
    """What the signed layouts of former versions are signed with."""
    return Authority(key=unpacked / "keys/key.pem", certificate=unpacked / "keys/certificate.pem")


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Run a command with --json; its result. The exit code has to be 0."""

    def run(*words: str | Path) -> Any:  # noqa: ANN401  JSON
        code = cli.main([*map(str, words), "--json"])
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert code == 0, events
        return next(event for event in reversed(events) if event["event"] not in {"step", "progress", "problem"})

    return run


def way_of(layout: Path) -> str:
    return layout.name.rpartition("-")[2]


def injector_of(layout: Path) -> str:
    return way_of(layout) if way_of(layout) in WAYS else "updates"


def image_of(layout: Path) -> str:
    """The name of the image that it was packed of."""
    own = {"initrd": "image-full-os.iso", "verified": "image-verifiable.iso", "signed": "image-verifiable.iso"}
    return own.get(way_of(layout), "image.iso")


def signing(layout: Path, key: Authority) -> list[str]:
    """The flags that sign it again."""
    flags = ["--secure-boot-key", str(key.key), "--secure-boot-cert", str(key.certificate)]
    return flags if way_of(layout) == "signed" else []


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(layout: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in layout.rglob("*") if path.is_file()}


def version_of(layout: Path) -> str:
    return layout.name.rpartition("-")[0]


def verify(layout: Path) -> None:
    """By coreutils: all files that the checksums name have these bytes."""
    subprocess.run(
        ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=layout, check=True, capture_output=True
    )


@pytest.mark.parametrize("layout", EVERY, indirect=True)
def test_a_layout_of_a_former_version_is_shown_with_what_was_packed(layout: Path, told: Told) -> None:
    shown = told("show", layout)
    (found,) = shown["injected"]
    assert (found["how"], found["agent"], found["configured"]) == (injector_of(layout), "0.1.0", True)
    assert [one["verifies_iso"] for one in shown["initrds"]] == [way_of(layout) not in WAYS]
    assert [one["signed_by"] for one in shown["signed_boot"]] == [["Former Site"]] * (way_of(layout) == "signed")
    assert len(shown["trust"]) == (way_of(layout) not in WAYS)
    config = told("show", layout, "--config")["config"]
    assert "http://10.0.0.1/other-user-artifacts/motd.txt" in config


@pytest.mark.parametrize("layout", [*UPDATES, *VERIFIED, *SIGNED], indirect=True)
def test_a_layout_of_a_former_version_is_checked_and_found_unchanged(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["check", str(layout), "--offline", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    references = {finding["reference"] for finding in report["findings"]}
    wrong = {"layout-differs", "layout-unreadable", "agent-damaged", "artifact-differs", "iso-digest-differs"}
    assert not references & {*wrong, "signed-boot-outdated", "signed-boot-invalid"}
    protected = {row["link"] for row in report["chain"] if row["remains"] == "nothing"}
    signed = {"kernel arguments", "kernel", "initrd", "ISO"} if way_of(layout) == "signed" else set()
    assert protected >= signed
    assert bool(protected) == bool(signed)


@pytest.mark.parametrize("layout", EVERY, indirect=True)
def test_a_layout_of_a_former_version_is_relocated(layout: Path, told: Told, key: Authority) -> None:
    moves = ["--artifact-url", "http://10.9.0.1/files/"]
    if way_of(layout) != "initrd":
        moves += ["--boot-url", "http://10.9.0.1/node.iso"]
    told("relocate", layout, *moves, *signing(layout, key))
    verify(layout)
    grub_cfg = (layout / "boot/grub2/grub.cfg").read_text()
    assert "pxe-fetch.artifact_url=http://10.9.0.1/files/" in grub_cfg
    manifest = json.loads((layout / "manifest.json").read_text())
    urls = {entry["path"]: entry.get("url") for entry in manifest["outputs"]}
    assert urls["other-user-artifacts/motd.txt"] == "http://10.9.0.1/files/motd.txt"
    if way_of(layout) != "initrd":
        assert "root=live:http://10.9.0.1/node.iso" in grub_cfg
        assert urls["node.iso"] == "http://10.9.0.1/node.iso"
    if way_of(layout) not in WAYS:
        assert set(ISO_SHA256.findall(grub_cfg)) == {sha256(layout / "node.iso")}
    if way_of(layout) == "signed":
        arguments = section(layout / "bootx64.efi", ".cmdline").decode()
        assert {"root=live:http://10.9.0.1/node.iso", f"pxe-fetch.config={FLEET}"} <= {*arguments.split()}
        assert ISO_SHA256.findall(arguments) == [sha256(layout / "node.iso")]
        assert key.has_signed(layout / "bootx64.efi")


@pytest.mark.parametrize("layout", EVERY, indirect=True)
def test_a_payload_of_a_former_version_is_removed(layout: Path, told: Told, unpacked: Path, key: Authority) -> None:
    assert told("remove", layout, *signing(layout, key))["removed"] == [injector_of(layout)]
    verify(layout)
    shown = told("show", layout)
    assert (shown["injected"], shown["trust"]) == ([], [])
    scripts = (layout / "boot/grub2/grub.cfg").read_text() + (layout / "boot.ipxe").read_text()
    assert "pxe-fetch" not in scripts
    assert not (layout / "other-user-artifacts").exists()
    original = unpacked / image_of(layout)
    initrd = files_of(original)["boot/initrd.img"]
    assert (layout / "boot/initrd.img").read_bytes() == initrd
    if way_of(layout) == "initrd":
        assert not list(layout.glob("*.iso"))
    elif version_of(layout) != WITHOUT_RECORD:
        assert (layout / "liveos.iso").read_bytes() == original.read_bytes()
    else:
        before = files_of(original)
        after = {path: content for path, content in files_of(layout / "liveos.iso").items() if path in before}
        assert after.keys() == before.keys()
        assert after["liveos/rootfs.img"] == before["liveos/rootfs.img"]
    if way_of(layout) == "signed":
        assert section(layout / "bootx64.efi", ".initrd").rstrip(b"\0") == initrd.rstrip(b"\0")
        assert b"pxe-fetch" not in section(layout / "bootx64.efi", ".cmdline")
        assert key.has_signed(layout / "bootx64.efi")


@pytest.mark.parametrize("layout", [*VERIFIED, *SIGNED], indirect=True)
def test_a_pin_of_a_former_version_is_replaced_and_removed(
    layout: Path, told: Told, key: Authority, tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("version: 1\nserial: 6\nartifacts: []\n")
    told("pin", layout, fleet, *signing(layout, key))  # to where it was before
    verify(layout)
    pinned = f"pxe-fetch.config={FLEET} pxe-fetch.config.sha256={sha256(fleet)}"
    assert pinned in (layout / "boot/grub2/grub.cfg").read_text()
    told("pin", layout, "--remove", *signing(layout, key))
    verify(layout)
    assert "pxe-fetch.config=" not in (layout / "boot/grub2/grub.cfg").read_text()
    if way_of(layout) == "signed":
        assert b"pxe-fetch.config=" not in section(layout / "bootx64.efi", ".cmdline")
        assert key.has_signed(layout / "bootx64.efi")


@pytest.mark.parametrize("layout", SIGNED, indirect=True)
@pytest.mark.parametrize(
    "change", [("relocate", "--boot-url", "http://10.9.0.1/node.iso"), ("remove",), ("pin", "--remove")]
)
def test_a_signed_layout_of_a_former_version_says_what_has_to_be_signed_again(
    layout: Path, change: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(layout)
    command, *options = change
    assert cli.main([command, str(layout), *options]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{layout} has a signed boot, and this changes what is signed: it has to be signed again" in said
    assert "--secure-boot-key" in said
    assert contents(layout) == before


@pytest.mark.parametrize("layout", ISOS, indirect=True)
def test_an_image_of_a_former_version_is_packed_again_with_one_payload_in_another_way(
    layout: Path, site: Site, told: Told, packs: Callable[..., str], unpacked: Path
) -> None:
    way = "rootfs" if way_of(layout) == "updates" else "updates"
    site.image = layout / "liveos.iso"
    packs("--inject", way)
    (found,) = told("show", site.output)["injected"]
    assert (found["how"], found["agent"]) == (way, "0.0.1")
    if version_of(layout) != WITHOUT_RECORD:  # as if the original had been packed
        packed = sha256(site.iso)
        site.image = unpacked / image_of(layout)
        packs("--inject", way)
        assert sha256(site.iso) == packed


@pytest.mark.parametrize("layout", [*UPDATES, *VERIFIED, *SIGNED], indirect=True)
def test_a_layout_of_a_former_version_is_replaced_by_a_pack(
    layout: Path, *, site: Site, told: Told, packs: Callable[..., str], unpacked: Path, key: Authority
) -> None:
    site.image = unpacked / image_of(layout)
    packs("--output", layout, *signing(layout, key))
    verify(layout)
    digests = {*ISO_SHA256.findall((layout / "boot/grub2/grub.cfg").read_text())}
    assert digests == ({sha256(layout / "liveos.iso")} if way_of(layout) not in WAYS else set())
    if way_of(layout) == "signed":
        assert {*ISO_SHA256.findall(section(layout / "bootx64.efi", ".cmdline").decode())} == digests
        assert key.has_signed(layout / "bootx64.efi")
    (found,) = told("show", layout)["injected"]
    assert found["agent"] == "0.0.1"
    assert not (layout / "other-user-artifacts").exists()


def test_each_version_is_there_in_each_way(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir() if path.is_dir()} == {*EVERY, "keys"}
