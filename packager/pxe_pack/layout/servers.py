"""The server configurations that `pxe-pack snippet` prints, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pxe_pack.layout.dnsmasq import dnsmasq, dnsmasq_proxy, dnsmasq_tftp
from pxe_pack.layout.nginx import nginx
from pxe_pack.layout.site import Site

Snippet = Callable[[Site], str]
SNIPPETS: Mapping[str, Snippet] = MappingProxyType(
    {"dnsmasq": dnsmasq, "dnsmasq-proxy": dnsmasq_proxy, "dnsmasq-tftp": dnsmasq_tftp, "nginx": nginx}
)
