"""The module "unicodedata" in the frozen agent: of Unicode's tables only the one place that is asked for them there.

urllib.parse.urlsplit normalises the host of a URL that isn't ASCII, to find characters that would end it early. Such
hosts are refused (pxe_fetch.contract.validators), here as there by a ValueError.
"""

from __future__ import annotations


def normalize(form: str, text: str) -> str:  # noqa: ARG001  the standard library's signature
    """Text that is ASCII, as it is in every form of normalisation. Raises ValueError for any other."""
    if not text.isascii():
        raise ValueError("a host name that is not ASCII has to be written as DNS has it, with xn--…")
    return text
