"""The payload for Azure Linux Image Customizer, which then builds it into an image.

    DIR/image-customizer.yaml    `os.additionalFiles`, `os.services` and a script for links and folders
    DIR/files/PATH               what goes to /PATH
    DIR/other-user-artifacts/    local artifacts, for the HTTP server

It is a whole configuration, to be inherited by `baseConfigs` or merged by hand. Keys and their order of processing are
those of Image Customizer 1.6: docs/imagecustomizer/api/configuration/{additionalfile,services,script,baseConfig}.md in
github.com/microsoft/azure-linux-image-tools. Services are enabled when the files are there, and scripts run after that.
"""

from __future__ import annotations

import shlex
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pxe_fetch.contract.paths import TARGET_NAME, WANTS_LINK, parents
from pxe_fetch.contract.problem import Problem
from pxe_pack import checks, dump, export, unit
from pxe_pack.artifacts import local_files, with_urls
from pxe_pack.cleanup import committing
from pxe_pack.config_file import read_config
from pxe_pack.console import Console, joined
from pxe_pack.freeze.agent import FrozenAgent, load_agent
from pxe_pack.freeze.cache import default_cache, frozen_agent
from pxe_pack.input_file import read_input
from pxe_pack.layout.files import found_below
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import FOLDER
from pxe_pack.layout.urls import Urls, default_artifact_url
from pxe_pack.lock.lockfile import read_lock
from pxe_pack.node_reports import NO_CREDENTIALS, node_reports, with_reports
from pxe_pack.output import parent_problem, staging_folder
from pxe_pack.payload import Entry, make_payload
from pxe_pack.tools import InputError
from pxe_pack.trust.keys import read_keys

CONFIG, FILES = "image-customizer.yaml", "files"
INITRAMFS_TYPES = ("bootstrap", "full-os")  # Image Customizer, pxe.initramfsType
_HEADER = "# Written by `pxe-pack payload`, which replaces it.\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to write, and for which image."""

    config: Path
    output: Path
    agent: Path | None  # a folder with a frozen agent; None: one is frozen for `arch`
    arch: str  # the image's processor, as `uname -m` says it
    artifact_url: str | None
    systemd: int | None  # the image's release; None: any
    initramfs_type: str | None  # needed for `live_space` alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What was written."""

    output: Path
    agent: FrozenAgent
    files: tuple[str, ...]  # paths in the image
    artifacts: tuple[str, ...]  # paths below the output
    artifact_url: str


def write_payload(request: Request, *, console: Console) -> Written:
    """Write the payload and its configuration for Image Customizer. Raises InputError, WorkError and OSError."""
    _, document = read_config(request.config, lock=read_lock(request.config))
    fetch, pack = document.fetch, document.pack
    base_dir = request.config.absolute().parent
    files, problems = local_files(fetch, base_dir=base_dir)
    base = request.artifact_url or pack.artifact_url or (default_artifact_url(pack.boot_url) if pack.boot_url else "")
    if files and not base:
        problems.append(checks.missing_setting("artifact_url"))
    problems += [*(checks.artifact_url(base) if base else ()), *checks.credentials(fetch, base)]
    reports, wrong = node_reports(
        pack.report, fetch, config=request.config, boot_url=pack.boot_url or "", artifact_url=base
    )
    problems += wrong
    fetch = with_reports(fetch, reports)
    trust, wrong = read_keys([base_dir / name for name in pack.trust])
    problems += wrong
    if fetch.live_space and request.initramfs_type is None:
        problems.append(_unknown_initramfs())
    output = request.output.absolute()
    if problem := parent_problem(output) or _foreign(output):
        problems.append(problem)
    if problems:
        raise InputError(*problems)
    if request.agent:
        agent = load_agent(request.agent)
    else:
        agent = frozen_agent(cache=default_cache(), console=console, machine=request.arch)
    service = unit.checked_service(fetch, systemd=request.systemd, console=console)
    with staging_folder(output) as root:
        made = root / "layout"
        made.mkdir()
        made.chmod(0o755)
        layout = Layout(root=made, urls=Urls(boot_url=None, artifact_url=base or None))
        with console.step("Writing the payload") as step:
            exported = export.export_artifacts(layout, files, base=base, advance=step.advance)
            config, problems = with_urls(fetch, exported, base=base)
            if problems:
                raise InputError(*problems)
            payload = make_payload(
                agent=agent.path,
                service=service,
                live_space=unit.live_space_unit(fetch, full_os=request.initramfs_type == "full-os"),
                config=dump.dump(config),
                roots=fetch.allowed_roots,
                trust=trust,
                credentials=reports.credentials() if reports else NO_CREDENTIALS,
                tree=None,
            )
            (made / CONFIG).write_text(_HEADER + _configuration(payload.entries, made), encoding="utf-8")
            step.note(f"{len(payload.entries)} files and folders, {payload.size:,} bytes")
        with committing():
            if output.exists():
                output.rename(root / "previous")
            made.rename(output)
    return Written(
        output=output,
        agent=agent,
        files=tuple(f"/{entry.path}" for entry in payload.entries if not stat.S_ISDIR(entry.mode)),
        artifacts=tuple(layout.files),
        artifact_url=base if files else "",
    )


def _unknown_initramfs() -> Problem:
    return Problem(
        reference="initramfs-type-missing",
        message="the configuration has `live_space`, which depends on the kind of image",
        hint="give --initramfs-type, as `pxe.initramfsType` of the image: bootstrap or full-os",
    )


def _foreign(output: Path) -> Problem | None:
    """Why `output` cannot be replaced; None if it can."""
    if not output.exists() and not output.is_symlink():
        return None
    try:
        text = read_input(output / CONFIG).decode() if any(output.iterdir()) else _HEADER
        known = _sources(text)
    except (OSError, UnicodeDecodeError):
        text = ""
    if output.is_symlink() or not text.startswith(_HEADER):
        message = f"the output {output} exists, and `pxe-pack payload` did not write it"
        return Problem(reference="output-foreign", message=message, hint="choose another folder, or move it away")
    known |= {CONFIG}
    others = (path for path in found_below(output) if path not in known and not path.endswith("/"))
    if foreign := next((path for path in others if not path.startswith(f"{FOLDER}/")), None):
        message = f"the output {output} contains a file that `pxe-pack payload` did not write: {foreign}"
        return Problem(reference="output-foreign", message=message, hint="move it away, or choose another folder")
    return None


def _sources(text: str) -> set[str]:
    """The files that a configuration of ours names; none if it cannot be read."""
    try:
        return {str(one["source"]) for one in yaml.safe_load(text)["os"]["additionalFiles"]}
    except (yaml.YAMLError, LookupError, TypeError, ValueError):
        return set()


def _configuration(entries: Sequence[Entry], root: Path) -> str:
    """Image Customizer's configuration for `entries`, whose files are copied below `root`."""
    script = "\n".join(_commands(entries))
    document = {
        "os": {
            "additionalFiles": [_additional_file(entry, root) for entry in entries if stat.S_ISREG(entry.mode)],
            "services": {"enable": [TARGET_NAME]},
        },
        "scripts": {"postCustomization": [{"name": "pxe-fetch", "content": f"set -e\n{script}\n"}]},
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _additional_file(entry: Entry, root: Path) -> dict[str, str]:
    """The entry as an additionalFile, relative to the configuration; its content is copied."""
    target = root / FILES / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(entry.content, Path):
        shutil.copyfile(entry.content, target)
    else:
        target.write_bytes(entry.content)
    mode = stat.S_IMODE(entry.mode)
    target.chmod(mode)
    return {"source": f"{FILES}/{entry.path}", "destination": f"/{entry.path}", "permissions": f"{mode:o}"}


def _commands(entries: Sequence[Entry]) -> Iterator[str]:
    """The shell commands for what additionalFiles cannot make: folders without files, and links."""
    made = {WANTS_LINK.lstrip("/")}  # enabling the target makes a link like it
    made |= {
        parent for path in (*made, *(one.path for one in entries if stat.S_ISREG(one.mode))) for parent in parents(path)
    }
    for entry in entries:
        path = shlex.quote(f"/{entry.path}")
        if entry.path in made:
            continue
        if stat.S_ISDIR(entry.mode):
            yield f"[ -d {path} ] || mkdir -m {stat.S_IMODE(entry.mode):o} {path}"
        elif stat.S_ISLNK(entry.mode):
            yield f"ln -sfn {shlex.quote(entry.target)} {path}"


def document(written: Written) -> dict[str, object]:
    """What was written, as JSON values (docs/json.md)."""
    return {
        "output": str(written.output),
        "config": str(written.output / CONFIG),
        "agent": written.agent.document(),
        "files": list(written.files),
        "artifacts": list(written.artifacts),
        "artifact_url": written.artifact_url or None,
    }


def summary(written: Written) -> str:
    """What was written, as text."""
    lines = [
        f"{written.output}: {len(written.files)} files for the image, with the agent {written.agent.version}",
        f"  {CONFIG}  name it in `baseConfigs` of your Image Customizer configuration",
    ]
    if written.artifacts:
        lines.append(f"  other-user-artifacts/  serve it at {written.artifact_url}")
    return joined(lines)
