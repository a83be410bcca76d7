"""A frozen agent as a folder on disk: what it is, whether it is whole, and where it can run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.freeze.components import Component, components_document, read_components
from pxe_pack.freeze.glibc import GlibcVersion, glibc_floor, machine_of, parse_glibc
from pxe_pack.tools import InputError

PROGRAM = "pxe-fetch"
MANIFEST = "_internal/agent.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenAgent:
    """The agent, ready to be put into an image."""

    path: Path  # the folder that holds the executable `pxe-fetch`
    version: str
    machine: str  # as `uname -m` says it
    glibc: GlibcVersion  # the oldest that runs it
    size: int  # bytes of all files
    digest: str  # SHA-256 of the manifest, which has the digests of all files
    components: tuple[Component, ...]  # Python, OpenSSL and the libraries in it; none if it does not say

    def document(self) -> dict[str, object]:
        """It as JSON."""
        return {
            "version": self.version,
            "machine": self.machine,
            "glibc": str(self.glibc),
            "size": self.size,
            "digest": self.digest,
            "components": components_document(self.components),
        }


def write_manifest(tree: Path, *, version: str, components: Sequence[Component] = ()) -> None:
    """Write down what `tree` holds, inside it, so that `load_agent` can tell when something has changed.

    Raises InputError when its ELF files are damaged or of several machines.
    """
    document = {
        "agent": version,
        "machine": machine_of(tree),
        "glibc": str(glibc_floor(tree)),
        "components": components_document(components),
        "files": {name: digest for name, digest in _digests(tree).items() if name != MANIFEST},
    }
    manifest = tree / MANIFEST
    manifest.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    manifest.chmod(0o644)


def load_agent(path: Path) -> FrozenAgent:
    """The frozen agent in the folder `path`, every file of it checked. Raises InputError where it isn't a whole one."""
    manifest = path / MANIFEST
    try:
        text = manifest.read_bytes()
        document = json.loads(text)
        version, machine, glibc = document["agent"], document["machine"], parse_glibc(document["glibc"])
        expected: dict[str, str] = document["files"]
        if glibc is None:
            raise InputError(_not_an_agent(path, "names no glibc"))
    except OSError as error:
        raise InputError(_not_an_agent(path, f"can't be read ({error.strerror})")) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(_not_an_agent(path, "is damaged")) from error
    found = {name: digest for name, digest in _digests(path).items() if name != MANIFEST}
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if changed or PROGRAM not in found:
        raise InputError(
            Problem(
                reference="agent-damaged",
                message=f"{path} has changed since it was frozen: {', '.join(changed[:3]) or PROGRAM} differs",
                hint="freeze the agent again, or copy the folder again",
            )
        )
    return FrozenAgent(
        path=path,
        version=str(version),
        machine=str(machine),
        glibc=glibc,
        size=sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink()),
        digest=hashlib.sha256(text).hexdigest(),
        components=read_components(document),
    )


def image_fits(agent: FrozenAgent, *, glibc: GlibcVersion | None, machine: str) -> Problem | None:
    """What keeps `agent` from running in an image whose C library is `glibc` (None: it has none) on `machine`."""
    if machine != agent.machine:
        return Problem(
            reference="agent-machine",
            message=f"the agent is for {agent.machine}, the image for {machine}",
            hint=f"leave out --agent, or give the folder that `pxe-pack freeze --arch {machine} -o DIR` makes",
        )
    if glibc is None:
        return Problem(
            reference="agent-glibc",
            message=f"the agent needs glibc {agent.glibc} or newer, and the image has no glibc",
            hint="images built on musl can't run it",
        )
    if glibc < agent.glibc:
        return Problem(
            reference="agent-glibc",
            message=f"the agent needs glibc {agent.glibc} or newer, the image has {glibc}",
            hint="use a newer image; pxe-pack freezes no agent for an older C library",
        )
    return None


def _not_an_agent(path: Path, why: str) -> Problem:
    return Problem(
        reference="agent-unknown",
        message=f"{path} is not an agent frozen by pxe-pack: {MANIFEST} {why}",
        hint="give the folder that holds the executable `pxe-fetch`",
    )


def _digests(tree: Path) -> dict[str, str]:
    """Name -> what must not change: digest and executable bit of a file, the target of a link."""
    digests = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            digests[name] = f"-> {path.readlink()}"
        elif path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[name] = f"{digest} {'x' if path.stat().st_mode & 0o100 else '-'}"
    return digests
