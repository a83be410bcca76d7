"""Read the configuration, the public keys and the token that an earlier pack has put into an image."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from posixpath import basename, dirname

from pxe_fetch.contract import reader
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.paths import CONFIG_ETC, CREDENTIALS_DIR, TRUST_DIR
from pxe_fetch.contract.problem import ProblemError
from pxe_pack.image.initrd.cpio import Archives
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.limits import Limit
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.image.tree import regular_file
from pxe_pack.node_reports import CREDENTIAL, token_in
from pxe_pack.trust.keys import SUFFIX, KeyFileError, TrustKey, parse

_FOLDER, _CONFIG = dirname(CONFIG_ETC), basename(CONFIG_ETC)


def packed_config(image: LiveImage) -> FetchConfig | None:
    """The configuration in `image`; None if it has none, or one that this release does not understand."""
    text = packed_text(image)
    try:
        return reader.read(text, name=CONFIG_ETC) if text else None
    except ProblemError:
        return None


def packed_text(image: LiveImage) -> str:
    """The text of the configuration in `image`; empty if it has none, or one that is not UTF-8."""
    content = next((content for name, content in _files(image, _FOLDER) if name == _CONFIG), b"")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return ""


def packed_trust(image: LiveImage) -> tuple[TrustKey, ...]:
    """The public keys in `image`, by name; a file that is none is left out."""
    found: dict[str, TrustKey] = {}
    for name, content in _files(image, TRUST_DIR):
        if name.endswith(SUFFIX) and name not in found:
            with suppress(KeyFileError):
                found[name] = parse(content, name=name)
    return tuple(found[name] for name in sorted(found))


def packed_token(image: LiveImage) -> str:
    """The token in `image` that nodes report with; empty if a pack has put none there."""
    content = next((content for name, content in _files(image, CREDENTIALS_DIR) if name == CREDENTIAL), b"")
    return token_in(content)


def _files(image: LiveImage, folder: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a folder of the node, from where each injector puts them.

    Of several with one name, the node has the first: what is beside the root filesystem is copied over it.
    """
    folder = folder.lstrip("/")
    if image.iso:
        yield from _on_iso(image.iso, f"{UPDATES}/{folder}")
    yield from _in_initrds(image, folder)
    if image.live and image.tree:
        tree = replace(image.live.tree, with_graft=True)
        for inode in tree.inside(tree.resolve(folder)):
            if content := regular_file(tree, inode.path, limit=Limit.ROOT_TEXT):
                yield basename(inode.path), content


def _on_iso(iso: Iso, folder: str) -> Iterator[tuple[str, bytes]]:
    for entry in iso.below(folder):
        if entry.is_file and dirname(entry.path) == folder:
            yield entry.name, iso.read(entry, size=Limit.ROOT_TEXT.most)


def _in_initrds(image: LiveImage, folder: str) -> Iterator[tuple[str, bytes]]:
    for name, facts in image.initrds.items():
        entry = image.media.find(name)
        if facts.appended and entry:
            start, found = facts.appended.before.size, entry
            behind = Archives(
                lambda offset, size, found=found, start=start: image.media.read(found, offset=start + offset, size=size)
            )
            for member in behind.members(lambda path: dirname(path).endswith(folder)):
                if member.content and stat.S_ISREG(member.mode):
                    yield basename(member.path), member.content
