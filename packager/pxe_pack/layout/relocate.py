"""Changes the URLs of a layout without repacking: `root=live:`, the manifest and the checksums, but not the image.

The configuration in the image names the artifacts' base URL. If it changes, grub.cfg gets the kernel argument
`pxe-fetch.artifact_url=` (docs/decisions/0007). The new layout is built next to the old one, with hard links to
unchanged files, and then both are exchanged in one step.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack import checks
from pxe_pack.artifacts import FOLDER
from pxe_pack.console import joined
from pxe_pack.export import LayoutWriter, export_scripts, finish
from pxe_pack.hashing import SizeAndDigest, copy_span
from pxe_pack.image.grub.conditions import LINUX
from pxe_pack.image.grub.script import Command, GrubSyntaxError, parse, quoted, unquoted, walk
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.read import GRUB_CFG, Layout, read, unlisted_files
from pxe_pack.output import output_problem, staging
from pxe_pack.tools import InputError

ARTIFACT_ARGUMENT = "pxe-fetch.artifact_url"


@dataclass(frozen=True, kw_only=True, slots=True)
class Relocated:
    """The result of a relocation."""

    root: Path
    boot_url: str | None
    artifact_url: str | None
    changed: tuple[str, ...]  # paths of files with a new content or a new name


def relocate(root: Path, *, boot_url: str | None, artifact_url: str | None) -> Relocated:
    """Change the URLs of the layout in `root`; None keeps a URL.

    Raises InputError before anything is written, WorkError and OSError later; the layout is then unchanged.
    """
    layout = read(root.resolve())
    problems = [*_problems(layout, boot_url=boot_url, artifact_url=artifact_url)]
    if problems:
        raise InputError(*problems)
    boot_url = boot_url or layout.boot_url
    artifact_url = artifact_url.rstrip("/") + "/" if artifact_url else layout.artifact_url
    names = {layout.iso: _name(boot_url)} if layout.iso and boot_url else {}
    cfg = layout.text(GRUB_CFG)
    moved = _rewritten(cfg, layout, boot_url=boot_url, artifact_url=artifact_url)
    with staging(layout.root) as made:
        new = LayoutWriter(root=made.layout)
        changed = [name for path, name in names.items() if path != name]
        for path, listed in layout.files.items():
            target = names.get(path, path)
            url = _url(layout, path, listed.url, boot_url=boot_url, artifact_url=artifact_url)
            if path not in (GRUB_CFG, IPXE_SCRIPT):
                link_or_copy(layout.root / path, new.place(target))
                new.record(target, SizeAndDigest(size=listed.size, sha256=listed.sha256), url=url)
        export_scripts(new, moved)
        changed += [path for path in (GRUB_CFG, IPXE_SCRIPT) if new.text(path) != layout.text(path)]
        finish(new, _facts(layout, boot_url=boot_url, artifact_url=artifact_url))
    return Relocated(root=layout.root, boot_url=boot_url, artifact_url=artifact_url, changed=tuple(sorted(changed)))


def _problems(layout: Layout, *, boot_url: str | None, artifact_url: str | None) -> list[Problem]:
    found: list[Problem] = []
    if boot_url is None and artifact_url is None:
        message = "nothing to change: give --boot-url, --artifact-url or both"
        found.append(
            Problem(reference="relocate-nothing", message=message, hint="pxe-pack relocate DIR --boot-url URL")
        )
    if boot_url:
        found += checks.boot_url(boot_url)
        if not layout.boot_url:
            message = f"{layout.root} boots without an ISO, so it has no boot_url"
            found.append(Problem(reference="relocate-no-iso", message=message, hint="leave --boot-url out"))
        elif (name := _name(boot_url)) != layout.iso and name in layout.files:
            message = f"the ISO would be named {name}, but the layout has another file of that name"
            found.append(Problem(reference="relocate-name-taken", message=message, hint="choose another --boot-url"))
    found += checks.artifact_url(artifact_url) if artifact_url else []
    found += [replaced for replaced in layout.differing() if "does not exist" in replaced.message]
    if unlisted := unlisted_files(layout):
        message = f"{layout.root} contains a file that pxe-pack did not write: {unlisted[0]}"
        found.append(Problem(reference="output-foreign", message=message, hint="move it away, or it would be lost"))
    elif problem := output_problem(layout.root):
        found.append(problem)
    return found


def _name(url: str) -> str:
    """The name of the ISO: the last part of its URL."""
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])


def _url(layout: Layout, path: str, url: str | None, *, boot_url: str | None, artifact_url: str | None) -> str | None:
    if url is None:
        return None
    if path == layout.iso:
        return boot_url
    before, after = layout.artifact_url, artifact_url
    return after + url.removeprefix(_folder(before)) if before and after and path.startswith(f"{FOLDER}/") else url


def _folder(url: str) -> str:
    return url.rstrip("/") + "/"


def _rewritten(cfg: str, layout: Layout, *, boot_url: str | None, artifact_url: str | None) -> str:
    """grub.cfg with the new URLs. Raises InputError if it does not contain the old boot_url."""
    try:
        nodes = parse(cfg)
    except GrubSyntaxError as error:
        message = f"{layout.root / GRUB_CFG}:{error.line} is not valid GRUB syntax: {error}"
        raise InputError(Problem(reference="grub-unsuitable", message=message)) from error
    packed = layout.packed_artifact_url
    has_artifacts = any(path.startswith(f"{FOLDER}/") for path in layout.files)
    wanted = artifact_url if has_artifacts and packed and artifact_url != _folder(packed) else None
    found = False
    for command in walk(nodes):
        if command.name in LINUX and len(command.words) > 1:
            found |= _fix(command, before=layout.boot_url, after=boot_url, artifact_url=wanted)
    if layout.boot_url and boot_url != layout.boot_url and not found:
        message = f"{layout.root / GRUB_CFG} does not contain root=live:{layout.boot_url}, so it cannot be replaced"
        hint = "someone has edited the file; restore that argument, or pack again"
        raise InputError(Problem(reference="relocate-no-root", message=message, hint=hint))
    return "".join(map(str, nodes))


def _fix(command: Command, *, before: str | None, after: str | None, artifact_url: str | None) -> bool:
    """Replace the arguments of an entry's kernel. True if it had the old boot_url."""
    root, name = f"root=live:{before}", f"{ARTIFACT_ARGUMENT}="
    words = [word for word in command.words if not _is_own(word)]
    live = [number for number, word in enumerate(words) if unquoted(word) == root]
    for number in live:
        words[number] = quoted(f"root=live:{after}")
    if artifact_url:
        end = words.index("--") if "--" in words else len(words)  # what follows a lone "--" is for init
        words.insert(end, quoted(name + artifact_url))
    if words != command.words:
        command.replace_words(words)
    return bool(live)


def without_relocation(cfg: str) -> str:
    """The grub.cfg `cfg` without the kernel arguments of relocations. Raises InputError if its syntax is invalid."""
    try:
        nodes = parse(cfg)
    except GrubSyntaxError as error:
        raise InputError(
            Problem(
                reference="grub-unsuitable",
                message=f"line {error.line} of grub.cfg is not valid GRUB syntax: {error}",
            )
        ) from error
    for command in walk(nodes):
        if command.name in LINUX and any(map(_is_own, command.words)):
            command.replace_words([word for word in command.words if not _is_own(word)])
    return "".join(map(str, nodes))


def _is_own(word: str) -> bool:
    """True if the word is the kernel argument of an earlier relocation (the kernel treats `-` and `_` alike)."""
    return unquoted(word).partition("=")[0].replace("-", "_") == ARTIFACT_ARGUMENT.replace("-", "_")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` as `target`; copy it if the file system cannot."""
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        with source.open("rb") as file:
            copy_span(file, target, offset=0, size=source.stat().st_size)


def _facts(layout: Layout, *, boot_url: str | None, artifact_url: str | None) -> Mapping[str, object]:
    facts = {key: value for key, value in layout.manifest.items() if key != "outputs"}
    return {**facts, "boot_url": boot_url, "artifact_url": artifact_url}


def document(relocated: Relocated) -> dict[str, object]:
    """The result as JSON values (docs/json.md)."""
    return {
        "output": str(relocated.root),
        "boot_url": relocated.boot_url,
        "artifact_url": relocated.artifact_url,
        "changed": list(relocated.changed),
    }


def summary(relocated: Relocated) -> str:
    """The result as text."""
    lines = [f"Serve {relocated.root}/ at"]
    lines += [f"  {relocated.boot_url}"] if relocated.boot_url else []
    lines += [f"  {relocated.artifact_url}"] if relocated.artifact_url else []
    return joined([*lines, "", f"Verify:  pxe-pack check {relocated.root}"])
