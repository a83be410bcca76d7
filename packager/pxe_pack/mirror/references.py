"""A mirror's configuration with references into a registry, in place of URLs below a folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from pxe_fetch.contract import facts, validators
from pxe_fetch.contract.model import Artifact, FetchConfig, When
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact, scheme_of
from pxe_pack.mirror.files import nodes_of

_NAME = 64  # characters of an artifact's name (contract.validators.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """Where nodes find the files of a mirror: the layers of one manifest."""

    url: str  # of the manifest, by its digest
    sizes: Mapping[str, int]  # bytes of each file, by its title
    credential: str | None  # with which nodes log in
    insecure: bool  # it may be sent unencrypted


def with_references(rebased: FetchConfig, layers: Layers) -> FetchConfig:
    """`rebased`, whose artifacts have relative URLs below a mirror's folder, with them as `layers`.

    An artifact whose URL has ${facts} becomes one for each of their values: one title is one file.
    """
    taken = {artifact.name for artifact in rebased.artifacts}
    artifacts = [new for one in rebased.artifacts for new in _from_registry(one, layers, taken)]
    return replace(rebased, artifacts=tuple(artifacts))


def left_out(rebased: FetchConfig) -> Iterator[Problem]:
    """A warning for each mirrored artifact of `rebased` that nodes may have on their own disks: `oci` excludes that."""
    for artifact in rebased.artifacts:
        if _is_mirrored(artifact) and (own := artifact.urls[:-1]):
            yield Problem(
                reference="mirror-own-copy",
                message=f"nodes no longer look for {artifact.name} at {', '.join(map(redact, own))}: an artifact in a "
                "registry has no other URLs",
                severity="warning",
            )


def _is_mirrored(artifact: Artifact) -> bool:
    return bool(artifact.urls) and scheme_of(artifact.urls[-1]) != "file"  # else a source, or on the nodes' own disks


def _from_registry(artifact: Artifact, layers: Layers, taken: set[str]) -> Iterator[Artifact]:
    if not _is_mirrored(artifact):
        yield artifact
        return
    url = artifact.urls[-1]
    for node in nodes_of(artifact, (url,)):
        title = unquote(facts.fill_url(url, node.__getitem__))
        yield replace(
            artifact,
            name=_name(artifact.name, node, taken) if node else artifact.name,
            when=_only(artifact.when, node),
            mirrors=((layers.url,),),
            title=title,
            size=layers.sizes[title],
            # The manifest has them.
            digest=None,
            digest_url=None,
            chunks=None,
            registry_credential=layers.credential,
            insecure=layers.insecure,
        )


def _name(name: str, node: Mapping[str, str], taken: set[str]) -> str:
    """A name of its own for the artifact on nodes with these facts: `model-aarch64`."""
    wished = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join((name, *node.values())))
    ends = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    new = next(made for end in ends if (made := wished[: _NAME - len(end)] + end) not in taken)
    taken.add(new)
    return validators.name(new)


def _only(when: When, node: Mapping[str, str]) -> When:
    """`when`, of nodes with these facts alone."""
    arguments = {
        facts.argument(name.removeprefix(facts.CMDLINE)): (value,)
        for name, value in node.items()
        if name.startswith(facts.CMDLINE)
    }
    others = {name: (value,) for name, value in node.items() if not name.startswith(facts.CMDLINE)}
    return When(facts={**when.facts, **others}, cmdline={**when.cmdline, **arguments})
