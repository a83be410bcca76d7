"""Sessions of requests that verify certificates as the agent does."""

from __future__ import annotations

import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import ProxyManager


def session() -> requests.Session:
    """A session that trusts a certificate where the agent would, whatever the Python.

    urllib3's own context has VERIFY_X509_STRICT from Python 3.13 on, which refuses the certificates of many sites' own
    authorities (ssl, "Changed in version 3.13").
    """
    made = requests.Session()
    made.mount("https://", _Adapter())
    return made


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  as requests has them
        """Make the pool of connections with the agent's kind of context."""
        super().init_poolmanager(*arguments, **options, ssl_context=_context())

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> ProxyManager:  # noqa: ANN401
        """The same for connections through a proxy."""
        manager: ProxyManager = super().proxy_manager_for(*arguments, **options, ssl_context=_context())
        return manager


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.post_handshake_auth = True  # a server may want a certificate for some of its files alone
    return context
