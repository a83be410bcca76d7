"""The logs of the servers, in which anybody who reaches them can have a line written."""

from __future__ import annotations

from pathlib import Path

from fuzz.inputs import Input
from pxe_pack.collector.layouts import ServedLayouts
from pxe_pack.collector.logs import Dnsmasq, Nginx

_DHCP, _TFTP = "Nov 30 07:41:09 dnsmasq-dhcp[12]: 3 ", "Nov 30 07:41:09 dnsmasq-tftp[12]: "
_DNSMASQ = (
    f"{_DHCP}vendor class: PXEClient:Arch:00007:UNDI:003016",
    f"{_DHCP}DHCPDISCOVER(eth1) 52:54:00:00:00:01 ",
    f"{_DHCP}DHCPACK(eth1) 10.0.0.5 52:54:00:00:00:01 node1",
    f"{_TFTP}sent /srv/pxe/bootx64.efi to 10.0.0.5",
    f"{_TFTP}failed sending /srv/pxe/boot/vmlinuz-6.6 to ::ffff:10.0.0.5",
    f"{_TFTP}file /srv/pxe/grub.cfg not found for 10.0.0.5",
)
_REQUEST = '10.0.0.5 - - [30/Nov/2026:07:41:09 +0000] "GET'
_AGENT = '"-" "curl/8"'
_FOLDER = "/srv/versions/20261130T074501Z-1a2b3c4d"
_NGINX = (
    f'{_REQUEST} /bootx64.efi HTTP/1.1" 200 1000 {_AGENT}',
    f'{_REQUEST} http://m/boot/initrd.img?x=1 HTTP/1.1" 404 153 {_AGENT} "153" "-" "/srv/pxe"',
    f'{_REQUEST} /liveos.iso HTTP/1.1" 206 500 {_AGENT} "500" "bytes 500-999/1000" "{_FOLDER}"',
    f'{_REQUEST} /liveos.iso HTTP/1.1" 200 400 {_AGENT} "1000" "-" "/srv/pxe"',
)


def of_dnsmasq() -> list[Input]:
    """A boot by TFTP."""
    return [Input(data="\n".join(_DNSMASQ).encode())]


def of_nginx() -> list[Input]:
    """A boot by HTTP, in the format "combined" and in that of `pxe-pack serve`."""
    return [Input(data="\n".join(_NGINX).encode())]


def read_dnsmasq(path: Path) -> None:
    """Read each line."""
    reader = Dnsmasq(ServedLayouts(None))
    for line in path.read_text(errors="replace").splitlines():
        reader.read(line, now=0.0)


def read_nginx(path: Path) -> None:
    """Read each line."""
    reader = Nginx(ServedLayouts(None))
    for line in path.read_text(errors="replace").splitlines():
        reader.read(line, now=0.0)
