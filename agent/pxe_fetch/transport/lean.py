"""requests, imported without what a fetch never uses: a third of its import time, paid at every boot."""

from __future__ import annotations

import sys
from types import ModuleType

from pxe_fetch.contract.paths import CA_BUNDLES


def lean() -> None:
    """Make `import requests` cheap. To be called before it; does nothing for what is imported already.

    Left out are: certifi (a bundle of CAs of its own; the node's is used, see pxe_fetch.transport.tls),
    charset_normalizer (guesses the encoding of a text; only bytes are read here), requests.packages (old
    names of urllib3 and idna; urllib3 imports idna itself for a host name that needs it), and urllib3.http2, which
    looks up the version of a package through importlib.metadata (it is never offered to a server here).
    """
    if "requests" in sys.modules or "urllib3" in sys.modules:
        return
    _stand_in("certifi", where=lambda: CA_BUNDLES[0])
    _stand_in("charset_normalizer", __version__="3.0.0")
    _stand_in("requests.packages")
    probe = _stand_in("urllib3.http2.probe")
    _stand_in("urllib3.http2", probe=probe)


def _stand_in(name: str, **attributes: object) -> ModuleType:
    module = sys.modules.setdefault(name, ModuleType(name, "Stands in for what is never used; see pxe_fetch.transport"))
    for attribute, value in attributes.items():
        setattr(module, attribute, value)
    return module
