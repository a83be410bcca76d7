"""The configurations of caching HTTP servers that `pxe-pack snippet` prints, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pxe_pack.caches.cache import Cache
from pxe_pack.caches.nginx import nginx_cache
from pxe_pack.caches.squid import squid
from pxe_pack.caches.varnish import varnish

CACHES: Mapping[str, Callable[[Cache], str]] = MappingProxyType(
    {"nginx-cache": nginx_cache, "squid": squid, "varnish": varnish}
)
