"""Small modules laid over the libraries in the freezing environment, where the real ones cost and are never used.

A node's start pays for each import. What is replaced, and by what, is all here; each keeps the name and the face that
requests and urllib3 look for.
"""

from __future__ import annotations

from pathlib import Path

from pxe_fetch.contract.paths import CA_BUNDLES

# requests asks certifi where the CA bundle is. On a node it is the distribution's, which its administrator can change;
# Debian and Fedora patch their certifi the same way.
_CERTIFI = f"""
import os

def where():
    return next((path for path in {CA_BUNDLES!r} if os.path.exists(path)), {CA_BUNDLES[0]!r})
"""

# requests warns when there is no charset detector, and uses one only in Response.text and .apparent_encoding: the agent
# works on bytes. 20 ms and 460 KB.
_CHARSET_NORMALIZER = """
__version__ = "3.0.0"

def detect(byte_str):
    return {"encoding": None, "language": "", "confidence": None}
"""

# requests.packages imports idna eagerly; it is needed for a host name that isn't ASCII.
_IDNA = """
from .package_data import __version__

def __getattr__(name):
    from . import core
    return getattr(core, name)
"""

# urllib3's HTTP/2 is off until someone turns it on; importing the package pulls in importlib.metadata. 16 ms.
_URLLIB3_HTTP2 = ""

STAND_INS = {
    "certifi/__init__.py": _CERTIFI,
    "charset_normalizer/__init__.py": _CHARSET_NORMALIZER,
    "idna/__init__.py": _IDNA,
    "urllib3/http2/__init__.py": _URLLIB3_HTTP2,
}


def lay_stand_ins(site_packages: Path) -> None:
    """Write the stand-ins over what is installed in `site_packages`."""
    for name, text in STAND_INS.items():
        path = site_packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip(), encoding="utf-8")
