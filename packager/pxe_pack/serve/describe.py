"""What each kind of node gets, and what somebody's own DHCP server has to send for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pxe_pack.collector_options import HOW_TO_INSTALL
from pxe_pack.console import joined
from pxe_pack.layout.dnsmasq import ARCHITECTURES, ipxe_script, pool
from pxe_pack.serve import collector
from pxe_pack.serve.plan import Dhcp, Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A kind of node: what it loads first, from where, and the DHCP options that lead it there."""

    name: str
    asks_with: str  # how a DHCP server recognises it
    loads: str  # a URL
    options: str  # what a DHCP server has to send
    by_proxy: bool  # dnsmasq's proxy answers it


def clients(plan: Plan) -> Iterator[Client]:
    """The kinds of nodes that can boot from what `plan` serves.

    Their options are those of RFC 2132 and RFC 4578, of RFC 5970 for DHCPv6, and the UEFI Specification's, 24.7.
    """
    site, architecture = plan.site, ARCHITECTURES[plan.site.layout.machine]
    host = _tftp_host(plan)
    is_6 = ":" in host
    tftp = f"tftp://[{host}]/" if is_6 else f"tftp://{host}/"
    asks, user_class, vendor_class = (61, 15, 16) if is_6 else (93, 77, 60)

    def boot_file(path: str) -> str:
        if is_6:
            return f"boot file URL (option 59) {path if ':' in path else f'{tftp}{path}'}"
        file = f"boot file (option 67) {path}"
        return file if ":" in path else f"next-server (siaddr) {host}, {file}"

    if plan.tftp:
        yield Client(
            name="UEFI PXE",
            asks_with=f"option {asks} is {' or '.join(map(str, architecture.pxe))}",
            loads=f"{tftp}{site.loader}",
            options=boot_file(site.loader),
            by_proxy=True,
        )
    script = ipxe_script(site)
    if plan.tftp or ":" in script:
        yield Client(
            name="iPXE",
            asks_with=f"option {user_class} is iPXE",
            loads=script if ":" in script else f"{tftp}{script}",
            options=boot_file(script),
            by_proxy=True,
        )
    if site.base:
        yield Client(
            name="UEFI HTTP boot",
            asks_with=f"option {asks} is {architecture.http}",
            loads=f"{site.base}/{site.loader}",
            options=f"vendor class (option {vendor_class}) HTTPClient, {boot_file(f'{site.base}/{site.loader}')}",
            by_proxy=False,
        )


def text(plan: Plan) -> str:
    """The plan for people: what is served, to whom, and what is left for them to do."""
    return joined(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    version = f" (version {plan.version})" if plan.version else ""
    yield f"Serving {plan.site.folder}/{version}"
    known = [*clients(plan)]
    for client in known:
        yield f"  {client.name:15}  {client.loads}"
    if plan.site.layout.iso:
        yield f"  {'root filesystem':15}  {plan.site.layout.urls.boot_url}"
    yield ""
    where = f" on {plan.interface.name}" if plan.interface else ""
    left = known
    if plan.dhcp is Dhcp.FULL:
        first, last = pool(plan.site)
        yield f"DHCP{where}: boot files, and the addresses {first} to {last} of {plan.site.network}"
        left = []
    elif plan.dhcp is Dhcp.PROXY:
        left = [client for client in known if not client.by_proxy]
        yield f"DHCP{where}: boot files for PXE clients, beside the server that gives addresses"
        if plan.tftp:
            yield "GRUB before 2.12 ignores a proxy's answer. If nodes stop at its prompt, make your DHCP server send"
            yield f"next-server (siaddr) {_tftp_host(plan)}, or boot them with iPXE."
    else:
        yield "DHCP: none."
    if left:
        yield "Your DHCP server has to send:"
        for client in left:
            yield f"  {client.name:14}  (if {client.asks_with})  {client.options}"
    yield f"Ports:  {', '.join(map(str, plan.ports))}"
    yield from _nodes(plan)
    yield "Ctrl-C stops it."


def _nodes(plan: Plan) -> Iterator[str]:
    if plan.site.collector:
        yield f"Nodes:  {plan.site.collector}/"
        if not plan.takes_reports:
            yield "        until their agent starts: to see what it fetches, pack with --report auto"
    elif collector.reports_elsewhere(plan.site.layout):
        yield f"Nodes:  report to {plan.site.layout.report_url}"
    else:
        yield f"Nodes:  no page; {HOW_TO_INSTALL}"


def document(plan: Plan) -> dict[str, object]:
    """The plan as JSON values (docs/json.md)."""
    return {
        "serving": plan.site.folder,
        "version": plan.version,
        "dhcp": plan.dhcp.value,
        "interface": plan.interface.name if plan.interface else None,
        "clients": [
            {"name": one.name, "asks_with": one.asks_with, "loads": one.loads, "dhcp_options": one.options}
            for one in clients(plan)
        ],
        "iso": plan.site.layout.urls.boot_url if plan.site.layout.iso else None,
        "ports": [{"port": port.number, "protocol": port.kind, "purpose": port.purpose} for port in plan.ports],
        "nodes": f"{plan.site.collector}/" if plan.site.collector else None,
    }


def _tftp_host(plan: Plan) -> str:
    """The address of the TFTP server: this machine's on the interface, else what the URLs say."""
    site, interface = plan.site, plan.interface
    own = [str(one.ip) for one in interface.addresses if not site.subnet or one.ip in site.subnet] if interface else []
    if own:
        return site.host if site.host in own else own[0]
    return site.host or "ADDRESS-OF-THIS-MACHINE"
