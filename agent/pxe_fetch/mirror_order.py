"""The order in which a node asks mirrors: each node has its own, so that a fleet does not ask the same one first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pxe_fetch.contract.url import scheme_of

# A file is on the node already. After any fault tftp starts over, so it is the last resort.
_NEARNESS = {"file": 0, "tftp": 2}
_USUAL = 1


def spread(urls: Sequence[str], *, node: str, artifact: str) -> tuple[str, ...]:
    """`urls` in the order of this node for this artifact: the same at each run, and another on other nodes.

    Rendezvous hashing (Thaler and Ravishankar, 1998): each url has a weight of its own, so that one more or one less
    leaves the order of the others as it was. The node's files come before all others and tftp comes after them, each
    among themselves as they are listed.
    """

    def rank(url: str) -> tuple[int, bytes]:
        nearness = _NEARNESS.get(scheme_of(url), _USUAL)
        weight = hashlib.sha256(f"{node}\0{artifact}\0{url}".encode()).digest() if nearness == _USUAL else b""
        return nearness, weight

    return tuple(sorted(urls, key=rank))
