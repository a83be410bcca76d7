"""Paths inside an image: bytes in parts, resolved without ever leaving it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from pxe_pack.squashfs.errors import corrupt

MOST_LINKS: Final = 40  # the kernel's MAXSYMLINKS

Node = TypeVar("Node")


def encode(text: str) -> bytes:
    """`text` as the bytes that stand in the image, whatever the locale."""
    return text.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    """What `encode()` makes these bytes from."""
    return name.decode("utf-8", "surrogateescape")


def parts(path: bytes) -> list[bytes]:
    """The names of which `path` consists. `..` stays."""
    return [part for part in path.split(b"/") if part not in {b"", b"."}]


def resolve(path: bytes, root: Node, step: Callable[[Node, bytes], Node | bytes | None]) -> Node | None:
    """The node at `path` below `root`, symlinks followed as if `root` were `/`; None when there is none.

    `step` gives the node of a name in a node, or the target of the symlink that it is, or None.
    Raises SquashfsError when more than 40 links lead round.
    """
    stack = [root]
    ahead = parts(path)[::-1]
    links = 0
    while ahead:
        name = ahead.pop()
        if name == b"..":
            if len(stack) > 1:
                stack.pop()
            continue
        found = step(stack[-1], name)
        if found is None:
            return None
        if isinstance(found, bytes):
            links += 1
            if links > MOST_LINKS:
                raise corrupt(f"{decode(path)} leads through more than {MOST_LINKS} symlinks")
            if found.startswith(b"/"):
                del stack[1:]
            ahead += parts(found)[::-1]
        else:
            stack.append(found)
    return stack[-1]
