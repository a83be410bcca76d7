"""What `serve` will do: options, a layout and this machine's interfaces give a plan, or all that is in its way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from urllib.parse import urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.layout import nginx
from pxe_pack.layout.dnsmasq import ARCHITECTURES
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.published import Published, find_published, served_folder
from pxe_pack.layout.site import Address, Network, Site, Tls, contacted, unannounced
from pxe_pack.real_path import real_path
from pxe_pack.serve import pinned
from pxe_pack.serve.interfaces import Interface, find, resolve
from pxe_pack.serve.ports import DHCP, DHCP6, PROXY_DHCP, TFTP, Port
from pxe_pack.tools import InputError

# What servers listen at without --interface: every address; on a kernel without IPv6, nginx has to be told.
_EVERYWHERE: tuple[Address, ...] = () if Path("/proc/net/if_inet6").exists() else (IPv4Address("0.0.0.0"),)  # noqa: S104
_SECRET_FILES = ("--token-file", "--password-file", "--failure-webhook-file")  # options of the collector


class Dhcp(StrEnum):
    """What to answer DHCP clients."""

    NONE = "none"  # nothing: another server has to send the boot file
    PROXY = "proxy"  # the boot file only, next to another server
    FULL = "full"  # addresses too


SNIPPETS = {Dhcp.NONE: "dnsmasq-tftp", Dhcp.PROXY: "dnsmasq-proxy", Dhcp.FULL: "dnsmasq"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The command line."""

    layout: Path  # or a folder with published versions
    interface: str | None = None
    dhcp: Dhcp = Dhcp.NONE
    pool: tuple[Address, Address] | None = None
    subnet: Network | None = None
    dns: tuple[Address, ...] = ()
    router: IPv4Address | None = None
    proxies: tuple[Address, ...] = ()  # they say in X-Forwarded-For whom they ask for
    unprivileged: bool = False  # HTTP only
    tls: Tls | None = None
    self_signed: bool = False  # make the certificate if there is none
    log_dir: Path | None = None
    log_size: int  # bytes of a log beyond which it is begun anew
    pinned: Path | None = None  # the configuration that nodes fetch by URL
    collector: tuple[str, ...] = ()  # further options for it
    database: str | None = None  # the collector's
    page: tuple[Address, int] | None = None  # where the collector listens
    page_tls: Tls | None = None  # its own certificate


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What will be served, where, and to whom."""

    site: Site
    dhcp: Dhcp
    interface: Interface | None  # None: all of them
    tftp: bool
    version: str | None  # of a published layout
    takes_reports: bool = False  # else the page shows what the servers' logs say
    warnings: tuple[Problem, ...] = ()

    @property
    def has_http(self) -> bool:
        """True if the layout has URLs that nginx serves."""
        return self.site.base is not None

    @property
    def ports(self) -> list[Port]:
        """The ports of all servers."""
        found: list[Port] = []
        if self.has_http:
            listening = {nginx.port_of(url): url for url in nginx.servers(self.site)}
            found += [
                Port(number=number, kind="tcp", purpose=urlsplit(url).scheme.upper(), addresses=self.site.listen)
                for number, url in listening.items()
            ]
        if self.tftp:
            found.append(Port(number=TFTP, kind="udp", purpose="TFTP", addresses=self.site.listen))
        any_address = (IPv4Address("0.0.0.0"),)  # noqa: S104  where clients without an address are heard
        if self.dhcp is not Dhcp.NONE and isinstance(self.site.network, IPv4Network):
            found.append(Port(number=DHCP, kind="udp", purpose="DHCP", addresses=any_address))
        elif self.dhcp is not Dhcp.NONE:
            found.append(Port(number=DHCP6, kind="udp", purpose="DHCPv6"))
        if self.dhcp is Dhcp.PROXY:
            found.append(Port(number=PROXY_DHCP, kind="udp", purpose="proxyDHCP", addresses=any_address))
        return found


def published(options: Options) -> Published | None:
    """The published folder whose current version is served; None if it is one layout."""
    return find_published(options.layout)


def make_plan(options: Options, known: Sequence[Interface], *, collector: str | None) -> Plan:
    """The plan for the layout as it is now. `known` are this machine's interfaces. Raises InputError with all errors.

    `collector` is the root URL of where the reports of nodes go.
    """
    folder = served_folder(options.layout)
    layout = Layout.read(folder)
    if layout.machine not in ARCHITECTURES:
        message = f"{options.layout} is for {layout.machine or 'an unknown architecture'}"
        hint = f"pxe-pack serves layouts for {', '.join(ARCHITECTURES)}"
        raise InputError(Problem(reference="layout-architecture", message=message, hint=hint))
    versions = published(options)
    site = Site(layout=layout, folder=str(folder), tls=options.tls, collector=collector)
    own = resolve(site.hosts)
    interface = find(options.interface, known) if options.interface else None
    announcing = options.dhcp is not Dhcp.NONE
    if announcing and interface is None:
        interface = next((one for one in known if any(one.has(address) for address in own)), None)
    subnet = options.subnet or (interface.network_of(own) if interface else None)
    listen = tuple(one.ip for one in interface.addresses) if interface and options.interface else _EVERYWHERE
    site = Site(
        layout=layout, folder=str(folder), subnet=subnet, dns=options.dns, router=options.router, pool=options.pool,
        tls=options.tls, listen=listen, collector=collector, log_folder=True, more_files=pinned.files(options, layout),
        proxies=options.proxies,
    )  # fmt: skip
    if problems := [*_errors(options, site, interface)]:
        raise InputError(*problems)
    warnings = [*pinned.warnings(options, site)]
    warnings += [*_address_warnings(site, [interface] if options.interface and interface else known)]
    if options.dhcp is Dhcp.FULL:
        warnings += unannounced(replace(site, contacted=contacted(layout)))
    return Plan(
        site=site,
        dhcp=options.dhcp,
        interface=interface,
        tftp=not options.unprivileged,
        version=versions.current if versions else None,
        takes_reports=bool(layout.report_url) or any(one.startswith("--token-file=") for one in options.collector),
        warnings=tuple(warnings),
    )


def _errors(options: Options, site: Site, interface: Interface | None) -> Iterator[Problem]:
    announcing = options.dhcp is not Dhcp.NONE
    if missing := site.layout.missing():
        message = f"the layout is not complete: {missing[0]} does not exist"
        yield Problem(reference="layout-incomplete", message=message, hint="copy it again, or pack again")
    if options.unprivileged and (announcing or site.base is None):
        what = f"--dhcp {options.dhcp}" if announcing else "a layout without http URLs, which is served by TFTP only"
        yield Problem(reference="serve-privileges", message=f"{what}, needs root", hint="leave --unprivileged out")
    elif announcing and os.geteuid() != 0:
        yield Problem(
            reference="serve-privileges",
            message=f"--dhcp {options.dhcp} needs root: only root may answer machines that have no address yet",
            hint="run it as root (sudo), or let another DHCP server send the boot file (without --dhcp)",
        )
    if announcing and interface is None:
        message = f"no interface of this machine has the address of {site.host or 'the layout'}"
        hint = "name the one that the nodes are on: --interface eth1"
        yield Problem(reference="serve-interface", message=message, hint=hint)
    elif interface and not any(own.ip in own.network for own in interface.addresses):
        message = f"{interface.name} has no address"
        hint = f"give it one: ip address add 10.0.0.1/24 dev {interface.name}"
        yield Problem(reference="serve-interface", message=message, hint=hint)
    elif announcing and interface and site.subnet and not any(own.ip in site.subnet for own in interface.addresses):
        message = f"{interface.name} has no address in {site.subnet}, so dnsmasq would answer nobody there"
        hint = "choose another --subnet or --interface"
        yield Problem(reference="serve-interface", message=message, hint=hint)
    if options.dhcp is Dhcp.PROXY and isinstance(site.subnet, IPv6Network):
        message = f"DHCPv6 has no proxy servers, and the nodes' subnet is {site.subnet}"
        yield Problem(reference="serve-proxy", message=message, hint="use --dhcp full, or give an IPv4 --subnet")
    yield from _pool_errors(options, site)
    yield from _exposed(options, real_path(Path(site.folder)))


def _exposed(options: Options, served: Path) -> Iterator[Problem]:
    """An error for each secret, and for logs, in the folder `served`: nodes could fetch them."""
    own = {flag: value for flag, _, value in (one.partition("=") for one in options.collector) if flag in _SECRET_FILES}
    own |= {"--log-dir": str(options.log_dir)} if options.log_dir else {}
    own |= {"--tls-key": str(options.tls.key)} if options.tls else {}
    own |= {"--page-tls-key": str(options.page_tls.key)} if options.page_tls else {}
    own |= {"--database": database.removeprefix("sqlite:///")} if (database := options.database or "") else {}
    for flag, path in own.items():
        if real_path(Path(path)).is_relative_to(served):
            message = f"{flag} {path} is in the layout, so everybody could fetch it"
            yield Problem(reference="serve-exposed", message=message, hint=f"choose a place outside of {served}")


def _pool_errors(options: Options, site: Site) -> Iterator[Problem]:
    if options.pool is None:
        return
    first, last = options.pool
    if options.dhcp is not Dhcp.FULL:
        message, hint = "--range is for --dhcp full only", "leave it out, or add --dhcp full"
    elif site.subnet and not (first in site.subnet and last in site.subnet):
        message, hint = f"{first} to {last} is not in the nodes' subnet {site.subnet}", "correct --range, or --subnet"
    elif first.version != last.version or int(first) > int(last):
        message, hint = f"{first} to {last} is not a range", "give the lower address first"
    else:
        return
    yield Problem(reference="serve-range", message=message, hint=hint)


def _address_warnings(site: Site, interfaces: Sequence[Interface]) -> Iterator[Problem]:
    """A warning for each host in the URLs that is not this machine, which may be right behind a load balancer."""
    names = ", ".join(one.name for one in interfaces)
    for host in site.hosts:
        addresses = resolve([host])
        if any(one.has(address) for one in interfaces for address in addresses):
            continue
        if addresses:
            shown = ", ".join(dict.fromkeys(map(str, addresses)))
            message = f"nodes will ask {shown if host == shown else f'{host} ({shown})'}, which {names} does not have"
            hint = "add that address (ip address add), or change the layout's: pxe-pack relocate DIR --boot-url URL"
        else:
            message, hint = f"this machine cannot look up {host}, which nodes will have to", "add it to your DNS server"
        yield Problem(reference="serve-address", message=message, hint=hint, severity="warning")
