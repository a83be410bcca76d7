"""dnsmasq's configuration for a layout: DHCP or proxyDHCP, and TFTP; DHCPv6 and router advertisements for IPv6.

Sources: dnsmasq(8); RFC 4578 2.1 and IANA's "Processor Architecture Types" for DHCP option 93, RFC 5970 for DHCPv6
options 59 (boot file URL) and 61 (architecture); UEFI Specification 24.7 for HTTP boot, whose clients accept no offer
without the vendor class HTTPClient; https://ipxe.org/howto/dhcpd for option 175, which identifies iPXE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from urllib.parse import urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.site import Address, Network, Site
from pxe_pack.tools import InputError

FIRST_HOST, LAST_HOST = 100, 199  # host numbers that DHCP hands out
FIRST_HOST_6, LAST_HOST_6 = 0x100, 0x1FF

# DHCPv6's vendor class (RFC 8415 21.16) is an enterprise number of four bytes, then texts with their lengths. dnsmasq
# writes nothing but such texts, so a first one of two letters has to stand for the number, which firmware ignores.
_HTTP_CLIENT_6 = "xx,HTTPClient"


_TRANSFERS = 500  # at the same time; dnsmasq does not answer more, and its default of 50 is less than a rack of nodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The client architecture types of a machine in DHCP option 93, for PXE and for HTTP boot."""

    pxe: tuple[int, ...]
    http: int


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    # x86-64: firmware sends 7, the registry says 9
    {"x86_64": Architecture(pxe=(7, 9), http=16), "aarch64": Architecture(pxe=(11,), http=19)}
)


def dnsmasq(site: Site) -> str:
    """Configure dnsmasq as DHCP and TFTP server, with a boot file for each kind of client. Raises InputError."""
    network = site.network
    lines = _dhcp6(site, network) if isinstance(network, IPv6Network) else _dhcp4(site, network)
    return "\n".join(lines) + "\n"


def _dhcp4(site: Site, network: IPv4Network) -> Iterator[str]:
    yield from _head(site, "DHCP and TFTP for dnsmasq. It hands out addresses: run no other DHCP server there.")
    first, last = pool(site)
    yield f"dhcp-range={first},{last},{network.netmask},12h"
    if site.router:
        yield f"dhcp-option=option:router,{site.router}"
    if site.dns:
        yield f"dhcp-option=option:dns-server,{','.join(_dns(site, network))}"
    yield from ("", *_tags(site), "", f"dhcp-boot=tag:pxe,tag:!ipxe,{site.loader}")
    yield f"dhcp-boot=tag:ipxe,{ipxe_script(site)}"
    if not site.base:
        return
    yield "# UEFI HTTP boot: firmware ignores offers without this vendor class"
    yield f"dhcp-match=set:http,option:client-arch,{_architecture(site).http}"
    yield "dhcp-option-force=tag:http,option:vendor-class,HTTPClient"
    yield f"dhcp-boot=tag:http,tag:!ipxe,{site.base}/{site.loader}"


def _dhcp6(site: Site, network: IPv6Network) -> Iterator[str]:
    if not site.host:
        raise _refused("the layout has no URL, so the address of its TFTP server is unknown", "use --subnet with IPv4")
    if site.router:
        raise _refused("IPv6 routers announce themselves, so there is no --router", "leave --router out")
    architecture = _architecture(site)
    yield from _head(site, "DHCPv6, router advertisements and TFTP for dnsmasq. Run no other DHCPv6 server there.")
    first, last = pool(site)
    slaac = "slaac," if network.prefixlen == 64 else ""  # noqa: PLR2004  RFC 4862 needs 64 bits for the interface
    yield "enable-ra"
    yield "# dnsmasq announces the prefix, but not itself as a router: those announce themselves"
    yield "ra-param=*,0,0"
    yield f"dhcp-range={first},{last},{slaac}{network.prefixlen},12h"
    if site.dns:
        yield f"dhcp-option=option6:dns-server,{','.join(f'[{one}]' for one in _dns(site, network))}"
    yield ""
    for number in architecture.pxe:
        yield f"dhcp-match=set:pxe,option6:61,{number}"
    yield f"dhcp-match=set:http,option6:61,{architecture.http}"
    yield "dhcp-userclass=set:ipxe,iPXE"
    yield ""
    tftp = f"tftp://[{site.host}]" if ":" in site.host else f"tftp://{site.host}"
    yield f"dhcp-option=tag:pxe,tag:!ipxe,option6:bootfile-url,{tftp}/{site.loader}"
    script = ipxe_script(site)
    yield f"dhcp-option=tag:ipxe,option6:bootfile-url,{script if ':' in script else f'{tftp}/{script}'}"
    if not site.base:
        return
    yield "# UEFI HTTP boot: firmware ignores replies without this vendor class"
    yield f"dhcp-option-force=tag:http,tag:!ipxe,option6:16,{_HTTP_CLIENT_6}"
    yield f"dhcp-option=tag:http,tag:!ipxe,option6:bootfile-url,{site.base}/{site.loader}"


def dnsmasq_proxy(site: Site) -> str:
    """Configure dnsmasq as proxyDHCP and TFTP server, next to a DHCP server. Raises InputError."""
    network = site.network
    if isinstance(network, IPv6Network):
        message = "DHCPv6 has no proxy servers: they exist for IPv4 only"
        raise _refused(message, "use `snippet dnsmasq`, or give an IPv4 --subnet")
    lines = [
        *_head(site, "proxyDHCP and TFTP for dnsmasq, next to an existing DHCP server."),
        f"dhcp-range={network.network_address},proxy,{network.netmask}",
        "",
        *_tags(site),
        "",
        *(f'pxe-service=tag:!ipxe,{number},"LiveOS",{site.loader}' for number in _architecture(site).pxe),
        f"dhcp-boot=tag:ipxe,{ipxe_script(site)}",
        "",
        "# UEFI HTTP boot needs the full DHCP server: dnsmasq's proxy only answers PXE clients.",
    ]
    return "\n".join(lines) + "\n"


def dnsmasq_tftp(site: Site) -> str:
    """Configure dnsmasq as TFTP server only: the DHCP server has to be told the boot files."""
    return "\n".join(_head(site, "TFTP for dnsmasq, without DHCP.")) + "\n"


def ipxe_script(site: Site) -> str:
    """The URL of iPXE's script, or its path by TFTP.

    By http if there is a server; not by https, since iPXE trusts only the certificates that it was built with
    (https://ipxe.org/crypto).
    """
    return f"{site.base}/{IPXE_SCRIPT}" if site.base and urlsplit(site.base).scheme == "http" else IPXE_SCRIPT


def _head(site: Site, title: str) -> Iterator[str]:
    yield f"# {title}"
    yield "# Generated by `pxe-pack snippet`. The layout is in tftp-root."
    yield "port=0"
    yield "enable-tftp"
    yield f"tftp-root={site.folder}"
    yield f"tftp-max={_TRANSFERS}"


def _tags(site: Site) -> Iterator[str]:
    for number in _architecture(site).pxe:
        yield f"dhcp-match=set:pxe,option:client-arch,{number}"
    yield "dhcp-match=set:ipxe,175"


def _architecture(site: Site) -> Architecture:
    return ARCHITECTURES[site.layout.machine]


def _dns(site: Site, network: Network) -> list[str]:
    """The DNS servers as text. Raises InputError for one that the protocol cannot announce."""
    for address in site.dns:
        if address.version != network.version:
            message = f"DHCP for {network} cannot announce the DNS server {address}"
            raise _refused(message, f"give an IPv{network.version} address with --dns")
    return [*map(str, site.dns)]


def pool(site: Site) -> tuple[Address, Address]:
    """The first and the last address that DHCP hands out. Raises InputError if the subnet is not known."""
    if site.pool:
        return site.pool
    network = site.network
    first, last = (FIRST_HOST, LAST_HOST) if isinstance(network, IPv4Network) else (FIRST_HOST_6, LAST_HOST_6)
    size = network.num_addresses
    return network[min(first, size // 2)], network[min(last, max(size - 2, 0))]


def _refused(message: str, hint: str) -> InputError:
    return InputError(Problem(reference="snippet-network", message=message, hint=hint))
