"""Read the configuration that an earlier pack has put into an image."""

from __future__ import annotations

from dataclasses import replace

from pxe_fetch.contract import reader
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.paths import CONFIG_ETC
from pxe_fetch.contract.problem import ProblemError
from pxe_pack.image.initrd.cpio import Archives
from pxe_pack.image.limits import Limit
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.image.tree import regular_file

_CONFIG = CONFIG_ETC.lstrip("/")


def packed_config(image: LiveImage) -> FetchConfig | None:
    """The configuration in `image`; None if it has none, or one that this release does not understand."""
    text = _text(image)
    try:
        return reader.read(text.decode(), name=CONFIG_ETC) if text else None
    except (ProblemError, UnicodeDecodeError):
        return None


def _text(image: LiveImage) -> bytes:
    """Its text, from where each injector puts it; empty if there is none."""
    found = image.iso.find(f"{UPDATES}/{_CONFIG}") if image.iso else None
    if image.iso and found and found.is_file:
        return image.iso.read(found, size=Limit.ROOT_TEXT.most)
    for name, facts in image.initrds.items():
        entry = image.media.find(name)
        if facts.appended and entry:
            start = facts.appended.before.size
            behind = Archives(
                lambda offset, size, entry=entry, start=start: image.media.read(entry, offset=start + offset, size=size)
            )
            for member in behind.members(lambda path: path.endswith(_CONFIG)):
                if member.path.endswith(_CONFIG) and member.content is not None:
                    return member.content
    if image.live is None or image.tree is None:
        return b""
    tree = replace(image.live.tree, with_graft=True)
    return regular_file(tree, _CONFIG, limit=Limit.ROOT_TEXT) or b""
