"""The server that a layout is served from, and the network of its nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem, is_shown
from pxe_pack.image.bootloader import SUFFIXES
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.liveos import opened
from pxe_pack.inject.packed_config import packed_config
from pxe_pack.layout import kernel_arguments
from pxe_pack.layout.entries import menu
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.urls import server
from pxe_pack.node_urls import contacted_hosts, host_of
from pxe_pack.tools import InputError

# prefix lengths of the subnet assumed around the server's address
IPV4_PREFIX, IPV6_PREFIX = 24, 64

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """A certificate in PEM, and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A layout, and the server it is served from."""

    layout: Layout
    folder: str  # path of the layout on the server
    subnet: Network | None = None  # None: derived from the server's address in the URL
    dns: tuple[Address, ...] = ()  # DNS servers for the nodes
    router: IPv4Address | None = None  # None: dnsmasq announces itself
    pool: tuple[Address, Address] | None = None  # first and last address for the nodes; None: chosen in the subnet
    tls: Tls | None = None  # for https URLs
    listen: tuple[Address, ...] = ()  # the server's addresses; empty: all
    proxies: tuple[Address, ...] = ()  # caches between it and the nodes, which say whom they ask for
    collector: str | None = None  # root URL of the program that takes the nodes' reports
    more_files: Mapping[str, Path] = field(default_factory=dict)  # served too, by URL
    log_folder: bool = False  # have nginx's log say which folder a file was served from
    contacted: tuple[str, ...] = ()  # hosts that nodes contact by their configuration

    @property
    def base(self) -> str | None:
        """The HTTP server's root URL without a trailing slash; None if the layout has no http and no https URL."""
        known = (self.layout.urls.boot_url, self.layout.urls.artifact_url)
        return next((server(url) for url in known if url and urlsplit(url).scheme in ("http", "https")), None)

    @property
    def host(self) -> str:
        """The host that the layout is served from, as in its URLs, without a port; empty if it has no URLs."""
        return urlsplit(self.base).hostname or "" if self.base else next(iter(self.hosts), "")

    @property
    def loader(self) -> str:
        """The file that firmware loads first."""
        return f"boot{SUFFIXES[self.layout.machine]}.efi"

    @property
    def hosts(self) -> list[str]:
        """The hosts that nodes contact, for the layout and by their configuration, each once."""
        urls = [
            self.layout.urls.boot_url,
            self.layout.urls.artifact_url,
            *(file.url for file in self.layout.files.values()),
        ]
        return [*dict.fromkeys(host for host in [*(host_of(url or "") for url in urls), *self.contacted] if host)]

    @property
    def https_hosts(self) -> list[str]:
        """The hosts in the layout's https URLs, each once."""
        urls = [self.layout.urls.boot_url, *(file.url for file in self.layout.files.values())]
        return [*dict.fromkeys(urlsplit(url).hostname or "" for url in urls if url and url.startswith("https:"))]

    @property
    def network(self) -> Network:
        """The nodes' subnet. Raises InputError if it cannot be derived from the URL."""
        if self.subnet:
            return self.subnet
        address = address_of(self.host)
        if address is None:
            message = f"cannot derive the nodes' subnet: {self.host or 'the layout'} is not an address"
            hint = "set it with --subnet, for example --subnet 10.0.0.0/24"
            raise InputError(Problem(reference="snippet-subnet", message=message, hint=hint))
        return ip_network((address, IPV4_PREFIX if address.version == 4 else IPV6_PREFIX), strict=False)  # noqa: PLR2004


def configurable(text: str) -> str:
    """`text` itself, a path for a server's configuration. Raises InputError for a name that such a file cannot hold."""
    if not is_shown(text):
        message = f"no server's configuration can name {text!r}: it is not UTF-8, or has a character that is not shown"
        raise InputError(Problem(reference="snippet-name", message=message, hint="rename that folder or file"))
    return text


def address_of(host: str) -> Address | None:
    """The address that a URL's host is; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def packed_in(layout: Layout) -> FetchConfig | None:
    """The configuration in the image of `layout`; None if there is none, or none that can be read."""
    try:
        with opened(layout.root, boot_url=layout.urls.boot_url or "") as image:
            return packed_config(image)
    except InputError:  # `check` says what is wrong
        return None


def contacted(layout: Layout) -> tuple[str, ...]:
    """The hosts that the nodes of `layout` contact by their configuration; none if it cannot be read."""
    config = packed_in(layout)
    try:
        entries = menu(layout.text(GRUB_CFG), read=layout.text).entries
    except (InputError, GrubSyntaxError):  # `check` says what is wrong
        return ()
    named = [url for entry in entries for url in entry.agent_values(kernel_arguments.CONFIG)]
    own = contacted_hosts(config, artifact_url=layout.urls.artifact_url or "") if config else []
    return (*own, *filter(None, map(host_of, named)))


def unannounced(site: Site) -> Iterator[Problem]:
    """Warnings about what nodes need to reach the hosts they contact, but DHCP will not tell them."""
    network = site.network
    names = [host for host in site.hosts if address_of(host) is None and host != "localhost"]
    if names and not site.dns:
        yield Problem(
            reference="snippet-no-dns",
            message=f"nodes have to look up {', '.join(names)}, but this configuration announces no DNS server",
            hint="add one with --dns ADDRESS, or use URLs with addresses: `pxe-pack relocate`",
            severity="warning",
        )
    addresses = [found for host in site.hosts if (found := address_of(host))]
    beyond = [str(found) for found in addresses if found.version == network.version and found not in network]
    if beyond and not site.router and network.version == 4:  # noqa: PLR2004  IPv6 routers announce themselves
        yield Problem(
            reference="snippet-no-router",
            message=f"{', '.join(beyond)} is outside of the nodes' subnet {network}, but no router is announced",
            hint="add it with --router ADDRESS; without, dnsmasq announces its own address",
            severity="warning",
        )
