"""Where files take memory: rules that are easier to see alone."""

from __future__ import annotations

from pathlib import Path

from pxe_fetch.filesystem import is_in_memory, read_mounts

LIVE = """\
25 1 0:22 / / rw,relatime shared:1 - overlay LiveOS_rootfs rw,lowerdir=/run/rootfsbase,upperdir={upper},workdir=/run/w
26 25 0:23 / /run rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,size=600000k
27 25 8:1 / /srv rw,relatime shared:3 - xfs /dev/sda1 rw,attr2
28 27 0:40 / /srv/fast\\040scratch rw shared:4 - tmpfs tmpfs rw
29 25 0:41 / /opt rw,relatime shared:1 - overlay LiveOS_rootfs rw,upperdir=/not/to/be/seen
"""


def test_overlay_of_a_live_system_is_memory_and_a_disk_is_not(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(LIVE.format(upper="/run"))
    mounts = read_mounts(table)
    assert is_in_memory("/var/lib", mounts)
    assert is_in_memory("/run/x", mounts)
    assert not is_in_memory("/srv", mounts)
    assert not is_in_memory("/srvx", read_mounts(tmp_path / "missing"))
    assert is_in_memory("/srv/fast scratch", mounts)
    assert not is_in_memory("/opt", mounts)  # a container's: nobody knows what is below
    table.write_text(LIVE.format(upper="/srv"))
    assert not is_in_memory("/srv", read_mounts(table))
