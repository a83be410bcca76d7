"""What to do about a failure: the words of the journal's catalog, which nodes have too."""

from __future__ import annotations

import re
from functools import cache

from pxe_fetch.contract.paths import MessageId
from pxe_pack.unit import unit_files

_ENTRY = re.compile(rf"^-- {MessageId.FAILED}\n(.*?)(?=^-- |\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^    (\d+)  (.*(?:\n        .*)*)", re.MULTILINE)


def after(exit_code: int | None) -> str:
    """What the catalog says of runs that end with this exit code; "" if it says nothing."""
    return _texts().get(exit_code or 0, "")


@cache
def _texts() -> dict[int, str]:
    found = _ENTRY.search((unit_files() / "pxe-fetch.catalog").read_text(encoding="utf-8"))
    return {int(code): " ".join(text.split()) for code, text in _CODE.findall(found[1] if found else "")}
