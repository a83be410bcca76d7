"""Which proxy a URL goes through: only what the configuration names, never the environment's."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

from pxe_fetch.contract.model import Proxy
from pxe_fetch.contract.url import Url
from pxe_fetch.transport import parse_url

_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):(\d+)", re.ASCII)  # an address of IPv6 has it behind its brackets


def proxy_for(url: Url, proxy: Proxy) -> Url | None:
    """The proxy for `url`, None for a direct connection. Raises PolicyError where the proxy's URL is none."""
    chosen = proxy.https if url.scheme == "https" else proxy.http
    if chosen is None or any(_covers(entry, host=url.origin.host, port=url.port) for entry in proxy.no_proxy):
        return None
    return parse_url(chosen)


def _covers(entry: str, *, host: str, port: int) -> bool:
    """Whether `entry` means `host`: "*", a network, a host, a domain's hosts, if with a `:PORT` then on that one."""
    entry = entry.lower()
    if match := _WITH_PORT.fullmatch(entry):
        entry = match[1]
        if int(match[2]) != port:
            return False
    domain = entry.removeprefix("*").strip(".")
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        domain = ""  # an address is in none
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    return entry == "*" or (bool(domain) and (host == domain or host.endswith(f".{domain}")))
