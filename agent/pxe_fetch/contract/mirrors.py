"""The mirrors from which a node fetches an artifact and its digests, with the caches that `tiers` puts before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from pxe_fetch.contract.model import Artifact
from pxe_fetch.contract.registry import DOCKER_HUB
from pxe_fetch.contract.url import Tiers, comparable, each, flat, scheme_of
from pxe_fetch.contract.validators import joined


class Requested(NamedTuple):
    """What a node requests for an artifact: the file itself, the list of its chunks, the file with its digest."""

    file: Tiers
    chunk_list: Tiers
    sums: Tiers

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(url for tiers in self for url in flat(tiers))


def requested(artifact: Artifact, *, base: str | None) -> Requested:
    """The URLs of `artifact` with its caches before them; relative ones, which are below `base`, stay relative."""
    sums = _with_caches(((artifact.digest_url,),), artifact.tiers, base=base) if artifact.digest_url else ()

    def is_https(url: str) -> bool:
        return scheme_of(joined((url,), base)[0]) == "https"

    if sums and is_https(sums[-1][0]):  # nothing but https protects this digest
        sums = tuple(filter(None, (tuple(filter(is_https, tier)) for tier in sums)))
    return Requested(
        file=_with_caches(artifact.mirrors, artifact.tiers, base=base),
        chunk_list=_with_caches(artifact.chunks.mirrors if artifact.chunks else (), artifact.tiers, base=base),
        sums=sums,
    )


def moved(artifact: Artifact, *, below: str, to: str) -> Artifact:
    """`artifact` with its URLs below the base `below` moved to the base `to`."""

    def there(url: str) -> str:
        return to + url.removeprefix(below) if url.startswith(below) else url

    return replace(
        artifact,
        mirrors=each(artifact.mirrors, there),
        digest_url=artifact.digest_url and there(artifact.digest_url),
        chunks=artifact.chunks and replace(artifact.chunks, mirrors=each(artifact.chunks.mirrors, there)),
    )


def _with_caches(mirrors: Tiers, caches: Mapping[str, Tiers], *, base: str | None) -> Tiers:
    """`mirrors`, where each with caches comes after them, in a tier of its own; each URL once, in its first tier."""
    if not caches:
        return mirrors
    found: dict[str, int] = {}
    behind = 0  # the next tier
    for tier in mirrors:
        several = [_behind_caches(url, caches, base=base) for url in tier]
        for level in zip_longest(*several, fillvalue=()):
            for url in flat(level):
                found.setdefault(url, behind)
            behind += 1
    tiers = (tuple(url for url, at in found.items() if at == number) for number in range(behind))
    return tuple(filter(None, tiers))


def _behind_caches(url: str, caches: Mapping[str, Tiers], *, base: str | None) -> Tiers:
    """`url` after the caches of the longest base that it is below; alone if it has none."""
    whole = comparable(joined((url,), base)[0])
    bases = {_of_registry(comparable(one)): one for one in caches}  # of two that are the same, the artifact's own
    below = max(filter(whole.startswith, bases), key=len, default="")
    path = whole.removeprefix(below)
    return (*(each(caches[bases[below]], lambda cache: cache + path) if below else ()), (url,))


def _of_registry(base: str) -> str:
    """`base`, if it is a registry's by its name in references, as the URLs behind those begin."""
    name = next((name for name in DOCKER_HUB if base.startswith(f"https://{name}/")), "")
    return base.replace(name, DOCKER_HUB[name], 1) if name else base
