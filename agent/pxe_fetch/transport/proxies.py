"""Which proxy a URL goes through: only what the configuration names, never the environment's."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from pxe_fetch.contract.model import Proxy


def proxy_for(url: str, proxy: Proxy) -> str | None:
    """The proxy's URL, or None for a direct connection."""
    if proxy.http is None and proxy.https is None:
        return None
    parts = urlsplit(url)
    chosen = proxy.https if parts.scheme.lower() == "https" else proxy.http
    host = (parts.hostname or "").rstrip(".")
    return None if any(_covers(entry, host=host) for entry in proxy.no_proxy) else chosen


def _covers(entry: str, *, host: str) -> bool:
    """Whether a `no_proxy` entry means `host`: "*", a network (for address literals), a host, or a domain's hosts."""
    entry = entry.strip().lower().rstrip(".")
    if entry == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = entry.lstrip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
