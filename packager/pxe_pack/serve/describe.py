"""What each kind of node gets, and what somebody's own DHCP server has to send for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pxe_pack.console import joined
from pxe_pack.layout.dnsmasq import ARCHITECTURES, ipxe_script
from pxe_pack.layout.site import address_of
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
    """The kinds of nodes that can boot from what `plan` serves. Their options are RFC 2132's, 4578's and UEFI's."""
    site, architecture = plan.site, ARCHITECTURES[plan.site.layout.machine]
    host = _tftp_host(plan)
    tftp = f"tftp://[{host}]/" if ":" in host else f"tftp://{host}/"
    numbers = " or ".join(map(str, architecture.pxe))
    script = ipxe_script(site)
    if plan.tftp:
        yield Client(
            name="UEFI PXE", asks_with=f"option 93 is {numbers}", loads=f"{tftp}{site.loader}",
            options=f"next-server (siaddr) {host}, boot file (option 67) {site.loader}", by_proxy=True,
        )  # fmt: skip
    if plan.tftp or ":" in script:
        by_tftp = f"next-server (siaddr) {host}, boot file (option 67) {script}"
        yield Client(
            name="iPXE", asks_with="option 77 is iPXE", loads=script if ":" in script else f"{tftp}{script}",
            options=f"boot file (option 67) {script}" if ":" in script else by_tftp, by_proxy=True,
        )  # fmt: skip
    if site.base:
        url = f"{site.base}/{site.loader}"
        yield Client(
            name="UEFI HTTP boot", asks_with=f"option 93 is {architecture.http}", loads=url,
            options=f"vendor class (option 60) HTTPClient, boot file (option 67) {url}", by_proxy=False,
        )  # fmt: skip


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
        yield f"DHCP{where}: addresses and boot files for {plan.site.network}"
        left = []
    elif plan.dhcp is Dhcp.PROXY:
        left = [client for client in known if not client.by_proxy]
        yield f"DHCP{where}: boot files for PXE clients, beside the server that gives addresses"
    else:
        yield "DHCP: none."
    if left:
        yield "Your DHCP server has to send:"
        for client in left:
            yield f"  {client.name:14}  (if {client.asks_with})  {client.options}"
    yield f"Ports:  {', '.join(map(str, plan.ports))}"
    if plan.site.collector:
        yield f"Nodes:  http://{plan.site.collector}/"
    yield "Ctrl-C ends it."


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
        "nodes": f"http://{plan.site.collector}/" if plan.site.collector else None,
    }


def _tftp_host(plan: Plan) -> str:
    """The address of the TFTP server: this machine's on the interface, else what the URLs say."""
    site, interface = plan.site, plan.interface
    own = [str(one.ip) for one in interface.addresses if not site.subnet or one.ip in site.subnet] if interface else []
    if site.host and (not own or site.host in own or (address_of(site.host) is None and not interface)):
        return site.host
    return own[0] if own else "ADDRESS-OF-THIS-MACHINE"
