"""urllib3, imported without what nothing here uses."""

from __future__ import annotations

import sys
from types import ModuleType


def lean() -> None:
    """Make `import urllib3` cheaper. To be called before it; does nothing for what is imported already.

    Left out is urllib3.http2, which looks up the version of a package through importlib.metadata; it is never offered
    to a server here, and the frozen agent has neither.
    """
    if "urllib3" in sys.modules:
        return
    probe = _stand_in("urllib3.http2.probe")
    _stand_in("urllib3.http2", probe=probe)


def _stand_in(name: str, **attributes: object) -> ModuleType:
    module = sys.modules.setdefault(name, ModuleType(name, "Stands in for what is never used; see pxe_fetch.transport"))
    for attribute, value in attributes.items():
        setattr(module, attribute, value)
    return module
