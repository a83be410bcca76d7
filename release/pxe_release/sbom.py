"""The bill of materials of a release: CycloneDX 1.6 (ECMA-424), written by CycloneDX's own library.

It lists the libraries that the Debian package and the container bring along (runtime.lock), which the wheel asks a
package index for, and the components of each frozen agent. It is the same for the same release: its serial number is
derived from name and version, and its time is the commit's.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from pxe_pack.freeze import FrozenAgent
from pxe_release.source import Source

LOCK, SOURCES = "release/runtime.lock", "release/source.lock"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "pxe-pack.sbom")


def write(target: Path, *, source: Source, agents: Sequence[FrozenAgent]) -> None:
    """Write the bill of materials of a release that carries `agents`."""
    frozen = [_frozen(agent) for agent in agents]
    own = Component(
        name="pxe-pack",
        version=source.version,
        type=ComponentType.APPLICATION,
        bom_ref="pxe-pack",
        purl=PackageURL("pypi", name="pxe-pack", version=source.version),
    )
    libraries = [one for lock in (LOCK, SOURCES) for one in locked(source.folder / lock)]
    bom = Bom(
        components=[*frozen, *libraries],
        serial_number=uuid.uuid5(_NAMESPACE, source.version),
        metadata=BomMetaData(component=own, timestamp=datetime.fromtimestamp(source.epoch, tz=UTC)),
    )
    bom.register_dependency(own, [*frozen, *libraries])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    target.write_text(text + "\n", encoding="utf-8")


def _frozen(agent: FrozenAgent) -> Component:
    return Component(
        name="pxe-fetch",
        version=agent.version,
        type=ComponentType.APPLICATION,
        bom_ref=f"pxe-fetch-{agent.machine}",
        description=f"the agent, frozen for {agent.machine} with glibc {agent.glibc} or newer",
        components=[
            Component(
                name=one.name,
                version=one.version,
                purl=PackageURL.from_string(one.purl),
                bom_ref=f"agent-{agent.machine}:{one.purl}",
            )
            for one in agent.components
        ],
    )


def locked(lock: Path) -> Iterator[Component]:
    """The components that a lock file of pip-tools names."""
    for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", lock.read_text()):
        yield Component(
            name=name,
            version=version,
            purl=PackageURL("pypi", name=name, version=version),
            bom_ref=f"pkg:pypi/{name}@{version}",
        )
