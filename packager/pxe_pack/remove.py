"""Removes what pxe-pack added: from an ISO into a new ISO, from a layout in place or into a new folder.

The package `inject` finds earlier payloads. Initrds and ISOs are restored byte for byte, from the records in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import checks, tools
from pxe_pack.cleanup import committing
from pxe_pack.console import Console, joined
from pxe_pack.hashing import SizeAndDigest, hash_file
from pxe_pack.image import liveos
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.rootfs_source import detect_rootfs
from pxe_pack.inject import PackedIso, previous_payloads
from pxe_pack.layout.files import what_is
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.kernel_arguments import ISO_SHA256, without, without_arguments
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import FOLDER, Kind
from pxe_pack.layout.pinned import PINNED_SERIAL
from pxe_pack.layout.urls import Urls
from pxe_pack.output import output_problem, staging, staging_folder
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError
from pxe_pack.trust import sign_again, signed_boot
from pxe_pack.trust.signing import Signer

_WORK = "removing the payload"


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """The result of a removal."""

    output: Path
    removed: tuple[str, ...]  # the injectors whose payload was found
    changed: tuple[str, ...]  # changed or removed paths in a layout; for an ISO, its name


def remove(path: Path, *, output: Path | None, signer: Signer | None = None, console: Console) -> Removed:
    """Write the ISO or layout at `path` without the payload to `output` (None: replace the layout).

    A layout's signed boot is signed again by `signer`.

    Raises InputError before anything is written, WorkError and OSError later; `path` and `output` are then unchanged.
    """
    output = real_path(output.parent) / output.name if output else None
    if path.is_dir():
        return _of_layout(Layout.read(real_path(path)), output=output, signer=signer, console=console)
    if detect_rootfs(path):
        raise _no_iso(path)
    with liveos.opened(path, boot_url="") as image:
        packed = PackedIso.find(image)
        injectors = _injectors(image, packed)
        if image.live is None and isinstance(image.media, Iso):
            message = f"the payload is in the root filesystem of {path}, which is an initrd"
            raise _refused("remove-no-layout", message, "pass pxe-pack's output folder")
        if image.media is not image.iso or packed is None:
            raise _no_iso(path)
        if output is None:
            message = f"{path} is never modified, and no output is given"
            raise _refused("output-missing", message, "name the ISO to write with --output")
        if output.exists() or not output.parent.is_dir():
            message = f"{output} exists" if output.exists() else f"{output.parent} is not a directory"
            hint = "choose another file with --output"
            raise _refused("output-foreign", f"the output cannot be written: {message}", hint)
        if problems := checks.disk_space(output, needed=packed.disk_space, work=_WORK):
            raise InputError(*problems)
        with staging_folder(output) as folder:
            made = folder / "original.iso"
            packed.write_original(made, work=folder, console=console)
            made.chmod(0o644)
            with committing():
                made.rename(output)
    return Removed(output=output, removed=injectors, changed=(output.name,))


def _no_iso(path: Path) -> InputError:
    return _refused("remove-no-iso", f"{path} is neither an ISO nor a layout", "pass pxe-pack's output folder")


def _injectors(image: LiveImage, packed: PackedIso | None) -> tuple[str, ...]:
    """The injectors of earlier packs. Raises InputError if there was none, or if a program is needed and missing."""
    injectors = tuple(previous.how for previous in previous_payloads(image))
    if not injectors and packed:
        injectors = ("updates",)  # someone has removed the agent, but not its configuration
    if not injectors:
        message = f"{image.path} contains nothing that pxe-pack added"
        raise _refused("remove-nothing", message, "`pxe-pack show` lists the contents of an image")
    if problems := tools.missing(packed.needed_tools if packed else (), reason="to write the ISO"):
        raise InputError(*problems)
    return injectors


def _of_layout(layout: Layout, *, output: Path | None, signer: Signer | None, console: Console) -> Removed:
    target_root = output or layout.root
    if unlisted := layout.unlisted():
        message = f"{layout.root} contains {what_is(unlisted[0])} that pxe-pack did not write: {unlisted[0]}"
        raise _refused("output-foreign", message, "move it away, or it would be lost")
    if output and (output.is_relative_to(layout.root) or layout.root.is_relative_to(output)):
        message = f"the output {output} is inside the layout, or contains it"
        raise _refused("output-in-image", message, "choose another folder with --output")
    if problem := output_problem(target_root):
        raise InputError(problem)
    if missing := layout.missing():
        message = f"{missing[0]} is listed in the manifest but does not exist"
        raise _refused("layout-differs", message, "pack the image again")
    if problems := signed_boot.key_problems(layout, signer):
        raise InputError(*problems)
    boot_url, signed = layout.urls.boot_url, signed_boot.programs(layout)
    with (
        liveos.opened(layout.root, boot_url=boot_url or "") as image,
        staging(target_root, of=layout) as made,
    ):
        packed = PackedIso.find(image)
        injectors = _injectors(image, packed)
        if problems := checks.disk_space(target_root, needed=packed.disk_space if packed else 0, work=_WORK):
            raise InputError(*problems)
        kept = [path for path, file in layout.files.items() if file.kind is not Kind.ARTIFACT]
        # without artifacts, it is only known as the URL of the image's own files in that folder
        served = any(path.startswith(f"{FOLDER}/") for path in kept)
        urls = Urls(boot_url=boot_url, artifact_url=layout.urls.artifact_url if served else None)
        new = Layout(root=made.layout, urls=urls)
        written = _written(image, packed, layout, new=new, work=made.work, console=console)
        for path in kept:
            if path in written:
                new.record(path, written[path], kind=layout.files[path].kind)
            elif path not in (GRUB_CFG, IPXE_SCRIPT, *signed):
                new.take_over(path, layout)
        gone_arguments = [ISO_SHA256, *layout.added_arguments]
        grub_cfg = without_arguments(layout.text(GRUB_CFG), gone_arguments)
        new.write_scripts(grub_cfg, program=signed[0] if signed else "")
        edit = partial(without, names=gone_arguments)
        facts = {**layout.facts, **sign_again.write_again(new, layout, signer, edit=edit, work=made.work)}
        before, after = ({path: file.sha256 for path, file in one.files.items()} for one in (layout, new))
        changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
        gone = {"agent", "inputs", "verify_iso", "trust", "report", "pinned", PINNED_SERIAL}
        new.finish({**{key: value for key, value in facts.items() if key not in gone}, "inject": None})
    return Removed(output=target_root, removed=injectors, changed=tuple(changed))


def _written(
    image: LiveImage, packed: PackedIso | None, layout: Layout, *, new: Layout, work: Path, console: Console
) -> Mapping[str, SizeAndDigest]:
    """Write the layout's files that contained the payload without it. Returns their sizes and digests by path."""
    files: dict[str, SizeAndDigest] = {}
    if layout.iso and packed:
        target = new.place(layout.iso)
        packed.write_original(target, work=work, console=console)
        files[layout.iso] = hash_file(target)
    originals = image.boot_files()
    for path, source in image.network.files.items():
        if source in image.initrds and image.initrds[source].appended:
            files[source] = new.write(source, originals[path].pieces())
    return files


def _refused(reference: str, message: str, hint: str) -> InputError:
    return InputError(Problem(reference=reference, message=message, hint=hint))


def document(removed: Removed) -> dict[str, object]:
    """The result as JSON values (docs/json.md)."""
    return {
        "output": str(removed.output),
        "removed": list(removed.removed),
        "changed": list(removed.changed),
    }


def summary(removed: Removed) -> str:
    """The result as text."""
    injectors = " and ".join(f"`{name}`" for name in removed.removed)
    lines = [
        f"{removed.output}: removed the payload added with {injectors}",
        *(f"  {path}" for path in removed.changed),
    ]
    return joined(lines)
