"""Checks a configuration that will come to the nodes of a layout, by URL or as a credential, against what is packed.

The unit in the image was adapted to the packed configuration: the folders it may write to, the credentials it gets, the
size of the writable layer. Another configuration cannot change that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pxe_fetch import __version__
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.quantity import show_share
from pxe_pack import unit
from pxe_pack.checks.subject import Subject
from pxe_pack.inject.previous_payload import previous_payloads


def packed_agent(subject: Subject) -> Iterator[Problem]:
    """What the packed agent and its unit would refuse of the configuration."""
    config, packed = subject.config, subject.packed
    if not subject.layout or config is None or config is packed:
        return
    versions = {one.version for one in previous_payloads(subject.image)} - {""}
    for version in sorted(versions):
        if config.min_agent and _numbers(config.min_agent) > _numbers(version):
            yield Problem(
                reference="agent-too-old",
                message=f"the configuration has `min_agent: {config.min_agent}`, and the packed agent is {version}",
                hint=f"pack again with a pxe-pack {config.min_agent} or later",
            )
    for version in sorted(versions - {__version__}):
        yield Problem(
            reference="agent-other-version",
            message=f"the packed agent is {version}, and this pxe-pack {__version__}: the agent may not know all keys",
            hint=f"check the configuration with a pxe-pack {version}, or pack again",
            severity="note",
        )
    if packed is None:
        return
    yield from _destinations(config, packed)
    yield from _sources(config, packed)
    lacking = unit.lacking_credentials(config, packed, systemd=subject.image.systemd)
    for name in lacking:
        yield Problem(
            reference="credential-not-packed",
            message=f"the packed unit does not load the credential {name}: systemd {subject.image.systemd} loads only "
            "those that the unit names",
            hint="name it in the packed configuration too, and pack again",
        )
    if config.live_space and config.live_space != packed.live_space:
        yield Problem(
            reference="live-space-not-packed",
            message=f"`live_space: {show_share(config.live_space)}` takes effect only where it is packed; "
            f"the layout has {show_share(packed.live_space or 'none')}",
            hint="set it in the packed configuration, and pack again",
            severity="warning",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparisons: 0.4.0 is 0.4."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", version)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _destinations(config: FetchConfig, packed: FetchConfig) -> Iterator[Problem]:
    roots = tuple(f"{root}/" for root in packed.allowed_roots)
    for artifact in config.artifacts:
        known = f"{artifact.dest.partition('${')[0]}/"
        if not known.startswith(roots) and ("${" not in artifact.dest or not _may_be_below(known, roots)):
            yield Problem(
                reference="dest-outside-packed",
                message=f"artifact {artifact.name} goes to {artifact.dest}, but the packed unit may write only below "
                f"{', '.join(packed.allowed_roots)}",
                hint="use a dest below these, or pack again with other allowed_roots",
                severity="error" if artifact.required else "warning",
            )


def _may_be_below(known: str, roots: tuple[str, ...]) -> bool:
    """Whether a dest that begins with `known`, and goes on with a fact, may be below one of `roots`."""
    return any(root.startswith(known.rstrip("/")) for root in roots)


def _sources(config: FetchConfig, packed: FetchConfig) -> Iterator[Problem]:
    """Local files that were not packed: no node can read them."""
    exported = {artifact.name for artifact in packed.artifacts if artifact.urls}
    for artifact in config.artifacts:
        if artifact.source and artifact.name not in exported:
            yield Problem(
                reference="source-not-packed",
                message=f"artifact {artifact.name} has `source: {artifact.source}`, which was not packed",
                hint="give its url and digest, or pack again with this configuration",
            )
