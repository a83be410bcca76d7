"""Find the payloads that pxe-pack has already put into an image, and the version of their agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pxe_fetch.contract.paths import AGENT, AGENT_DIR, CONFIG_ETC
from pxe_pack.freeze.agent import MANIFEST
from pxe_pack.freeze.components import Component, read_components
from pxe_pack.image.limits import Limit
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.image.tree import RootTree
from pxe_pack.payload import OWNED, owned_paths

_MANIFEST = f"{AGENT_DIR}/{MANIFEST}".lstrip("/")


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviousPayload:
    """A payload from a previous pack."""

    how: str  # the injector: rootfs, updates or initrd
    where: str  # path of the root filesystem's file, of the ISO's folder, or of the initrd
    version: str  # of the agent; empty if unknown
    machine: str  # the processor that the agent is for, as `uname -m` says it; empty if unknown
    configured: bool  # whether it includes a configuration
    components: tuple[Component, ...]  # of the agent; none if unknown


def previous_payloads(image: LiveImage) -> Iterator[PreviousPayload]:
    """Every payload of a previous pack found in `image`."""
    if image.iso and image.iso.find(f"{UPDATES}{AGENT}"):
        iso = image.iso
        manifest = iso.find(f"{UPDATES}/{_MANIFEST}")
        text = iso.read(manifest, size=Limit.ROOT_TEXT.most) if manifest and manifest.is_file else b""
        version, machine, components = _read(text)
        yield PreviousPayload(
            how="updates",
            where=f"{UPDATES}/",
            version=version,
            machine=machine,
            configured=iso.find(f"{UPDATES}{CONFIG_ETC}") is not None,
            components=components,
        )
    for name, facts in image.initrds.items():
        if facts.appended and facts.appended.agent:
            yield PreviousPayload(
                how="initrd", where=name, version=facts.appended.agent, machine="", configured=True, components=()
            )
    if image.live and image.tree:
        tree = replace(image.live.tree, with_graft=True)
        if found := _in_tree(tree, how="rootfs", where=image.live.root.path):
            yield found


def previous_paths(image: LiveImage) -> list[str]:
    """The paths below updates/ on the ISO that belong to a pack; updates/ itself if there is nothing else in it."""
    if image.iso is None:
        return []
    owned = [f"{UPDATES}/{path.strip('/')}" for path in {*OWNED, *owned_paths(image.tree)}]
    found = sorted(path for path in owned if path in image.iso.entries)
    others = (
        entry.path
        for entry in image.iso.below(UPDATES)
        if not entry.is_directory and not any(f"{entry.path}/".startswith(f"{path}/") for path in owned)
    )
    return [UPDATES] if found and not any(others) else found


def _in_tree(tree: RootTree, *, how: str, where: str) -> PreviousPayload | None:
    agent, manifest, config = (tree.resolve(path.lstrip("/")) for path in (AGENT, _MANIFEST, CONFIG_ETC))
    there = tree.stat([agent, manifest, config])
    if agent not in there:
        return None
    version, machine, components = _read(tree.cat(manifest, limit=Limit.ROOT_TEXT) if manifest in there else b"")
    return PreviousPayload(
        how=how,
        where=where,
        version=version,
        machine=machine,
        configured=config in there,
        components=components,
    )


def _read(manifest: bytes) -> tuple[str, str, tuple[Component, ...]]:
    """The agent's version, processor and components in the text of its manifest; empty if it is damaged."""
    try:
        document = json.loads(manifest)
        return str(document["agent"]), str(document.get("machine", "")), read_components(document)
    except (ValueError, KeyError, TypeError, RecursionError):  # the last: nested too deeply
        return "", "", ()
