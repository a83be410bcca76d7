"""UEFI HTTP boot with the servers' configurations that `pxe-pack snippet` prints: firmware, shim and GRUB over HTTP.

In a network of its own, so that dnsmasq and nginx have their ports and addresses, and nobody else hears of them.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from boot.nodes import PXE_PACK, Site
from fakes.server import Server
from liveos import shapes

CONFIG = """\
version: 1
pack: {boot_url: http://10.0.0.1/images/liveos.iso}
artifacts: [{name: none, url: http://10.0.0.1/none, sha256: "%s", dest: /srv/none}]
"""
NGINX = """\
user root;
pid {0}/nginx.pid;
events {{}}
http {{
  log_format asked '$request_method $uri $status $http_user_agent';
  access_log {0}/asked.log asked;
  client_body_temp_path {0}/body;
  proxy_temp_path {0}/proxy;
  fastcgi_temp_path {0}/fastcgi;
  uwsgi_temp_path {0}/uwsgi;
  scgi_temp_path {0}/scgi;
  include {0}/snippet.conf;
}}
"""
# The firmware is asked to leave PXE out: it would come first.
NODE = """\
set -e
cd {0}
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
ip tuntap add tap0 mode tap
ip address add 10.0.0.1/24 dev tap0
ip link set tap0 up
nginx -p . -c {0}/nginx.conf -e error.log
dnsmasq -d -C dnsmasq.conf --pid-file= --dhcp-leasefile={0}/leases --interface=tap0 --bind-interfaces 2>{0}/log &
cp /usr/share/OVMF/OVMF_VARS_4M.fd variables.fd
exec qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 \\
  -accel tcg,thread=multi -cpu max -m 2560 -smp 2 \\
  -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \\
  -drive if=pflash,format=raw,unit=1,file=variables.fd \\
  -fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n -fw_cfg name=opt/org.tianocore/IPv6PXESupport,string=n \\
  -netdev tap,id=net,ifname=tap0,script=no,downscript=no \\
  -device virtio-net-pci,netdev=net,bootindex=0,romfile= -device virtio-rng-pci -serial file:serial.log
"""
PATIENCE = 400  # seconds for firmware, GRUB and initrd under emulation on a busy machine; a tenth is usual


def snippet(site: Site, server: str) -> str:
    done = subprocess.run([PXE_PACK, "snippet", server, site.layout], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="needs a network card of its own (tun)")
def test_node_boots_by_the_firmwares_http_boot(server: Server, tmp_path: Path) -> None:
    site = Site(server=server, folder=tmp_path)
    site.pack(CONFIG % ("0" * 64), image=shapes.cached(shapes.SHAPES["ic16"]), inject="updates")
    work = tmp_path / "net"
    work.mkdir()
    (work / "dnsmasq.conf").write_text(snippet(site, "dnsmasq"))
    (work / "snippet.conf").write_text(snippet(site, "nginx"))
    (work / "nginx.conf").write_text(NGINX.format(work))
    command = ["unshare", "-Urn", "--pid", "--fork", "--kill-child", "sh", "-c", NODE.format(work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as node:
        try:
            asked = wait_for_the_iso(node, work / "asked.log")
        finally:
            node.kill()
    served = [line.split(" ", 3) for line in asked.splitlines()]
    by = {path.lstrip("/"): (status, agent.split("/")[0].split()[0]) for _, path, status, agent in served}
    assert by["bootx64.efi"] == ("200", "UefiHttpBoot")
    assert by["grubx64.efi"] == ("200", "UefiHttpBoot")
    # Debian 13's GRUB 2.12 reads files through the firmware's HTTP, older ones have their own.
    client = by["boot/grub2/grub.cfg"][1]
    assert client in {"GRUB", "UefiHttpBoot"}
    kernels = [facts for path, facts in by.items() if path.startswith(("boot/vmlinuz", "boot/init"))]
    assert [by["boot/grub2/grub.cfg"], *kernels] == [("200", client)] * 3
    assert by["images/liveos.iso"] == ("200", "curl")


def wait_for_the_iso(node: subprocess.Popen[bytes], log: Path) -> str:
    """What nginx was asked for, once that is the ISO; till then and no further the ways of booting differ."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        asked = log.read_text() if log.exists() else ""
        if "liveos.iso 200 curl" in asked:
            return asked
        if node.poll() is not None:
            assert node.stdout
            pytest.fail(f"the node ended: {node.stdout.read().decode()}")
        time.sleep(0.5)
    pytest.fail(f"no ISO was asked for; but {log.read_text() if log.exists() else 'nothing at all'}")
