"""`pxe-pack check`: each finding on an image or a layout that has it, none on one that is right; exit codes."""

from __future__ import annotations

import ast
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pxe_pack
from fakes.nginx import Nginx, nginx
from liveos import specials, tiny
from liveos.newc import Entry
from liveos.specials import Inode
from liveos.tiny import RELEASE
from packing import altered, roots
from packing.bootloaders import debian
from packing.checking import Checked
from packing.keys import key_pair
from packing.signing import authority
from packing.site import ARTIFACT, BOOT_URL, Site, files_of, image_with_root, small_agent
from pxe_pack import cli
from pxe_pack.check import IN_IMAGE
from pxe_pack.freeze.agent import MANIFEST

Packs = Callable[..., str]
Refused = Callable[..., str]


Check = Callable[..., Checked]


@pytest.mark.parametrize("name", ["tiny", "tiny_guarded", "tiny_ext4", "tiny_pxe_dir", "tiny_full_os"])
def test_an_image_that_is_right_has_no_errors(
    request: pytest.FixtureRequest, checked: Check, agent: Path, name: str
) -> None:
    assert checked(request.getfixturevalue(name), "--agent", agent, "--node-memory", "4GiB").code == 0


def test_a_root_filesystem_is_checked_as_the_iso_that_is_made_of_it(
    tmp_path: Path, checked: Check, agent: Path, machine_root: Path
) -> None:
    root = roots.tar(tmp_path / "root.tar", roots.inodes())
    assert checked(root, "--agent", agent).severity("image-no-boot-loader") == "error"
    debian(machine_root)
    assert checked(root, "--agent", agent, "--node-memory", "4GiB").code == 0
    bare = roots.tar(tmp_path / "bare.tar", roots.inodes(boot=False))
    assert checked(bare).severity("root-no-kernel") == "error"


@pytest.mark.parametrize("name", ["tiny", "tiny_ext4", "tiny_pxe_dir", "tiny_full_os"])
def test_a_layout_just_packed_has_no_errors(
    request: pytest.FixtureRequest, site: Site, packs: Packs, checked: Check, name: str
) -> None:
    site.image = request.getfixturevalue(name)
    packs()
    told = checked(site.output, "--node-memory", "4GiB")
    assert {finding["severity"] for finding in told.found.values()} <= {"note"}


def test_the_text_has_each_finding_with_its_remedy_and_the_count(
    tiny_guarded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(tiny_guarded), "--offline"]) == 0
    said = capsys.readouterr().out
    assert "note[grub-search]: " in said
    assert "\n\nhint: no action needed: packing fixes it\n" in said
    assert said.rstrip().splitlines()[-1].startswith(f"{tiny_guarded}: ")


LIVE = f"root=live:{BOOT_URL}"
INITRD = "\tinitrd /boot/initrd.img\n"
LAYOUT_FAULTS: dict[str, tuple[str, str, str]] = {
    # reference: what stands in grub.cfg, what is to stand there, and the severity
    "grub-file-test": (INITRD, "if [ -f /boot/initrd.img ]; then initrd /boot/initrd.img; fi\n", "error"),
    "grub-search": ("set default=0\n", "search --label CDROM --set root\n", "warning"),
    "grub-save-env": ("set default=0\n", "save_env saved_entry\n", "warning"),
    "grub-root": ("set default=0\n", "set root=(hd0,gpt2)\n", "error"),
    "grub-blscfg": ("set default=0\n", "blscfg\n", "error"),
    "grub-glob": ("set default=0\n", "for kernel in /boot/vmlinuz-*; do echo $kernel; done\n", "error"),
    "root-not-once": (" rd.live.image", " rd.live.image root=/dev/sda1", "error"),
    "root-no-url": (LIVE, "root=live:liveos.iso", "error"),
    "root-not-served": (LIVE, "root=live:http://10.0.0.1/x.iso", "error"),
    "boot-url-invalid": (LIVE, "root=live:http://10.0.0.1/x.img", "error"),
    "grub-no-command": ("\tlinux ", "\tlinuxefi ", "error"),
    "grub-command-ignored": ("set default=0\n", "hexdump /x\n", "warning"),
    "grub-default-no-linux": ("set default=0\n", "menuentry Firmware {\n\tfwsetup\n}\n", "warning"),
    "command-line-too-long": (" rd.live.image", f" rd.live.image x={'y' * 2048}", "error"),
    "root-other-network": ("ip=dhcp", "ip=eth0:dhcp6", "error"),
    "argument-twice": (" rd.live.image", " rd.live.image rd.live.image", "warning"),
    "argument-contradicts": (" rd.live.image", " rd.live.image rd.live.dir=LiveOS", "warning"),
}  # fmt: skip


@pytest.mark.parametrize("reference", LAYOUT_FAULTS)
def test_a_fault_in_a_layouts_grub_cfg(site: Site, packs: Packs, checked: Check, reference: str) -> None:
    before, after, severity = LAYOUT_FAULTS[reference]
    packs()
    grub_cfg = site.output / "boot/grub2/grub.cfg"
    (site.output / "boot/loader/entries").mkdir(parents=True)
    (site.output / "boot/loader/entries/a.conf").write_text("title a\nlinux /boot/vmlinuz\noptions root=live:x\n")
    text = grub_cfg.read_text()
    assert before in text
    grub_cfg.write_text(text.replace(before, after))
    assert checked(site.output).severity(reference) == severity


def test_what_packing_mends_is_a_note(checked: Check, tiny_guarded: Path) -> None:
    told = checked(tiny_guarded)
    assert told.severity("grub-file-test") == told.severity("grub-search") == "note"


def test_files_that_are_missing_or_changed_in_a_layout(site: Site, packs: Packs, checked: Check) -> None:
    packs()
    site.iso.unlink()
    (site.output / "boot/grub2/grubenv").write_text("")
    told = checked(site.output)
    assert told.severity("image-no-iso") == "error"
    site.iso.write_bytes(files_of(site.image)["boot/vmlinuz"])
    assert checked(site.output).code == 3


def test_a_layout_whose_files_are_not_those_of_its_manifest(site: Site, packs: Packs, checked: Check) -> None:
    site.rest = {"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m"}]}
    (site.folder / "m.bin").write_bytes(b"model")
    packs()
    (site.output / "other-user-artifacts/m.bin").unlink()
    (site.output / "boot/grub2/grubenv").write_text("")
    told = checked(site.output)
    assert told.severity("layout-missing") == "error"
    assert told.severity("layout-differs") == "warning"


def _without(*names: str) -> Callable[[dict[str, Entry]], None]:
    def edit(entries: dict[str, Entry]) -> None:
        for name in names:
            del entries[name]

    return edit


def _with_modules(*replaced: tuple[str, str]) -> Callable[[dict[str, Entry]], None]:
    def edit(entries: dict[str, Entry]) -> None:
        name = "usr/lib/dracut/modules.txt"
        text = entries[name].data.decode()
        for before, after in replaced:
            assert before in text
            text = text.replace(before, after)
        entries[name] = Entry(name, entries[name].mode, text.encode())

    return edit


def _of_another_kernel(entries: dict[str, Entry]) -> None:
    for name in [name for name in entries if RELEASE in name]:
        entry = entries.pop(name)
        other = name.replace(RELEASE, "6.1.0-other")
        entries[other] = Entry(other, entry.mode, entry.data)


INITRD_FAULTS: dict[str, tuple[Callable[[dict[str, Entry]], None], str]] = {
    "initrd-no-curl": (_without("usr/bin/curl"), "error"),
    "initrd-not-live": (_without("usr/sbin/dmsquash-live-root", "usr/lib/dracut/modules.txt"), "error"),
    "initrd-no-network": (_with_modules(("network-legacy\n", "")), "error"),
    "initrd-networkd": (_with_modules(("network-legacy\n", "systemd-networkd\n")), "warning"),
    "kernel-other-initrd": (_of_another_kernel, "error"),
}


@pytest.mark.parametrize("reference", INITRD_FAULTS)
def test_a_fault_in_an_initrd(site: Site, checked: Check, refused: Refused, reference: str) -> None:
    edit, severity = INITRD_FAULTS[reference]
    site.image = altered.with_initrd(site.image, site.folder / "fault.iso", edit)
    assert checked(site.image).severity(reference) == severity
    if severity == "error":
        assert f"error[{reference}]" in refused()  # packing asks the same


def test_an_initrd_that_cannot_be_read_is_a_note_and_a_damaged_one_an_error(
    tmp_path: Path, tiny: Path, checked: Check
) -> None:
    lz4 = altered.with_files(tiny, tmp_path / "lz4.iso", {"boot/initrd.img": b"\x02\x21\x4c\x18" + bytes(100)})
    assert checked(lz4).severity("initrd-unread") == "note"
    cut = altered.with_files(tiny, tmp_path / "cut.iso", {"boot/initrd.img": files_of(tiny)["boot/initrd.img"][:200]})
    assert checked(cut).severity("initrd-damaged") == "error"


def test_https_takes_certificates_in_the_initrd(site: Site, checked: Check) -> None:
    site.pack = {"boot_url": "https://boot.example/liveos.iso"}
    site.write_config()
    assert checked(site.image, "--agent-config", site.config).severity("initrd-no-certificates") == "error"

    def certified(entries: dict[str, Entry]) -> None:
        name = "etc/pki/tls/certs/ca-bundle.crt"
        entries[name] = Entry(name, 0o100644, b"-----BEGIN CERTIFICATE-----")

    image = altered.with_initrd(site.image, site.folder / "certified.iso", certified)
    assert checked(image, "--agent-config", site.config).code == 0


def test_a_root_filesystem_with_modules_of_another_kernel(tmp_path: Path, tiny: Path, checked: Check) -> None:
    contents = [inode for inode in _tiny_tree() if RELEASE not in inode.path]
    image = image_with_root(tiny, [*contents, specials.folder("usr/lib/modules/6.1.0-other")], tmp_path)
    assert checked(image).severity("kernel-other-root") == "warning"


def _tiny_tree() -> list[Inode]:
    return list(tiny.tree())


NETWORK = "etc/systemd/network/20-dhcp.network"
WANTED = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
INSTEAD: dict[str, tuple[str, Inode | None, bool]] = {
    # what of the tiny root goes, what stands in its place, and whether DHCP is missed
    "a fixed address": (NETWORK, Inode(NETWORK, data=b"[Network]\nAddress=10.0.0.2/24\n"), True),
    "wireless": (NETWORK, Inode(NETWORK, data=b"[Match]\nType=wlan\n[Network]\nDHCP=yes\n"), True),
    "not enabled": (WANTED, None, True),
    "NetworkManager": (WANTED, specials.symlink(WANTED.replace("systemd-networkd", "NetworkManager"), "/x"), False),
}


@pytest.mark.parametrize("kind", INSTEAD)
def test_whether_the_root_filesystem_asks_dhcp(tmp_path: Path, tiny: Path, checked: Check, kind: str) -> None:
    gone, instead, missed = INSTEAD[kind]
    assert "root-no-dhcp" not in checked(tiny).found
    contents = [inode for inode in _tiny_tree() if inode.path != gone] + ([instead] if instead else [])
    assert ("root-no-dhcp" in checked(image_with_root(tiny, contents, tmp_path)).found) == missed


FOR_DISKS = ("normal", "linux", "iso9660")
GRUBS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a prefix that is not there": ("/EFI/azurelinux", altered.FOR_THE_NETWORK, "grub-prefix"),
    "a prefix on a disk": ("(hd0,gpt2)/boot/grub2", altered.FOR_THE_NETWORK, "grub-no-network"),
    "no network": ("/boot/grub2", FOR_DISKS, "grub-no-network"),
}


@pytest.mark.parametrize("kind", GRUBS)
def test_a_grub_that_cannot_go_on_over_tftp(site: Site, packs: Packs, checked: Check, kind: str) -> None:
    prefix, modules, reference = GRUBS[kind]
    packs()
    (site.output / "grubx64.efi").write_bytes(altered.grub(site.folder, "-p", prefix, modules=modules))
    assert checked(site.output).severity(reference) == "error"


def test_boot_loaders_for_another_processor(site: Site, packs: Packs, checked: Check) -> None:
    packs()
    for name in ("bootx64.efi", "grubx64.efi"):
        program = bytearray((site.output / name).read_bytes())
        at = int.from_bytes(program[0x3C:0x40], "little") + 4  # Machine of the COFF header
        program[at : at + 2] = b"\x64\xaa"
        (site.output / name).write_bytes(program)
    assert checked(site.output).severity("boot-loader-machine") == "error"


def test_secure_boot_is_told_by_signers_and_what_shim_trusts(site: Site, packs: Packs, checked: Check) -> None:
    packs()
    grub = site.output / "grubx64.efi"
    assert checked(site.output).severity("secure-boot-unsigned") == "note"
    signed = authority(site.folder, "Site Signing").sign(grub.read_bytes())
    grub.write_bytes(signed)
    told = checked(site.output)
    assert told.severity("secure-boot-untrusted") == "warning"
    assert "signed by Site Signing" in told.found["secure-boot-untrusted"]["message"]
    assert "Debian Secure Boot CA" in told.found["secure-boot-untrusted"]["message"]
    at = signed.index(b"mimg") + 200
    grub.write_bytes(signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :])
    assert checked(site.output).severity("secure-boot-changed") == "warning"


@pytest.mark.parametrize(
    ("memory", "reference", "severity"),
    [
        ("100MiB", "node-memory", "error"),
        ("4GiB", "node-memory", ""),
        ("700MiB", "node-memory-half", "error"),
    ],
)
def test_memory_of_nodes_is_compared_with_what_is_in_it(
    site: Site, checked: Check, memory: str, reference: str, severity: str
) -> None:
    site.rest = {"artifacts": [{**ARTIFACT, "size": "400MiB"}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config, "--node-memory", memory)
    assert told.severity(reference) == severity


def test_without_memory_given_what_is_needed_is_a_note(tiny: Path, checked: Check) -> None:
    assert checked(tiny).severity("node-memory") == "note"


def test_destinations_on_a_tmpfs(site: Site, checked: Check) -> None:
    site.rest = {"artifacts": [{**ARTIFACT, "dest": "/run/models/m.bin", "size": "1GiB"}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config)
    assert told.severity("dest-tmpfs") == "note"
    told = checked(site.image, "--agent-config", site.config, "--node-memory", "4GiB")
    assert told.severity("dest-tmpfs") == "warning"
    assert "artifact model goes to /run/models/m.bin" in told.found["dest-tmpfs"]["message"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://store.example/m?sv=2024&sig=s3cret", "sig"),
        ("https://b.s3.example/m?X-Amz-Date=1&X-Amz-Signature=s3cret", "X-Amz-Signature"),
        ("https://storage.example/m?X-Goog-Signature=s3cret", "X-Goog-Signature"),
        ("https://h/m?access_token=s3cret", "access_token"),
        ("https://h/m?private_token=s3cret&x", "private_token"),
        ("https://h/m?access_key=s3cret", "access_key"),
        ("https://h/m?jwt=s3cret", "jwt"),
        ("https://h/m?key=s3cret", "key"),
        ("https://h/m?alt=media&apikey=s3cret", "apikey"),
        ("https://h/m?Expires=1&Signature=s3cret&Key-Pair-Id=K1", "Signature"),
        ("https://h/m?x-oss-signature=s3cret", "x-oss-signature"),
        ("https://h/m?client_secret=s3cret", "client_secret"),
        ("https://h/m?v=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzM2NyZXQifQ.s3cret", "v"),
        ("https://h/m?t=glpat-s3cret0123456789abcd", "t"),
        ("https://h/m?rev=2&name=token&signed=1", ""),
        ("https://h/m?keyboard=de&monkey=1&design=2&turkey=3&keys=4&passage=5&author=me&authors=we&sigma=1", ""),
        ("https://h/m?continuation-token=abc&md5=0123456789abcdef0123456789abcdef&token=", ""),
    ],
)
def test_a_secret_in_a_url_is_a_warning_that_does_not_show_it(
    site: Site, checked: Check, capsys: pytest.CaptureFixture[str], url: str, name: str
) -> None:
    site.rest = {"artifacts": [{**ARTIFACT, "url": url}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config)
    assert told.severity("secret-in-url") == ("warning" if name else "")
    if name:
        finding = told.found["secret-in-url"]
        assert f"artifact model: the URL {url.partition('?')[0]} has `{name}=` in it" in finding["message"]
        assert "query_credential" in finding["remedy"]
        assert "s3cret" not in str(told.found)
        assert cli.main(site.command("--dry-run")) == 0
        packed = capsys.readouterr()
        assert "warning[secret-in-url]" in packed.err
        assert "s3cret" not in packed.out + packed.err


def test_a_secret_in_the_urls_of_lists_and_of_the_report_is_a_warning(site: Site, checked: Check) -> None:
    by_list = {key: value for key, value in ARTIFACT.items() if key != "sha256"}
    for rest in (
        {"artifacts": [{**by_list, "sha256_url": "https://h/SUMS?token=s3cret"}]},
        {"artifacts": [ARTIFACT], "report": {"url": "https://h/r?api-key=s3cret"}},
    ):
        site.rest = dict(rest)
        site.write_config()
        assert checked(site.image, "--agent-config", site.config).severity("secret-in-url") == "warning"


def test_a_digest_that_comes_unprotected_is_told(site: Site, checked: Check, packs: Packs, tmp_path: Path) -> None:
    by_list = {key: value for key, value in ARTIFACT.items() if key != "sha256"}
    for base, url, expected in (
        (None, "http://h/SUMS", "note"),
        ("ftp://h/", "SUMS", "note"),
        (None, "https://h/SUMS", ""),
        ("https://h/", "SUMS", ""),
    ):
        site.rest = {"artifacts": [{**by_list, "sha256_url": url}], "defaults": {"base_url": base} if base else {}}
        site.write_config()
        assert checked(site.image, "--agent-config", site.config).severity("digest-unprotected") == expected, url
    site.rest = {"artifacts": [{**by_list, "sha256_url": "http://h/SUMS"}]}
    packs("--trust", key_pair(tmp_path).public)
    told = checked(site.output)
    assert told.severity("digest-unprotected") == "warning"
    assert "the `sha256_url` of model is not by https" in told.found["digest-unprotected"]["message"]


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("Authorization", "warning"),
        ("cookie", "warning"),
        ("X-Api-Key", "warning"),
        ("PRIVATE-TOKEN", "warning"),
        ("X-Auth-Token", "warning"),
        ("X-Site", ""),
        ("Accept", ""),
        ("X-Key-Count", ""),
    ],
)
def test_a_secret_in_a_header_is_a_warning_that_does_not_show_it(
    site: Site, checked: Check, name: str, severity: str
) -> None:
    site.rest = {"artifacts": [{**ARTIFACT, "headers": {name: "s3cret"}}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config)
    assert told.severity("secret-in-header") == severity
    assert "s3cret" not in str(told.found)
    if severity:
        assert f"artifact model: the header {name} " in told.found["secret-in-header"]["message"]
        assert "header_credential" in told.found["secret-in-header"]["remedy"]


def test_an_answer_about_a_url_does_not_show_what_may_be_secret_in_it(site: Site, checked: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/m?sig=s3cret"
    site.rest = {"artifacts": [{**ARTIFACT, "url": url}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config, online=True)
    assert told.severity("url-unreachable") == "error"
    assert "s3cret" not in str(told.found)


def test_an_agent_that_the_image_cannot_run(site: Site, checked: Check) -> None:
    agent = small_agent(site.folder / "agent")
    manifest = agent / MANIFEST
    floor = json.loads(manifest.read_text())["glibc"]
    manifest.write_text(manifest.read_text().replace(f'"glibc": "{floor}"', '"glibc": "2.99"'))
    assert checked(site.image, "--agent", agent).severity("agent-glibc") == "error"


def test_everything_is_told_at_once(site: Site, checked: Check) -> None:
    site.pack = {"boot_url": "http://10.0.0.1/liveos.img"}
    site.rest = {"artifacts": [{"name": "m", "source": "nowhere.bin", "dest": "/run/m"}]}
    site.write_config()
    site.image = altered.with_initrd(site.image, site.folder / "fault.iso", _of_another_kernel)
    told = checked(site.image, "--agent-config", site.config, "--node-memory", "1MiB")
    for reference in ("boot-url-invalid", "source-unreadable", "kernel-other-initrd", "node-memory"):
        assert told.severity(reference) == "error"
    assert told.severity("dest-tmpfs") == "note"


@pytest.fixture
def served(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """A server of the site's folder."""
    with nginx(tmp_path_factory.mktemp("nginx") / "run", root=site.folder) as server:
        yield server


def test_urls_that_answer_with_what_is_expected(site: Site, packs: Packs, checked: Check, served: Nginx) -> None:
    (site.folder / "m.bin").write_bytes(b"model")
    site.rest = {"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m"}]}
    packs("--boot-url", served.url("/pxe/liveos.iso"), "--artifact-url", served.url("/pxe/other-user-artifacts/"))
    told = checked(site.output, online=True)
    assert told.code == 0
    # The server of the test is on the loopback.
    assert [reference for reference in told.found if reference.startswith("url-")] == ["url-own-machine"]
    (site.output / "other-user-artifacts/m.bin").write_bytes(b"another model")
    assert checked(site.output, online=True).severity("url-size") == "error"
    (site.output / "other-user-artifacts/m.bin").unlink()
    told = checked(site.output, online=True)
    assert told.severity("url-unreachable") == "error"
    assert "the server responded 404" in told.found["url-unreachable"]["message"]


def test_urls_of_artifacts_that_do_not_answer(site: Site, checked: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/m.bin"
    site.rest = {
        "artifacts": [
            {**ARTIFACT, "name": "needed", "url": url},
            {**ARTIFACT, "name": "each", "url": "http://10.0.0.1/${arch}/m.bin", "dest": "/srv/each"},
        ]
    }
    site.write_config()
    told = checked(site.image, "--agent-config", site.config, online=True)
    assert told.severity("url-unreachable") == "error"
    assert "Connection refused" in told.found["url-unreachable"]["message"]
    assert told.severity("url-unasked") == "note"
    site.rest = {"artifacts": [{**ARTIFACT, "url": url, "required": False}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config, online=True)
    assert (told.code, told.severity("url-unreachable")) == (0, "warning")


def test_a_configuration_or_a_size_that_is_none_is_bad_input(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fetch.yaml").write_text("version: 1\nartefacts: []\n")
    assert cli.main(["check", str(tiny), "--agent-config", str(tmp_path / "fetch.yaml")]) == 2
    assert "error[unknown-key]" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", str(tiny), "--node-memory", "much"])
    assert ended.value.code == 2
    assert "expected a number and one of" in capsys.readouterr().err


def _references() -> set[str]:
    """Every reference that a check can give, as the sources have them."""
    package = Path(pxe_pack.__file__).parent
    others = (
        "check.py",
        "unit.py",
        "artifacts.py",
        "source_folder.py",
        "source_archive.py",
        "loaders.py",
        "node_reports.py",
        "inject/__init__.py",
        "trust/iso_hook.py",
        "freeze/private_folder.py",
        "trust/keys.py",
        "trust/signed_boot.py",
        "trust/signing.py",
        "trust/stub.py",
    )
    sources = [*(package / "checks").glob("*.py"), *(package / name for name in others)]
    found = {"agent-machine", "agent-glibc", "layout-differs"}  # beside what is no finding
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "reference" and not isinstance(node.value, ast.JoinedStr):
                found |= {str(one.value) for one in ast.walk(node.value) if isinstance(one, ast.Constant)}
    return found | IN_IMAGE


OF_PACKING_ALONE = {
    "disk-full",
    "input-in-output",
    "keep-without-publish",
    "output-in-image",
    "output-in-source",
    "publish-and-output",
    "source-size",
    "source-digest",
    "signed-boot-changed",
    "signed-boot-no-key",
    "signed-boot-no-entry",
}


def test_the_documentation_has_each_reference_with_its_remedy_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs/check.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    assert all(len(row) == 4 and all(row) for row in rows)
    listed = [row[0].strip("`") for row in rows]
    assert len(listed) == len(set(listed))
    assert set(listed) == _references() - OF_PACKING_ALONE
