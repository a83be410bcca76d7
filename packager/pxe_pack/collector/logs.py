"""What lines of dnsmasq's and nginx's logs say about a node's boot.

Sources: dnsmasq 2.89, rfc2131.c and tftp.c (my_syslog); nginx, ngx_http_log_module, "combined", and LOG_FORMAT in
layout/nginx.py. All in such a line but its form may come from anybody, so a line that is not exactly of a known form
says nothing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection
from pathlib import PurePosixPath
from urllib.parse import unquote

from pxe_pack.collector.addresses import usual
from pxe_pack.collector.document import clean
from pxe_pack.collector.entries import Sighting
from pxe_pack.collector.layouts import ServedLayouts
from pxe_pack.layout.published import version_in

_TRANSACTIONS = 4096  # DHCP transactions that are remembered
_MAC = r"(?P<mac>[0-9a-f]{2}(?::[0-9a-f]{2}){5})"
_HEAD = r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d )?(?:[\w.-]+ )?dnsmasq-"
_VENDOR = re.compile(_HEAD + r"dhcp(?:\[\d+\])?: (?P<id>\d+) vendor class: (?P<vendor>PXEClient|HTTPClient)\b.*")
_DHCP = re.compile(
    _HEAD + r"dhcp(?:\[\d+\])?: (?:(?P<id>\d+) )?(?P<kind>DHCPDISCOVER|DHCPREQUEST|DHCPACK|PXE)\([^() ]+\) "
    rf"(?:(?P<address>\d+(?:\.\d+){{3}}) )?{_MAC}(?: .*)?"
)
_TFTP = re.compile(
    _HEAD + r"tftp(?:\[\d+\])?: (?P<what>sent|failed sending|file) (?P<path>.+?)(?P<absent> not found)? "
    r"(?:to|for) (?P<address>[0-9a-f.:]+)"
)
_ORIGIN = re.compile(r"https?://[^/?]*", re.IGNORECASE)  # before the path, in a request to a proxy: RFC 9112, 3.2.2
_HTTP = re.compile(
    r"(?P<address>[0-9a-f.:]+) - \S+ \[[^\]]+\] "
    r'"(?P<method>GET|HEAD) (?P<target>\S+) HTTP/[\d.]+" (?P<status>\d{3}) (?P<bytes>\d{1,19}) "[^"]*" "[^"]*"'
    r'(?: "(?P<length>\d{1,19}|-)" "(?:bytes (?P<start>\d{1,19})-\d+/(?P<total>\d{1,19})|[^"]*)" '
    r'"(?P<folder>[^"]*)"|.*)'
)

# By the name of a file. Image Customizer's and ours: docs/layout.md.
_FIRST = re.compile(r"(?:boot(?:x64|aa64)|shim(?:x64|aa64)?)\.efi", re.IGNORECASE)  # which firmware asks for
_FILES = (
    (re.compile(r"(?:revocations|shim_certificate).*\.efi", re.IGNORECASE), "shim"),
    (_FIRST, "shim"),
    (re.compile(r"grub(?:x64|aa64)?\.efi|grub\.cfg(?:-.*)?|grubenv|boot\.ipxe|.*ipxe.*\.efi", re.IGNORECASE), "GRUB"),
    (re.compile(r"vmlinuz.*|linux.*|.*\.efi", re.IGNORECASE), "kernel"),
    (re.compile(r"initrd.*|initramfs.*", re.IGNORECASE), "initrd"),
    (re.compile(r".*\.iso", re.IGNORECASE), "ISO"),
)
# What boot loaders ask for and can do without: shim (shim.c, load_unbundled_trust), and GRUB (its manual, "Network": a
# grub.cfg for one node; its lists of modules).
_OPTIONAL = re.compile(r"(?:revocations|shim_certificate)\w*\.efi|grub\.cfg-.*|.*\.lst|grubenv", re.IGNORECASE)
_NOT_FOUND, _OK, _PARTIAL = 404, 200, 206


class Dnsmasq:
    """Reads dnsmasq's log. With `log-dhcp` it tells firmware from an operating system that asks for an address."""

    def __init__(self, layouts: ServedLayouts) -> None:
        self._layouts = layouts
        self._firmware: OrderedDict[str, None] = OrderedDict()  # transactions of PXE and HTTP boot

    def read(self, line: str, *, now: float) -> Sighting | None:
        """What `line` says; None if that is nothing about a boot."""
        if found := _VENDOR.fullmatch(line):
            self._firmware[found["id"]] = None
            if len(self._firmware) > _TRANSACTIONS:
                self._firmware.popitem(last=False)
            return None
        if found := _DHCP.fullmatch(line):
            address = usual(found["address"] or "")
            is_firmware = found["kind"] == "PXE" or found["id"] in self._firmware
            return Sighting(
                time=now, mac=found["mac"], address=address if found["kind"] == "DHCPACK" else "", stage="DHCP",
                text=f"{found['kind']} {address}".strip(), starts_boot=is_firmware,
            )  # fmt: skip
        if (found := _TFTP.fullmatch(line)) and (address := usual(found["address"])):
            path = self._layouts.path_of(clean(found["path"]))
            stage = stage_of(path, self._layouts.programs())
            if stage and found["what"] == "sent":
                return _delivered(stage, path, address, now=now, how="TFTP")
            if found["absent"] and is_optional(path):
                return None
            if found["absent"] or found["what"] == "failed sending":
                what = "does not have" if found["absent"] else "could not send"
                stage = stage or "DHCP"
                text = f"the TFTP server {what} {path}"
                return Sighting(time=now, address=address, stage=stage, text=text, is_trouble=True)
        return None


class Nginx:
    """Reads nginx's access log. Lines of the format "combined" tell neither the version nor the size of a file."""

    def __init__(self, layouts: ServedLayouts) -> None:
        self._layouts = layouts

    def read(self, line: str, *, now: float) -> Sighting | None:
        """What `line` says; None if that is nothing about a boot."""
        found = _HTTP.fullmatch(line)
        if not found or not (address := usual(found["address"])):
            return None
        path, status = _path(found["target"]), int(found["status"])
        version = version_in(found["folder"] or "")
        stage = stage_of(path, self._layouts.programs(version))
        if not stage:
            return None
        if status >= 400:  # noqa: PLR2004  RFC 9110, 15.5
            if status == _NOT_FOUND and is_optional(path):
                return None
            text = f"the HTTP server answered {status} for {clean(path)}"
            return Sighting(time=now, address=address, stage=stage, text=text, is_trouble=True)
        if found["method"] != "GET" or status not in (_OK, _PARTIAL):
            return None
        part = _part(found) if stage == "ISO" else None
        return _delivered(stage, clean(path), address, now=now, how="HTTP", part=part, version=version)


def stage_of(path: str, programs: Collection[str]) -> str:
    """The stage that a node has reached when it gets this file; "" if that is none of the boot.

    A signed program, one of `programs`, has the kernel and the initrd in it.
    """
    name = PurePosixPath(path).name
    if name in programs:
        return "initrd"
    return next((stage for pattern, stage in _FILES if pattern.fullmatch(name)), "")


def is_optional(path: str) -> bool:
    """True for a file that a boot loader asks for and can do without, so it is no trouble if it does not exist."""
    return bool(_OPTIONAL.fullmatch(PurePosixPath(path).name))


def _path(target: str) -> str:
    """The path of a request's target, which may be no URL at all (RFC 9112, 3.2): nginx logs what it was sent."""
    origin = _ORIGIN.match(target)
    return unquote((target[origin.end() :] if origin else target).partition("?")[0])


def _part(found: re.Match[str]) -> tuple[float, float] | None:
    """Where in the file the bytes that were sent begin and end, in percent; None if the line does not tell."""
    start, total = int(found["start"] or 0), int(found["total"] or 0)
    if int(found["status"]) == _OK and found["length"]:
        start, total = 0, int(found["length"].strip("-") or 0)
    if not total:
        return None
    return round(100 * start / total, 1), min(100.0, round(100 * (start + int(found["bytes"])) / total, 1))


def _delivered(
    stage: str,
    path: str,
    address: str,
    *,
    now: float,
    how: str,
    part: tuple[float, float] | None = None,
    version: str = "",
) -> Sighting:
    start, end = part or (0.0, None)
    words = "" if end is None else f" ({end:g} %)" if not start else f" ({start:g} to {end:g} %)"
    return Sighting(
        time=now, address=address, stage=stage, text=f"{path} by {how}{words}", percent=end, percent_before=start,
        version=version, starts_boot=bool(_FIRST.fullmatch(PurePosixPath(path).name)),
    )  # fmt: skip
