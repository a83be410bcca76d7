"""Nodes that boot from `pxe-pack serve`: firmware, shim, GRUB, kernel, the ISO, and the agent's artifact.

In a network of its own, so that dnsmasq and nginx have their ports and addresses, and nobody else hears of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from boot.nodes import PXE_PACK, Site
from fakes.server import Server
from fakes.waiting import until
from liveos import shapes

CONFIG = """\
version: 1
pack: {boot_url: http://10.0.0.1/images/liveos.iso, report: auto}
artifacts: [{name: note, source: note.txt, dest: /srv/note.txt}]
"""
SCRIPT = """\
set -e
cd {work}
PATH=$PATH:/usr/sbin:/sbin
export TMPDIR={work}  # what serve leaves when it is killed
ip link set lo up
ip tuntap add tap0 mode tap
ip address add 10.0.0.1/24 dev tap0
ip link set tap0 up
{serve} >served 2>&1 &
until grep -q Ctrl-C served; do kill -0 $! || exit 1; sleep 0.2; done
cp /usr/share/OVMF/OVMF_VARS_4M.fd variables.fd
exec qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 \\
  -accel tcg,thread=multi -cpu max,-erms -m 2560 -smp 2 \\
  -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \\
  -drive if=pflash,format=raw,unit=1,file=variables.fd {firmware} \\
  -netdev tap,id=net,ifname=tap0,script=no,downscript=no \\
  -device virtio-net-pci,netdev=net,bootindex=0,romfile= -device virtio-rng-pci -serial file:serial.log
"""
WITHOUT_PXE = " ".join(f"-fw_cfg name=opt/org.tianocore/IPv{version}PXESupport,string=n" for version in (4, 6))
PATIENCE = 600  # seconds under emulation on a busy machine; a tenth is usual
_LINE = re.compile(
    r'\S+ - - \[[^]]+\] "GET (?P<path>\S+) HTTP/1\.[01]" (?P<status>\d+) \d+ "[^"]*" "(?P<agent>[^"]*)" ".*"'
)

pytestmark = pytest.mark.skipif(
    not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="needs a network card of its own (tun)"
)


@pytest.fixture(scope="module")
def site(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Site:
    packed = Site(server=server, folder=tmp_path_factory.mktemp("served"))
    (packed.folder / "note.txt").write_text("from the layout\n")
    packed.pack(CONFIG, image=shapes.cached(shapes.SHAPES["ic16"]), inject="updates")
    return packed


@dataclass(frozen=True, kw_only=True)
class Booting:
    """A node on its way, and the logs of the servers that it boots from."""

    work: Path
    process: subprocess.Popen[bytes]

    def log(self, name: str) -> str:
        path = self.work / name
        return path.read_text(errors="replace") if path.exists() else ""

    def asked(self) -> dict[str, tuple[str, str]]:
        """What nginx was asked for: path → status, and the first word of the client's name."""
        found = [match for line in self.log("nginx-access.log").splitlines() if (match := _LINE.fullmatch(line))]
        return {match["path"].lstrip("/"): (match["status"], re.split("[/ ]", match["agent"])[0]) for match in found}

    def collected(self) -> list[tuple[object, ...]]:
        """Stage, state and address of each node, as the collector has them."""
        with sqlite3.connect(f"file:{self.work}/nodes.db?mode=ro", uri=True) as database:
            return database.execute("SELECT stage, state, address FROM nodes").fetchall()

    def wait_for(self, path: str) -> None:
        """Until the node has had `path` by HTTP."""
        until = time.monotonic() + PATIENCE
        while path not in self.asked():
            assert self.process.poll() is None, f"the node ended: {self.log('served')}{self.log('serial.log')[-3000:]}"
            assert time.monotonic() < until, f"{self.asked()}{self.log('dnsmasq.log')}{self.log('serial.log')[-3000:]}"
            time.sleep(0.5)


@contextlib.contextmanager
def booting(site: Site, work: Path, *, firmware: str = "") -> Iterator[Booting]:
    """A node that boots from what `pxe-pack serve` serves of the site."""
    serve = [PXE_PACK, "serve", site.layout, "--interface", "tap0", "--dhcp", "full", "--log-dir", work]
    script = SCRIPT.format(work=work, serve=shlex.join(map(str, serve)), firmware=firmware)
    command = ["unshare", "-Urn", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Booting(work=work, process=process)
        finally:
            process.kill()


def test_a_node_gets_all_it_needs_by_the_firmwares_pxe(site: Site, tmp_path: Path) -> None:
    with booting(site, tmp_path) as node:
        node.wait_for("images/other-user-artifacts/note.txt")
        asked, sent = node.asked(), node.log("dnsmasq.log")
        until(lambda: [one[:2] for one in node.collected()] == [("done", "done")], within=PATIENCE)
        assert '"POST /report HTTP/1.1" 204 ' in node.log("nginx-access.log")
    assert asked["images/liveos.iso"] == ("200", "curl")
    assert asked["images/other-user-artifacts/note.txt"] == ("200", "pxe-fetch")
    for name in ("bootx64.efi", "grubx64.efi", "boot/grub2/grub.cfg", "boot/vmlinuz"):
        assert re.search(rf"sent \S+/{name}\S* to 10\.0\.0\.1\d\d", sent), sent


def test_a_node_boots_by_the_firmwares_http_boot(site: Site, tmp_path: Path) -> None:
    """Until it asks for the ISO: further on, the ways of booting do not differ."""
    with booting(site, tmp_path, firmware=WITHOUT_PXE) as node:
        node.wait_for("images/liveos.iso")
        by = node.asked()
    assert by["bootx64.efi"] == ("200", "UefiHttpBoot")
    assert by["grubx64.efi"] == ("200", "UefiHttpBoot")
    # Debian 13's GRUB 2.12 reads files through the firmware's HTTP, older ones have their own.
    client = by["boot/grub2/grub.cfg"][1]
    assert client in {"GRUB", "UefiHttpBoot"}
    kernels = [facts for path, facts in by.items() if path.startswith(("boot/vmlinuz", "boot/init"))]
    assert [by["boot/grub2/grub.cfg"], *kernels] == [("200", client)] * 3
    assert by["images/liveos.iso"] == ("200", "curl")
