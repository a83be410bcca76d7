"""The model of a node's memory: what `check` and packing say of an image, and what `live_space` changes."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from liveos import tiny
from liveos.newc import Entry
from liveos.specials import Inode
from packing import altered
from packing.checking import Checked
from packing.site import ARTIFACT, Site, files_of, image_with_root
from pxe_pack import cli
from pxe_pack.unit import unit_files

Check = Callable[..., Checked]
Packs = Callable[..., str]
Refused = Callable[..., str]
GRUB = "boot/grub2/grub-pxe.cfg"
UNIT = "updates/usr/lib/systemd/system/pxe-fetch-live-space.service"


def with_artifacts(site: Site, *artifacts: dict[str, object], **rest: object) -> None:
    """Have the site's configuration fetch these; each is of 700 MiB unless it says otherwise."""
    names = [{**ARTIFACT, "size": "700MiB", "name": f"a{n}", "dest": f"/srv/a{n}"} for n in range(len(artifacts))]
    site.rest = {"artifacts": [{**one, **own} for one, own in zip(names, artifacts, strict=True)], **rest}
    site.write_config()


def run_of(told: Checked) -> dict[str, Any]:
    """What is told of the first file system in memory: that of the writable layer."""
    spaces = told.memory["file_systems"]
    assert isinstance(spaces, list)
    found = spaces[0]
    assert isinstance(found, dict)
    return found


def test_700_mib_on_a_node_of_2_gib_are_refused_without_live_space_and_fit_with_it(site: Site, checked: Check) -> None:
    with_artifacts(site, {})
    told = checked(site.image, "--agent-config", site.config, "--node-memory", "2GiB")
    assert (told.code, told.severity("node-memory-half")) == (3, "error")
    assert "20% of the memory" in told.found["node-memory-half"]["message"]
    (share,) = re.findall(r"`live_space: (\d+%)`", told.found["node-memory-half"]["remedy"])
    for enough in (share, "60%", "1GiB"):
        with_artifacts(site, {}, live_space=enough)
        told = checked(site.image, "--agent-config", site.config, "--node-memory", "2GiB")
        assert (told.code, run_of(told)["why"]) == (0, "live_space")
    with_artifacts(site, {}, live_space="30%")
    assert checked(site.image, "--agent-config", site.config, "--node-memory", "2GiB").code == 3


def test_live_space_is_no_remedy_where_the_memory_itself_is_too_small(site: Site, checked: Check) -> None:
    with_artifacts(site, {}, live_space="90%")
    told = checked(site.image, "--agent-config", site.config, "--node-memory", "900MiB")
    assert told.severity("node-memory") == "error"
    with_artifacts(site, {})
    told = checked(site.image, "--agent-config", site.config, "--node-memory", "900MiB")
    assert "live_space" not in told.found["node-memory-half"]["remedy"]


def test_packing_refuses_what_does_not_fit_and_shows_the_table(
    site: Site, packs: Packs, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    site.rest = {"artifacts": [{**ARTIFACT, "size": "700MiB"}]}
    site.pack = {"node_memory": "2GiB"}
    assert "error[node-memory-half]" in refused()
    for arguments in ((), ("--dry-run",)):
        assert cli.main(site.command(*arguments)) == 2
        said = capsys.readouterr().err
        assert said.count("sum, of 2GiB") == said.count("error[node-memory-half]") == 1
        assert not site.output.exists()
    assert packs("--node-memory", "8GiB", "--dry-run").count("sum, of 8GiB") == 1
    site.pack = {}
    assert "sum, of" not in packs("--dry-run")


@pytest.mark.parametrize(
    ("library", "modules", "limit"),
    [
        ("usr/lib/systemd/libsystemd-shared-252.so", None, ("20%", "systemd 252 in the initrd")),
        ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-246.so", None, ("50%", "systemd 246 in the initrd")),
        ("", None, ("20%", f"systemd {tiny.SYSTEMD_VERSION} in the initrd")),
        ("", "bash\ndmsquash-live\nlivenet\n", ("50%", "an initrd without systemd")),
    ],
)
def test_run_is_as_large_as_the_initrds_systemd_makes_it(
    site: Site, checked: Check, library: str, modules: str | None, limit: tuple[str, str]
) -> None:
    def edit(entries: dict[str, Entry]) -> None:
        if library:
            entries[library] = Entry(library, stat.S_IFREG | 0o755, b"")
        if modules is not None:
            name = "usr/lib/dracut/modules.txt"
            entries[name] = Entry(name, stat.S_IFREG | 0o644, modules.encode())

    image = altered.with_initrd(site.image, site.folder / "other.iso", edit)
    found = run_of(checked(image, "--node-memory", "4GiB"))
    assert (found["mount_point"], found["limit"], found["why"]) == ("/run", *limit)


def image_with(site: Site, files: Iterable[Inode]) -> Path:
    """The site's image with these files in its root filesystem, in place of its own of these names."""
    files = list(files)
    taken = {one.path for one in files}
    return image_with_root(site.image, [*(one for one in tiny.tree() if one.path not in taken), *files], site.folder)


def test_artifacts_on_a_disk_take_no_memory(site: Site, checked: Check) -> None:
    with_artifacts(site, {"dest": "/srv/data/model.bin"})
    fstab = Inode("etc/fstab", data=b"# disks\nLABEL=data /srv/data ext4 defaults 0 2\n")
    image = image_with(site, [fstab])
    assert checked(image, "--agent-config", site.config, "--node-memory", "2GiB").code == 0
    with_artifacts(site, {"dest": "/srv/database"})
    assert checked(image, "--agent-config", site.config, "--node-memory", "2GiB").code == 3


def test_a_tmpfs_of_the_image_is_as_large_as_it_says(site: Site, checked: Check) -> None:
    with_artifacts(site, {"dest": "/srv/models/m.bin"})
    for size, code in (("size=30%", 3), ("size=1g", 0), ("mode=0755", 0)):
        where = site.folder / size
        where.mkdir()
        fstab = Inode("etc/fstab", data=f"tmpfs /srv/models tmpfs {size} 0 0\n".encode())
        image = image_with(replace(site, folder=where), [fstab])
        told = checked(image, "--agent-config", site.config, "--node-memory", "2GiB")
        assert told.code == code, size
        assert told.severity("dest-tmpfs") == ("warning" if code else "note")


def test_a_mount_unit_counts_if_something_wants_it(site: Site, checked: Check) -> None:
    with_artifacts(site, {"dest": "/srv/data/model.bin"})
    unit = Inode(
        "etc/systemd/system/srv-data.mount",
        data=b"[Mount]\nWhat=/dev/sda1\nWhere=/srv/data\nType=xfs\nOptions=noatime\n",
    )
    wants = "etc/systemd/system/multi-user.target.wants"
    wanted = Inode(f"{wants}/srv-data.mount", kind=b"2", mode=0o777, target="../srv-data.mount")
    assert checked(image_with(site, [unit]), "--agent-config", site.config, "--node-memory", "2GiB").code == 3
    (site.folder / "root.squashfs").unlink()
    (site.folder / "other.iso").unlink()
    assert checked(image_with(site, [unit, wanted]), "--agent-config", site.config, "--node-memory", "2GiB").code == 0


def test_what_only_some_nodes_get_makes_a_warning(site: Site, checked: Check) -> None:
    optional: tuple[dict[str, object], ...] = ({"required": False}, {"when": {"arch": "x86_64"}})
    for some in optional:
        with_artifacts(site, {"size": "10MiB"}, some)
        told = checked(site.image, "--agent-config", site.config, "--node-memory", "2GiB")
        assert (told.code, told.severity("node-memory-half")) == (0, "warning")


def test_of_several_artifacts_for_one_destination_the_largest_counts(site: Site, checked: Check) -> None:
    each: list[dict[str, object]] = [
        {"dest": "/srv/driver", "size": "250MiB", "when": {"mac": f"52:54:0{n}:*"}} for n in range(3)
    ]
    with_artifacts(site, *each)
    told = checked(site.image, "--agent-config", site.config, "--node-memory", "2GiB")
    assert not told.severity("node-memory-half")


def test_an_archive_counts_beside_its_content(site: Site, checked: Check) -> None:
    with_artifacts(site, {"size": "250MiB"})
    assert checked(site.image, "--agent-config", site.config, "--node-memory", "2GiB").code == 0
    with_artifacts(site, {"size": "250MiB", "extract": "tar"})
    told = checked(site.image, "--agent-config", site.config, "--node-memory", "2GiB")
    assert told.code == 3
    assert told.memory["unknown"] == ["a0"]


def test_rd_live_ram_has_the_root_filesystem_in_memory_twice(site: Site, checked: Check) -> None:
    text = files_of(site.image)[GRUB].decode()
    image = altered.with_files(
        site.image, site.folder / "ram.iso", {GRUB: text.replace("rd.live.image", "rd.live.image rd.live.ram=1")}
    )
    before, after = (run_of(checked(one, "--node-memory", "2GiB")) for one in (site.image, image))
    assert after["needed"] - before["needed"] == len(files_of(site.image)["liveos/rootfs.img"])


def test_dracut_enlarges_run_for_rd_live_ram_if_the_memory_is_enough(site: Site, checked: Check) -> None:
    def edit(entries: dict[str, Entry]) -> None:
        name = "usr/lib/img-lib.sh"
        entries[name] = Entry(name, stat.S_IFREG | 0o755, b"check_live_ram() {\n    minmem=$(getarg rd.minmem)\n}\n")

    checking = altered.with_initrd(site.image, site.folder / "checking.iso", edit)
    text = files_of(checking)[GRUB].decode()
    with_artifacts(site, {"size": "500MiB"})
    for number, (arguments, memory, code) in enumerate(
        [
            ("rd.live.ram", "2GiB", 0),
            ("rd.live.ram=0", "2GiB", 3),
            ("rd.live.ram", "1GiB", 3),
            ("rd.live.ram rd.minmem=600", "1GiB", 0),
        ]
    ):
        changed = text.replace("rd.live.image", f"rd.live.image {arguments}")
        image = altered.with_files(checking, site.folder / f"{number}.iso", {GRUB: changed})
        told = checked(image, "--agent-config", site.config, "--node-memory", memory)
        assert told.code == code, (arguments, memory, told.found)


def test_a_snapshot_of_device_mapper_is_not_in_run_and_as_large_as_dracut_makes_it(
    site: Site, checked: Check, tiny_ext4: Path
) -> None:
    def edit(entries: dict[str, Entry]) -> None:
        name = "usr/sbin/dmsquash-live-root"
        entries[name] = Entry(name, stat.S_IFREG | 0o755, b'[ -z "$overlay_size" ] && overlay_size=512\n')

    cfg = "boot/grub2/grub.cfg"
    text = files_of(tiny_ext4)[cfg].decode()
    plain = re.sub(r" rd\.live\.overlay\.overlayfs\S*", "", text)
    small = plain.replace(" rd.live.image", " rd.live.image rd.live.overlay.size=512")
    assert small != plain != text
    images = [
        altered.with_files(tiny_ext4, site.folder / f"{number}.iso", {cfg: changed})
        for number, changed in enumerate((plain, small))
    ]
    images.append(altered.with_initrd(images[0], site.folder / "old.iso", edit))
    with_artifacts(site, {}, live_space="60%")
    told = [checked(image, "--agent-config", site.config, "--node-memory", "2GiB") for image in images]
    assert [one.severity("live-space-unused") for one in told] == ["warning"] * 3
    assert [one.severity("node-memory-half") for one in told] == ["", "error", "error"]


def test_a_root_filesystem_that_is_the_initrd_gets_half_of_the_memory(
    site: Site, checked: Check, tiny_full_os: Path
) -> None:
    with_artifacts(site, {"size": "1000MiB"})
    told = checked(tiny_full_os, "--agent-config", site.config, "--node-memory", "2GiB")
    assert (told.code, run_of(told)["mount_point"], run_of(told)["limit"]) == (3, "/", "50%")
    with_artifacts(site, {"size": "1000MiB"}, live_space="75%")
    assert checked(tiny_full_os, "--agent-config", site.config, "--node-memory", "2GiB").code == 0


def test_a_layout_is_checked_with_what_was_packed_into_it(site: Site, packs: Packs, checked: Check) -> None:
    for inject in ("updates", "initrd", "rootfs"):
        with_artifacts(site, {}, live_space="60%")
        packs("--inject", inject)
        assert checked(site.output, "--node-memory", "2GiB").code == 0
        assert run_of(checked(site.output))["why"] == "live_space"
        with_artifacts(site, {})
        packs("--inject", inject)
        assert checked(site.output, "--node-memory", "2GiB").severity("node-memory-half") == "error"


def test_the_unit_is_packed_where_the_configuration_has_live_space(site: Site, packs: Packs) -> None:
    with_artifacts(site, {}, live_space="60%")
    packs("--inject", "updates")
    files = files_of(site.iso)
    assert b"\nExecStart=mount -v -o remount,size=60%% /run\n" in files[UNIT]
    assert b"\nBefore=pxe-fetch.service\n" in files[UNIT]
    with_artifacts(site, {}, live_space="1GiB")
    packs("--inject", "updates")
    assert b"size=1073741824 /run" in files_of(site.iso)[UNIT]
    with_artifacts(site, {})
    packs("--inject", "updates", "--image", site.iso, "--output", site.folder / "again")
    assert UNIT not in files_of(site.folder / "again/liveos.iso")


def test_the_unit_is_valid_and_keeps_to_the_mounts_that_all_see(tmp_path: Path) -> None:
    name, folder = "pxe-fetch-live-space.service", tmp_path / "usr/lib/systemd/system"
    text = (unit_files() / name).read_text()
    # any of these would give it a mount namespace of its own (systemd.exec(5)), and its change would be lost
    assert not re.search(r"(?m)^(Private(Mounts|Tmp|Devices)|Protect\w+|\w+Paths|MountFlags|RootDirectory)=", text)
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    for target in ("basic", "sysinit"):
        (folder / f"{target}.target").write_text("[Unit]\nDescription=stub\n")
    program = tmp_path / "usr/bin/mount"
    program.parent.mkdir()
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    verify = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", name]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("value", ["5%", "95%", "100 %", "half", "60", "-1", "0.5"])
def test_a_live_space_that_is_none_is_told(site: Site, refused: Refused, value: str) -> None:
    site.rest["live_space"] = value
    said = refused()
    assert "live_space" in said
    assert "error[live-space-invalid]" in said
