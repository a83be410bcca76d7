"""What `check` finds in a root filesystem that would only show on the nodes: identity, names, units to start."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from liveos import tiny
from liveos.specials import Inode
from packing import altered
from packing.checking import Checked
from packing.site import ARTIFACT, Site, files_of, image_with_root

Check = Callable[..., Checked]
ID = b"0123456789abcdef0123456789abcdef\n"
SYSTEM = "etc/systemd/system"
GRUB = "boot/grub2/grub-pxe.cfg"


def file(path: str, data: bytes = b"") -> Inode:
    return Inode(path, data=data)


def link(path: str, target: str) -> Inode:
    return Inode(path, tarfile.SYMTYPE, mode=0o777, target=target)


def enabled(*units: str) -> list[Inode]:
    return [link(f"{SYSTEM}/multi-user.target.wants/{unit}", f"/usr/lib/systemd/system/{unit}") for unit in units]


def check_root(site: Site, checked: Check, files: Iterable[Inode], **artifact: object) -> Checked:
    """What is found in the site's image with these files in its root filesystem."""
    site.rest = {"artifacts": [{**ARTIFACT, **artifact}]}
    site.write_config()
    files = list(files)
    taken = {one.path for one in files}
    where = site.folder / f"image-{len(list(site.folder.iterdir()))}"
    where.mkdir()
    contents = [*(one for one in tiny.tree() if one.path not in taken), *files]
    return checked(image_with_root(site.image, contents, where), "--agent-config", site.config)


def test_a_fixed_machine_id_is_told(site: Site, checked: Check) -> None:
    bus = Inode("var/lib/dbus", tarfile.DIRTYPE, mode=0o755)
    for files, found in (
        ([file("etc/machine-id", ID)], True),
        ([bus, file("var/lib/dbus/machine-id", ID)], True),
        ([bus, link("var/lib/dbus/machine-id", "/etc/machine-id")], False),
        ([file("etc/machine-id", b"uninitialized\n")], False),
        ([file("etc/machine-id")], False),
    ):
        told = check_root(site, checked, files)
        assert told.severity("root-machine-id") == ("warning" if found else ""), files


@pytest.mark.parametrize(("value", "severity"), [(ID.decode().strip(), "warning"), ("firmware", "")])
def test_a_machine_id_on_the_kernel_command_line_counts_first(
    site: Site, checked: Check, value: str, severity: str
) -> None:
    text = files_of(site.image)[GRUB].decode()
    changed = text.replace(" rd.live.image", f" rd.live.image systemd.machine_id={value}")
    site.image = altered.with_files(site.image, site.folder / "given.iso", {GRUB: changed})
    fixed = check_root(site, checked, [file("etc/machine-id", ID)])
    assert fixed.severity("root-machine-id") == severity


QUADLET = [
    *(Inode(path, tarfile.DIRTYPE, mode=0o755) for path in ("etc/containers", "etc/containers/systemd")),
    file("etc/containers/systemd/web.container"),
]
RESOLVED = "/run/systemd/resolve/stub-resolv.conf"
NSS = file("etc/nsswitch.conf", b"passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n")
CONF = "etc/resolv.conf"
NAMES: dict[str, tuple[list[Inode], str]] = {
    "missing": ([], "names no server"),
    "empty": ([file(CONF, b"# made by nobody\n")], "names no server"),
    "link to resolved's": ([link(CONF, f"..{RESOLVED}")], "which systemd-resolved.service makes, but"),
    "link to resolved's, enabled": ([link(CONF, f"..{RESOLVED}"), *enabled("systemd-resolved.service")], ""),
    "link to nothing": ([link(CONF, "/etc/resolvconf/made.conf")], "which does not exist"),
    "own resolver": ([file(CONF, b"nameserver 127.0.0.53\n")], "but no resolver on the node itself is enabled"),
    "own resolver, enabled": ([file(CONF, b"nameserver 127.0.0.1\n"), *enabled("unbound.service")], ""),
    "of the build host": ([file(CONF, b"search lan\nnameserver 192.168.122.1\n")], "the server of the build host"),
    "public": ([file(CONF, b"nameserver 192.168.1.1\nnameserver 9.9.9.9\n")], ""),
    "NetworkManager writes it": ([file(CONF, b"nameserver 127.0.0.1\n"), *enabled("NetworkManager.service")], ""),
    "by nss-resolve": ([NSS, *enabled("systemd-resolved.service")], ""),
    "nss-resolve without resolved": ([NSS], "names no server"),
    "in /etc/hosts": ([file("etc/hosts", b"127.0.0.1 localhost\n10.0.0.9 mirror.LAN mirror # ours\n")], ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_whether_nodes_can_resolve_the_names_in_urls(site: Site, checked: Check, kind: str) -> None:
    files, fault = NAMES[kind]
    told = check_root(site, checked, files, url="http://mirror.lan/m.bin")
    made = any(one.path == CONF for one in files)  # else it may be made at boot
    assert told.severity("root-resolv-conf") == (("warning" if made else "note") if fault else "")
    if fault:
        assert "mirror.lan" in told.found["root-resolv-conf"]["message"]
        assert fault in told.found["root-resolv-conf"]["message"]


@pytest.mark.parametrize("url", ["http://10.0.0.1/m", "http://[fd00::1]:80/m", "file:///srv/m", "http://${mac}.lan/m"])
def test_no_resolver_is_needed_without_names(site: Site, checked: Check, url: str) -> None:
    assert not check_root(site, checked, [], url=url).severity("root-resolv-conf")


@pytest.mark.parametrize(
    ("unit", "files", "missing"),
    [
        ("app.service", [], True),
        ("app.service", [file(f"{SYSTEM}/app.service")], False),
        ("app.service", [file("usr/lib/systemd/system/app.service")], False),
        ("app@one.service", [file(f"{SYSTEM}/app@.service")], False),
        ("app@one.service", [file(f"{SYSTEM}/app.service")], True),
        ("old.service", [Inode("etc/init.d", tarfile.DIRTYPE, mode=0o755), file("etc/init.d/old")], False),
        ("srv-data.mount", [file("etc/fstab", b"/dev/sda1 /srv/data ext4 defaults 0 2\n")], False),
        ("srv-x\\x2dy.mount", [file("etc/fstab", b"/dev/sda1 /srv/x-y ext4 defaults 0 2\n")], False),
        ("srv-data.mount", [], True),
        ("app.slice", [], False),
        ("web.service", QUADLET, False),
        ("web-pod.service", [*QUADLET, file("etc/containers/systemd/web.pod")], False),
        ("other.service", QUADLET, True),
    ],
)
def test_a_unit_to_start_has_to_be_in_the_image(
    site: Site, checked: Check, unit: str, files: list[Inode], *, missing: bool
) -> None:
    told = check_root(site, checked, files, start=[unit])
    assert told.severity("start-unit-missing") == ("warning" if missing else "")
    told = check_root(replace(site), checked, files, start=[unit], start_required=True)
    assert told.severity("start-unit-missing") == ("error" if missing else "")


@pytest.mark.parametrize(
    ("dest", "found"),
    [
        ("/etc/systemd/system/app.service", True),
        ("/etc/systemd/system/${hostname}.service", True),
        ("/etc/systemd/system", True),
        ("/etc/containers/systemd/app.container", True),
        ("/srv/app.service", False),
        ("/etc/systemd/system/other.service", False),
    ],
)
def test_or_among_the_artifacts(site: Site, checked: Check, *, dest: str, found: bool) -> None:
    unit = {**ARTIFACT, "name": "unit", "dest": dest, "extract": "tar" if dest.endswith("system") else "none"}
    site.rest = {
        "allowed_roots": ["/srv", "/etc/systemd/system", "/etc/systemd", "/etc/containers"],
        "artifacts": [{**ARTIFACT, "start": "app.service"}, unit],
    }
    site.write_config()
    told = checked(site.image, "--agent-config", site.config)
    assert told.severity("start-unit-missing") == ("" if found else "warning")
