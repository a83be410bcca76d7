"""Configurations of the servers that hand out a layout: dnsmasq (DHCP, proxyDHCP, TFTP) and nginx (HTTP).

Source: dnsmasq(8); RFC 4578 2.1 and IANA's "Processor Architecture Types" for DHCP option 93; UEFI Specification 24.7.3
for HTTP boot, whose clients take an answer only if it carries the vendor class HTTPClient; https://ipxe.org/howto/dhcpd
for option 175, by which iPXE is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.bootloader import SUFFIXES
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.read import Layout
from pxe_pack.tools import InputError

DEFAULT_PREFIX = 24  # the prefix of the subnet that is assumed around a server's address
FIRST_HOST, LAST_HOST = 100, 199  # of that subnet, what full DHCP hands out


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A kind of machine, as it says it in DHCP option 93."""

    pxe: tuple[int, ...]
    http: int


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    # Of x86-64, 7 is what firmware sends, and 9 what the registry says.
    {"x86_64": Architecture(pxe=(7, 9), http=16), "aarch64": Architecture(pxe=(11,), http=19)}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A layout, and where it is served."""

    layout: Layout
    folder: str  # where the layout lies on the server
    subnet: IPv4Network | None  # None: the one around the server, where its URL has an address

    @property
    def base(self) -> str | None:
        """The HTTP server's root, without a slash at its end; None for a layout that names no HTTP server."""
        url = self.layout.boot_url or self.layout.artifact_url
        return "{0.scheme}://{0.netloc}".format(urlsplit(url)) if url else None

    @property
    def loader(self) -> str:
        """What firmware is to load."""
        return f"boot{SUFFIXES[self.layout.machine]}.efi"

    @property
    def network(self) -> IPv4Network:
        """The nodes' subnet. Raises InputError when it has to be given."""
        if self.subnet:
            return self.subnet
        host = urlsplit(self.base or "").hostname or ""
        try:
            return IPv4Network((str(IPv4Address(host)), DEFAULT_PREFIX), strict=False)
        except ValueError:
            message = f"{self.base or 'the layout'} does not tell the nodes' subnet: no IPv4 address stands there"
            hint = "give it by --subnet, as in --subnet 10.0.0.0/24"
            raise InputError(Problem(reference="snippet-subnet", message=message, hint=hint)) from None


def dnsmasq(site: Site) -> str:
    """DHCP, TFTP and the boot files' names, by what a client says it is. Raises InputError."""
    network = site.network
    architecture = _architecture(site)
    lines = [
        *_head(site, "DHCP and TFTP, by dnsmasq; it hands out addresses, so it has to be the only DHCP server there."),
        f"dhcp-range={_pool(network)},{network.netmask},12h",
        "",
        *_tags(site),
        "",
        f"dhcp-boot=tag:pxe,tag:!ipxe,{site.loader}",
    ]
    if site.base:
        lines += [
            f"dhcp-boot=tag:ipxe,{site.base}/{IPXE_SCRIPT}",
            "# UEFI HTTP boot: without this answer, the firmware ignores the offer",
            f"dhcp-match=set:http,option:client-arch,{architecture.http}",
            "dhcp-option-force=tag:http,option:vendor-class,HTTPClient",
            f"dhcp-boot=tag:http,tag:!ipxe,{site.base}/{site.loader}",
        ]
    else:
        lines.append(f"dhcp-boot=tag:ipxe,{IPXE_SCRIPT}")
    return "\n".join(lines) + "\n"


def dnsmasq_proxy(site: Site) -> str:
    """TFTP, and the boot files' names beside a DHCP server that hands out the addresses. Raises InputError."""
    ipxe = f"{site.base}/{IPXE_SCRIPT}" if site.base else IPXE_SCRIPT
    lines = [
        *_head(site, "proxyDHCP and TFTP, by dnsmasq, beside the DHCP server that there is."),
        f"dhcp-range={site.network.network_address},proxy,{site.network.netmask}",
        "",
        *_tags(site),
        "",
        *(f'pxe-service=tag:!ipxe,{number},"LiveOS",{site.loader}' for number in _architecture(site).pxe),
        f"dhcp-boot=tag:ipxe,{ipxe}",
        "",
        "# UEFI HTTP boot needs the full DHCP: dnsmasq's proxy answers PXE clients alone.",
    ]
    return "\n".join(lines) + "\n"


def _head(site: Site, told: str) -> Iterator[str]:
    yield f"# {told}"
    yield "# Made by `pxe-pack snippet`; the layout lies in tftp-root."
    yield "port=0"
    yield "enable-tftp"
    yield f"tftp-root={site.folder}"


def _tags(site: Site) -> Iterator[str]:
    for number in _architecture(site).pxe:
        yield f"dhcp-match=set:pxe,option:client-arch,{number}"
    yield "dhcp-match=set:ipxe,175"


def _architecture(site: Site) -> Architecture:
    return ARCHITECTURES[site.layout.machine]


def _pool(network: IPv4Network) -> str:
    """The first and the last address that DHCP hands out."""
    first = min(FIRST_HOST, network.num_addresses // 2)
    last = min(LAST_HOST, network.num_addresses - 2)
    return f"{network[first]},{network[last]}"


def nginx(site: Site) -> str:
    """A `server` for each host and port of the layout's URLs: a file for conf.d/. Raises InputError for a URL by https.

    Ranges, which the agent resumes by, are nginx' own.
    """
    places = _places(site)
    lines = ["# The layout by HTTP, by nginx: into conf.d/. Made by `pxe-pack snippet`."]
    for netloc, moved in places.items():
        port = urlsplit(f"//{netloc}").port or 80
        name = urlsplit(f"//{netloc}").hostname or "_"
        lines += ["", "server {", f"    listen {port};", f"    server_name {_word(name)};"]
        lines += [f"    root {_word(site.folder)};", "    default_type application/octet-stream;"]
        for path, file in sorted(moved.items()):
            lines.append(f"    location = {_word(path)} {{ alias {_word(f'{site.folder}/{file}')}; }}")
        lines.append("}")
    return "\n".join(lines) + "\n"


def _places(site: Site) -> dict[str, dict[str, str]]:
    """Host and port -> path of a URL -> file, of those that lie elsewhere in the layout than their URL says."""
    found: dict[str, dict[str, str]] = {urlsplit(site.base).netloc: {}} if site.base else {"": {}}
    for path, listed in site.layout.files.items():
        if listed.url is None:
            continue
        parts = urlsplit(listed.url)
        if parts.scheme != "http":
            message = f"{listed.url} is by {parts.scheme}, of which pxe-pack writes no configuration"
            hint = "serve it as your site does; what lies where, manifest.json says"
            raise InputError(Problem(reference="snippet-scheme", message=message, hint=hint))
        moved = found.setdefault(parts.netloc, {})
        if unquote(parts.path) != f"/{path}":
            moved[unquote(parts.path)] = path
    return found


def _word(text: str) -> str:
    """`text` as one word of nginx' configuration (its own ngx_conf_read_token), a variable being none."""
    if "$" in text:
        message = f"{text} has a $ in it, which nginx takes for a variable"
        raise InputError(Problem(reference="snippet-dollar", message=message, hint="name the file otherwise"))
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if any(letter in text for letter in " \t;{}\"'\\#") else text


Snippet = Callable[[Site], str]
SNIPPETS: Mapping[str, Snippet] = MappingProxyType({"dnsmasq": dnsmasq, "dnsmasq-proxy": dnsmasq_proxy, "nginx": nginx})
