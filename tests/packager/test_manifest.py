"""A layout may come from anybody: each command that reads one checks its manifest, and touches nothing outside it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site, with_files
from pxe_pack import cli
from pxe_pack.freeze.agent import MANIFEST as AGENT_MANIFEST

Packs = Callable[..., str]
Change = Callable[[dict[str, object], list[dict[str, object]]], object]
SHA256 = "0" * 64
COMMANDS: dict[str, Callable[[Site], list[str]]] = {
    "relocate": lambda site: ["relocate", str(site.output), "--boot-url", "http://192.0.2.7/x.iso"],
    "remove": lambda site: ["remove", str(site.output)],
    "boot": lambda site: ["boot", str(site.output)],
    "snippet": lambda site: ["snippet", "nginx", str(site.output)],
    "check": lambda site: ["check", "--offline", str(site.output)],
    "show": lambda site: ["show", str(site.output)],
}


@pytest.fixture
def layout(site: Site, packs: Packs) -> Site:
    """A packed layout, beside a private file."""
    packs()
    (site.folder / "private").write_text("secret\n")
    (site.folder / "private").chmod(0o600)
    return site


def changed(site: Site, change: Change) -> None:
    """Change the manifest: `change` gets all of it, and its list of outputs."""
    document = site.manifest()
    outputs = document["outputs"]
    assert isinstance(outputs, list)
    change(document, outputs)
    (site.output / "manifest.json").write_text(json.dumps(document))


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Path -> inode, mode and links of everything below the folder."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (one.st_ino, one.st_mode, one.st_nlink) for path, one in found.items()}


def refused_by_all(site: Site, capsys: pytest.CaptureFixture[str], told: str) -> None:
    """Each command refuses the layout in a sentence, and changes nothing in it or beside it."""
    before = state(site.folder)
    for name, command in COMMANDS.items():
        capsys.readouterr()
        assert cli.main(command(site)) == 2, name
        said = capsys.readouterr()
        assert "error[layout-unreadable]: " in said.err, name
        assert told in said.err, name
        assert "hint: " in said.err
        assert "alias" not in said.out
        assert state(site.folder) == before, name


def entry(path: str, **more: object) -> dict[str, object]:
    return {"path": path, "size": 7, "sha256": SHA256, **more}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("../private", "lists '../private', which is not a relative path"),
        ("/etc/passwd", "lists '/etc/passwd', which is not a relative path"),
        ("boot/../../private", "which is not a relative path"),
        ("boot//vmlinuz", "which is not a relative path"),
        ("./boot/vmlinuz", "which is not a relative path"),
        ("boot/", "which is not a relative path"),
        ("", "which is not a relative path"),
        ("a\nb", "lists 'a\\nb', which contains a control character"),
        ("a\0b", "which contains a control character"),
        ("a\u202eb", r"lists 'a\u202eb', which contains an invisible character"),
        ("a\ufeffb", "which contains an invisible character"),
        ("x" * 256, "which is longer than a path may be"),
        ("/".join(["x" * 200] * 21), "which is longer than a path may be"),
        ("manifest.json", "lists 'manifest.json' twice, or itself"),
        ("boot/vmlinuz", "lists 'boot/vmlinuz' twice, or itself"),
        ("boot", "lists 'boot' as a file and as a folder"),
        ("boot/vmlinuz/inside", "lists 'boot/vmlinuz' as a file and as a folder"),
    ],
)
def test_a_path_that_is_none_below_the_layout_is_refused(
    layout: Site, capsys: pytest.CaptureFixture[str], path: str, told: str
) -> None:
    changed(layout, lambda _, outputs: outputs.append(entry(path)))
    refused_by_all(layout, capsys, told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _, outputs: outputs.append(entry("x", url=5)), "that is not text"),
        (lambda _, outputs: outputs.append(entry("x", url="x.iso")), "that has no scheme"),
        (lambda _, outputs: outputs.append(entry("x", url="javascript:alert(1)")), "has the scheme `javascript`"),
        (lambda _, outputs: outputs.append(entry("x", url="http://h/a b")), "that contains a character"),
        (lambda _, outputs: outputs.append(entry("x", url="http://h;}/x")), "invalid"),
        (lambda _, outputs: outputs.append(entry("x", url="http://h/%0a}")), "that contains a character"),
        (lambda _, outputs: outputs.append(entry("x", url="http://u:p@h/x")), "contains a user name or password"),
        (lambda _, outputs: outputs.append(entry("x", url="http://h/x?y")), "has a query or a fragment"),
        (lambda _, outputs: outputs.append(entry("x", url="http:///x")), "names no host"),
        (lambda _, outputs: outputs.append(entry("x", url="http://a,b/x")), "that contains a character"),
        (lambda _, outputs: outputs.append(entry("x", url="http://h:99999/x")), "a port"),
        (lambda _, outputs: outputs.append(entry("x") | {"size": -1}), "has no valid size in outputs["),
        (lambda _, outputs: outputs.append(entry("x") | {"size": "7"}), "has no valid size in outputs["),
        (lambda _, outputs: outputs.append(entry("x") | {"size": True}), "has no valid size in outputs["),
        (lambda _, outputs: outputs.append(entry("x") | {"size": 1 << 70}), "has no valid size in outputs["),
        (lambda _, outputs: outputs.append(entry("x") | {"sha256": "0" * 63 + "g"}), "has no valid sha256 in outputs["),
        (lambda _, outputs: outputs.append(entry("x") | {"sha256": ""}), "has no valid sha256 in outputs["),
        (lambda _, outputs: outputs.append(entry("x", kind="other")), "has an unknown kind in outputs["),
        (lambda _, outputs: outputs.append({"size": 1}), "has an entry without a path: outputs["),
        (lambda whole, _: whole.update(outputs=["x"]), "has no list of outputs"),
        (lambda whole, _: whole.update(outputs={}), "has no list of outputs"),
        (lambda whole, _: whole.update(boot_url=["x"]), "has a value of boot_url that is not text"),
        (
            lambda whole, _: whole.update(boot_url="http://h/\nx"),
            "has a value of boot_url that contains a control character",
        ),
        (lambda whole, _: whole.update(artifact_url="files/"), "has a value of artifact_url that has no scheme"),
        (
            lambda whole, _: whole.update(inject={"artifact_url": {}}),
            "has a value of inject.artifact_url that is not text",
        ),
        (lambda whole, _: whole.update(image=7), "has a value of image that is not an object"),
        (lambda whole, _: whole.update(more="\udc80"), "contains text that is not Unicode"),
        (lambda whole, _: whole.update(more=float("inf")), "contains Infinity, which is not JSON"),
    ],
)
def test_a_value_that_is_none_is_refused(
    layout: Site, capsys: pytest.CaptureFixture[str], change: Change, told: str
) -> None:
    changed(layout, change)
    refused_by_all(layout, capsys, told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"pxe_pack": "1", "outputs": [], "more": ' + "[" * 100_000, "nested too deeply"),
        ('{"pxe_pack": "1", "outputs": [], "more": ' + "[" * 500 + "]" * 500 + "}", "nested too deeply"),
        ('{"pxe_pack": "1", "outputs": [], "more": ' + '{"x":' * 400 + "1" + "}" * 401, "nested too deeply"),
        ('{"pxe_pack": "1", "outputs": [], "more": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"pxe_pack": "1", "outputs": [], "more": 1e999}', "a number that is too large"),
        ('{"pxe_pack": "1", "outputs": [], "outputs": []}', "the same key twice"),
        ('["pxe_pack", "pxe_pack" ]'.replace('"pxe_pack" ]', '"pxe_pack"]'), "is not a JSON object"),
        ('{"pxe_pack": "1", "outputs": [' + '{"path": "x"},' * 50_001 + "{}]}", "lists more than 50,000 files"),
        ('{"pxe_pack": "1", "outputs": [], "x": [' + "[]," * 400_001 + "0]}", "has too many lists and objects"),
        ('{"pxe_pack": "1", "outputs": []}' + " " * (16 << 20), "has more than 16,777,216 bytes"),
        ('{"pxe_pack": "\xe9"', "is not JSON in UTF-8"),
    ],
)
def test_an_odd_document_is_refused(layout: Site, capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    (layout.output / "manifest.json").write_bytes(text.encode("latin-1"))
    refused_by_all(layout, capsys, told)


@pytest.mark.parametrize("where", ["manifest.json", "boot/vmlinuz", "boot", "azl-image-customizer"])
def test_a_link_in_a_layout_is_refused(layout: Site, capsys: pytest.CaptureFixture[str], where: str) -> None:
    place = layout.output / where
    place.rename(layout.folder / "elsewhere")
    place.symlink_to(layout.folder / "elsewhere")
    relocate = COMMANDS["relocate"](layout)
    before = state(layout.folder)
    for command in (relocate, *(COMMANDS[name](layout) for name in ("remove", "boot", "snippet", "check"))):
        assert cli.main(command) == 2
        assert "link" in capsys.readouterr().err
        assert state(layout.folder) == before


def test_a_pipe_in_the_place_of_the_manifest_does_not_block(layout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (layout.output / "manifest.json").unlink()
    os.mkfifo(layout.output / "manifest.json")
    assert cli.main(COMMANDS["snippet"](layout)) == 2
    assert "is not a regular file" in capsys.readouterr().err


def test_a_private_file_keeps_its_mode_when_a_manifest_names_it(
    layout: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """It once became readable by everybody, and got a hard link in the new layout."""
    private = layout.folder / "private"
    changed(layout, lambda _, outputs: outputs.append(entry(str(private))))
    refused_by_all(layout, capsys, "which is not a relative path")
    status = private.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 1)


def test_grub_cfg_reads_no_file_outside_the_layout(layout: Site) -> None:
    """A variable loaded from there once ended up in boot.ipxe."""
    (layout.folder / "private").write_text("secret=do-not-publish\n")
    cfg = layout.output / "boot/grub2/grub.cfg"
    text = cfg.read_text().replace(" rd.live.image", " rd.live.image x=$secret", 1)
    cfg.write_text(f"load_env -f /../private\n{text}")
    assert cli.main(["relocate", str(layout.output), "--boot-url", "http://192.0.2.7/x.iso", "--quiet"]) == 0
    assert "x=" in (layout.output / "boot.ipxe").read_text()
    assert "do-not-publish" not in (layout.output / "boot.ipxe").read_text()


def test_an_output_with_a_manifest_that_lies_is_not_replaced(layout: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (layout.output / "thesis.tex").write_text("years of work")
    changed(layout, lambda _, outputs: outputs.extend([entry("thesis.tex"), entry("../private")]))
    assert cli.main(layout.command("--quiet")) == 2
    assert "error[output-foreign]" in capsys.readouterr().err
    assert (layout.output / "thesis.tex").read_text() == "years of work"


def test_a_layout_without_kinds_is_understood(site: Site, packs: Packs) -> None:
    """As written before manifests stated them: what is in the artifacts' folder was put there by pxe-pack."""
    (site.folder / "m.bin").write_bytes(b"weights")
    site.rest = {"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m.bin"}]}
    packs("--leave-out", "*")
    changed(site, lambda _, outputs: [one.pop("kind") for one in outputs])
    assert cli.main(["relocate", str(site.output), "--boot-url", "http://192.0.2.7/x.iso", "--quiet"]) == 0
    outputs = site.manifest()["outputs"]
    assert isinstance(outputs, list)
    kinds = {one["path"]: one["kind"] for one in outputs}
    assert (kinds["x.iso"], kinds["other-user-artifacts/m.bin"], kinds["bootx64.efi"]) == ("iso", "artifact", "boot")
    assert cli.main(["remove", str(site.output), "--quiet"]) == 0
    assert not (site.output / "other-user-artifacts").exists()


def test_an_image_with_an_odd_manifest_of_an_agent_is_shown(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an earlier pack left on the medium is input from outside as well."""
    place = "updates/usr/lib/pxe-fetch/"
    odd = {f"{place}pxe-fetch": b"x", f"{place}{AGENT_MANIFEST}": b"[" * 100_000}
    image = with_files(site.image, tmp_path / "odd.iso", odd)
    assert cli.main(["show", str(image)]) == 0
    assert "injected  with `updates`: an agent in updates/" in capsys.readouterr().out
