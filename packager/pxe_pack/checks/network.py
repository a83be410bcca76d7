"""Checks that the root filesystem configures the network, which the agent needs, and can resolve names."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import UrlError, is_absolute, parse
from pxe_fetch.contract.validators import joined
from pxe_pack.checks.subject import Subject, requested_urls
from pxe_pack.image import networking, resolver


def root_network(subject: Subject) -> Iterator[Problem]:
    """Warnings if no DHCP client is found in the root filesystem, or if it cannot resolve names that are needed."""
    tree = subject.image.tree
    if tree is None:
        return
    if not networking.dhcp(tree, subject.enabled):
        yield Problem(
            reference="root-no-dhcp",
            message="no DHCP client is enabled in the root filesystem, so the agent may have no network",
            hint="enable systemd-networkd with a .network file that has DHCP=yes, or NetworkManager",
            severity="warning",
        )
    names = _host_names(subject.config) if subject.config else frozenset[str]()
    names -= resolver.known_hosts(tree) if names else names
    if names and (fault := resolver.fault(tree, subject.enabled)):
        yield Problem(
            reference="root-resolv-conf",
            message=f"nodes may not find {', '.join(sorted(names))}: in the root filesystem, /etc/resolv.conf {fault}",
            hint="enable systemd-resolved and link it to /run/systemd/resolve/stub-resolv.conf, or use addresses",
            severity="note" if resolver.is_missing(tree) else "warning",
        )


def _host_names(config: FetchConfig) -> frozenset[str]:
    """The hosts in the URLs of the configuration that are names. Those that depend on the node are left out."""
    urls = [config.report.url, config.proxy.http, config.proxy.https]
    for artifact in config.artifacts:
        urls += requested_urls(artifact)
    found = set()
    for url in joined(tuple(filter(None, urls)), config.base_url):
        try:
            host = parse(url).host if is_absolute(url) and "${" not in url.split("/")[2] else ""
        except (UrlError, IndexError):
            continue
        if host and host != "localhost" and not resolver.is_address(host):
            found.add(host.lower())
    return frozenset(found)
