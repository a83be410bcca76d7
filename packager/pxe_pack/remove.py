"""What pxe-pack put into an image, taken out again: of an ISO into another, of a layout into one without the agent.

What was put in is told by inject/former.py. Initrds and grafted root filesystems come back byte for byte; of an ISO,
every file does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.artifacts import FOLDER
from pxe_pack.cleanup import committing
from pxe_pack.console import Console
from pxe_pack.export import LayoutWriter, export_scripts, finish
from pxe_pack.hashing import SizeAndDigest
from pxe_pack.image import liveos
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import Target, formers, take_out_of_iso
from pxe_pack.inject.isoedit import EDITOR
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.read import GRUB_CFG, Layout, read, unlisted_files
from pxe_pack.layout.relocate import link_or_copy, without_relocation
from pxe_pack.output import output_problem, staging, staging_folder
from pxe_pack.tools import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """What came of it."""

    output: Path
    removed: tuple[str, ...]  # the ways in that were found
    changed: tuple[str, ...]  # paths in a layout, also of files that are gone; of an ISO its name


def remove(path: Path, *, output: Path | None, console: Console) -> Removed:
    """Write the ISO or layout at `path` without what pxe-pack put in to `output`; a layout in its own place if None.

    Raises InputError before there is any effect, WorkError and OSError later; what is at `path` and `output` is then
    what it was before.
    """
    output = output.parent.resolve() / output.name if output else None
    if path.is_dir():
        return _of_layout(read(path.resolve()), output=output, console=console)
    with liveos.opened(path, boot_url="") as image:
        ways = _ways(image)
        if image.media is not image.iso:
            raise _refused("remove-no-iso", f"{path} is neither an ISO nor a layout", "give pxe-pack's output folder")
        if "initrd" in ways:
            message = f"an initrd in {path} has the payload, and it can be taken out of a layout only"
            raise _refused("remove-no-layout", message, "give pxe-pack's output folder")
        if output is None:
            raise _refused("output-missing", f"{path} is only read, and no output is given", "give a name by --output")
        if output.exists() or not output.parent.is_dir():
            message = f"{output} exists" if output.exists() else f"{output.parent} is not a directory"
            raise _refused("output-foreign", f"the output cannot be written: {message}", "choose another by --output")
        with staging_folder(output) as folder:
            target = Target(place=lambda name: folder / name, iso="layout.iso")
            take_out_of_iso(image, target=target, work=folder, console=console)
            made = folder / target.iso
            made.chmod(0o644)
            with committing():
                made.rename(output)
    return Removed(output=output, removed=ways, changed=(output.name,))


def _ways(image: LiveImage) -> tuple[str, ...]:
    """The ways of former packs. Raises InputError when there was none, or the program is missing that undoes them."""
    ways = tuple(former.how for former in formers(image))
    if not ways:
        raise _refused("remove-nothing", f"pxe-pack put nothing into {image.path}", "`pxe-pack show` tells what it has")
    if problems := tools.missing([EDITOR] if {*ways} - {"initrd"} else [], reason="to write the ISO"):
        raise InputError(*problems)
    return ways


def _of_layout(layout: Layout, *, output: Path | None, console: Console) -> Removed:
    target_root = output or layout.root
    if unlisted := unlisted_files(layout):
        message = f"{layout.root} has in it what pxe-pack did not write: {unlisted[0]}"
        raise _refused("output-foreign", message, "move it away; it would be lost")
    if output and (output.is_relative_to(layout.root) or layout.root.is_relative_to(output)):
        raise _refused("output-in-image", f"the output {output} lies in the layout, or around it", "choose another")
    if problem := output_problem(target_root):
        raise InputError(problem)
    if missing := layout.missing():
        raise _refused("layout-differs", f"{missing[0]} is in the manifest and is not there", "pack the image again")
    with liveos.opened(layout.root, boot_url=layout.boot_url or "") as image, staging(target_root) as made:
        ways = _ways(image)
        new = LayoutWriter(root=made.layout)
        written = _written(image, layout, new=new, work=made.work, console=console)
        for path, listed in layout.files.items():
            if path in written:
                new.record(path, written[path], url=listed.url)
            elif not path.startswith(f"{FOLDER}/") and path not in (GRUB_CFG, IPXE_SCRIPT):
                link_or_copy(layout.root / path, new.place(path))
                new.record(path, SizeAndDigest(size=listed.size, sha256=listed.sha256), url=listed.url)
        export_scripts(new, without_relocation(layout.text(GRUB_CFG)))
        before = {path: listed.sha256 for path, listed in layout.files.items()}
        after = {path: counted.sha256 for path, counted in new.files.items()}
        changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
        finish(new, _facts(layout))
    return Removed(output=target_root, removed=ways, changed=tuple(changed))


def _written(
    image: LiveImage, layout: Layout, *, new: LayoutWriter, work: Path, console: Console
) -> Mapping[str, SizeAndDigest]:
    """The layout's files that had the payload, written without it."""
    files: dict[str, SizeAndDigest] = {}
    if image.iso and layout.iso:
        target = Target(place=new.place, iso=layout.iso)
        if cleaned := take_out_of_iso(image, target=target, work=work, console=console):
            files |= cleaned.files
    originals = image.boot_files()
    for path, source in image.network.files.items():
        if source in image.initrds and image.initrds[source].appended:
            files[source] = new.write(source, originals[path].pieces())
    return files


def _facts(layout: Layout) -> dict[str, object]:
    gone = {"outputs", "agent", "inputs"}
    facts = {key: value for key, value in layout.manifest.items() if key not in gone}
    return {**facts, "inject": None, "artifact_url": None}


def _refused(reference: str, message: str, hint: str) -> InputError:
    return InputError(Problem(reference=reference, message=message, hint=hint))


def document(removed: Removed) -> dict[str, object]:
    """What came of it, for a machine."""
    return {
        "output": str(removed.output),
        "removed": list(removed.removed),
        "changed": list(removed.changed),
    }


def summary(removed: Removed) -> str:
    """What came of it, for a person."""
    ways = " and ".join(f"`{way}`" for way in removed.removed)
    lines = [f"{removed.output}: without what pxe-pack put in by {ways}", *(f"  {path}" for path in removed.changed)]
    return "\n".join(lines)
