"""Paths inside an image: split into names, and resolved without ever leaving the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from pxe_pack.squashfs.errors import corrupt

MAX_LINKS: Final = 40  # the kernel's MAXSYMLINKS
PATH_MAX: Final = 4096  # of limits.h: the kernel follows no longer target

Node = TypeVar("Node")


def encode(text: str) -> bytes:
    """`text` as the bytes in the image, independent of the locale."""
    return text.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    """The inverse of `encode()`."""
    return name.decode("utf-8", "surrogateescape")


def parts(path: bytes) -> list[bytes]:
    """The names in `path`, without empty ones and `.`; `..` is kept."""
    return [part for part in path.split(b"/") if part not in {b"", b"."}]


def resolve(path: bytes, root: Node, step: Callable[[Node, bytes], Node | bytes | None]) -> Node | None:
    """The node at `path` below `root`, following symlinks as if `root` were `/`; None if there is none.

    `step` returns the node for a name in a node, the target if that is a symlink, or None. Raises SquashfsError after
    more than 40 symlinks, or for one that the kernel would not follow.
    """
    stack = [root]
    pending = parts(path)[::-1]
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            if len(stack) > 1:
                stack.pop()
            continue
        found = step(stack[-1], name)
        if found is None:
            return None
        if isinstance(found, bytes):
            links += 1
            if links > MAX_LINKS:
                raise corrupt(f"{decode(path)} leads through more than {MAX_LINKS} symlinks")
            if len(found) >= PATH_MAX:
                raise corrupt(f"{decode(path)} leads through a symlink of {len(found)} bytes")
            if found.startswith(b"/"):
                del stack[1:]
            pending += parts(found)[::-1]
        else:
            stack.append(found)
    return stack[-1]
