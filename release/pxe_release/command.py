"""`release/build`: the files of a release, from a commit, into a folder."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pxe_pack.freeze import ARCHITECTURES, THIS_MACHINE, FrozenAgent, component_lines, load_agent, ready
from pxe_pack.tools import InputError, WorkError
from pxe_release import container, deb, sbom
from pxe_release.source import Source, export

ROOT = Path(__file__).resolve().parents[2]
SUMS = "SHA256SUMS"


def main(arguments: Sequence[str]) -> int:
    """Build it; the exit code. What is wrong goes to stderr."""
    parser = argparse.ArgumentParser(prog="release/build", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist/")
    parser.add_argument("--commit", default="HEAD", metavar="REV", help="what is released (default: HEAD)")
    parser.add_argument(
        "--arch",
        action="append",
        choices=tuple(ARCHITECTURES),
        help="carry an agent for this processor; repeatable (default: this machine's). Another one is emulated",
    )
    parser.add_argument("--no-deb", action="store_true", help="leave out the Debian package and the container image")
    parser.add_argument("--container", action="store_true", help="build the container image too; takes mmdebstrap")
    parser.add_argument("--sign", type=Path, metavar="KEY", help="sign SHA256SUMS with this secret key of minisign")
    given = parser.parse_args(arguments)
    output: Path = given.output.absolute()
    if output.is_dir() and any(output.iterdir()):
        print(f"error: {output} is not empty: move its files away, or give another folder by -o", file=sys.stderr)
        return 2
    output.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="pxe-release-") as folder:
            source = export(ROOT, given.commit, Path(folder) / "source")
            agents = _agents(source, given.arch or [THIS_MACHINE], work=Path(folder))
            _build(source, output, agents, with_deb=not given.no_deb, with_container=given.container, work=Path(folder))
        _sums(output)
        if given.sign:
            _sign(output, key=given.sign.absolute(), comment=f"pxe-pack {source.version}")
    except (InputError, WorkError) as error:
        for problem in error.problems:
            print(f"error: {problem.message}\n  {problem.label}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"error: {error.cmd[0]} failed with exit code {error.returncode}", file=sys.stderr)
        return 1
    print(_made(output, source=source, agents=agents))
    return 0


def _agents(source: Source, machines: Sequence[str], *, work: Path) -> list[FrozenAgent]:
    """Put ready agents for `machines` into the source tree; what is in them. Raises as `_build`."""
    archives = source.run("-m", "pxe_pack.freeze", *dict.fromkeys(machines)).decode().splitlines()
    return [load_agent(ready.unpack(Path(archive), work / Path(archive).name)) for archive in archives]


def _build(
    source: Source,
    output: Path,
    agents: Sequence[FrozenAgent],
    *,
    with_deb: bool,
    with_container: bool,
    work: Path,
) -> None:
    """Write the files to `output`. Raises InputError, WorkError and CalledProcessError."""
    source.run("-m", "hatchling", "build", "--directory", str(output))
    (wheel,) = output.glob("*.whl")
    sbom.write(output / f"pxe-pack-{source.version}.cdx.json", source=source, agents=agents)
    if with_deb:
        package = deb.build(wheel, output, source=source, work=work / "deb")
        if with_container:
            container.build(package, output, source=source, work=work / "container")


def _made(output: Path, *, source: Source, agents: Sequence[FrozenAgent]) -> str:
    """What was made, and what of, as text."""
    lines = [
        f"pxe-pack {source.version} of commit {source.commit}, in {output}:",
        *(f"{file.stat().st_size:>12,}  {file.name}" for file in sorted(output.iterdir())),
    ]
    for agent in agents:
        lines += [
            f"The agent for {agent.machine}, frozen of:",
            *(f"  {line}" for line in component_lines(agent.components)),
        ]
    return "\n".join(lines)


def _sums(output: Path) -> None:
    """Write the digest of each file, as sha256sum(1) checks them."""
    lines = []
    for file in sorted(output.iterdir()):
        with file.open("rb") as opened:
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.name}\n")
    (output / SUMS).write_text("".join(lines))


def _sign(output: Path, *, key: Path, comment: str) -> None:
    """Sign the checksums; minisign asks for the key's password, if it has one."""
    command: list[str | Path] = [
        "minisign",
        "-S",
        "-s",
        key,
        "-m",
        output / SUMS,
        "-t",
        comment,
        "-c",
        f"signature of {comment}",
    ]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
