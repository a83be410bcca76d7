"""What a frozen agent consists of beside our own code: Python, OpenSSL, and every library, each with its version.

agent.spec writes down what PyInstaller collected; the environment knows which of Debian's packages a file is from. Both
together are the list in the agent's manifest, which `pxe-pack show` prints and a release's SBOM repeats. Components are
identified by package URLs (https://github.com/package-url/purl-spec, types pypi, deb and generic).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import quote, unquote

_FACTS = ("name", "version", "purl")


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Component:
    """Something that was frozen."""

    name: str
    version: str
    purl: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def frozen_components(collected: Mapping[str, object], *, owners: Mapping[str, str], suite: str) -> list[Component]:
    """The components of what was `collected` (agent.spec), Python and OpenSSL first.

    `owners` names the file of the Debian package, of that `suite`, for each library's file name; modules of C in wheels
    have none. Raises KeyError when a shared library is of no package, TypeError when `collected` is something else.
    """
    programs, distributions, files = (collected[key] for key in ("programs", "distributions", "libraries"))
    if not isinstance(programs, dict) or not isinstance(distributions, dict) or not isinstance(files, list):
        raise TypeError("agent.spec wrote something else")
    first = [
        Component(name=name, version=version, purl=f"pkg:generic/{name.lower()}@{version}")
        for name, version in programs.items()
    ]
    libraries = {_from_pypi(name, version) for name, version in distributions.items()}
    libraries |= {_from_debian(owners[file], suite=suite) for file in files if ".so." in file or file in owners}
    return [*first, *sorted(libraries, key=lambda one: (one.name.lower(), one))]


def component_lines(components: Sequence[Component]) -> list[str]:
    """The components as lines of text that fit a terminal."""
    listed = ", ".join(str(component).replace(" ", "\N{NO-BREAK SPACE}") for component in components)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(listed, 100, break_on_hyphens=False)]


def components_document(components: Sequence[Component]) -> list[dict[str, str]]:
    """The components as JSON values."""
    return [asdict(component) for component in components]


def read_components(document: object) -> tuple[Component, ...]:
    """The components in a manifest's `document`; none where it has no list of them, as of agents before 0.2."""
    entries = document.get("components") if isinstance(document, dict) else None
    return tuple(_read(entries)) if isinstance(entries, list) else ()


def _read(entries: Sequence[object]) -> Iterator[Component]:
    for entry in entries:
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in _FACTS):
            yield Component(name=entry["name"], version=entry["version"], purl=entry["purl"])


def _from_pypi(name: str, version: str) -> Component:
    normalised = re.sub(r"[-_.]+", "-", name).lower()  # PEP 503
    return Component(name=name, version=version, purl=f"pkg:pypi/{normalised}@{version}")


def _from_debian(file: str, *, suite: str) -> Component:
    """Of a package's file in apt's cache, `libssl3_3.0.17-1~deb12u2_amd64.deb`: an epoch's colon is escaped there."""
    name, version, architecture = file.removesuffix(".deb").split("_")
    version = unquote(version)
    purl = f"pkg:deb/debian/{name}@{quote(version, safe='~.:')}?arch={architecture}&distro={suite}"
    return Component(name=name, version=version, purl=purl)
