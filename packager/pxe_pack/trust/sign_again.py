"""Sign a layout's program again after `pin`, `relocate` or `remove` has changed what is in it, and nothing else.

Why: docs/decisions/0048.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pxe_fetch.contract import facts
from pxe_fetch.contract.problem import Problem
from pxe_pack.image.efi import examined
from pxe_pack.image.grub import words as grub_words
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.initrd.appended import appended
from pxe_pack.image.pe.program import read_program
from pxe_pack.layout.kernel_arguments import ARTIFACT_URL, ISO_SHA256
from pxe_pack.layout.layout import Layout, section_of
from pxe_pack.tools import InputError
from pxe_pack.trust import uki
from pxe_pack.trust.signed_boot import (
    ALIGNMENT,
    FACTS,
    counted_parts,
    default_entry,
    expected,
    joined,
    make,
    programs,
)
from pxe_pack.trust.signing import Signer, read_certificate

Edit = Callable[[Sequence[str]], list[str]]  # makes the words of a `linux` command of grub.cfg into others


def write_again(
    layout: Layout,
    before: Layout,
    signer: Signer | None,
    *,
    edit: Edit,
    artifact_url: str | None = None,
    work: Path,
) -> dict[str, object]:
    """Write the signed program of `before` for the changed files of `layout`. Returns facts for the manifest.

    The program is signed by the key already, and `layout` has what is in it: the same kernel, the initrd or one made
    of it, and the arguments after `edit`, with `artifact_url` if that is new. Anything else comes from somebody who can
    write to the layout, but has no key: InputError. What is signed is out of the old program, which is read once, so a
    file that is exchanged meanwhile is not signed either. Nothing if `before` has no signed boot. Raises as
    `SignedBoot.write`.
    """
    names = programs(before)
    if not names or signer is None:
        return {}
    data = (before.root / names[0]).read_bytes()
    signatures = examined(names[0], data).signatures
    own = read_certificate(signer.certificate)
    if not any(one.intact and one.certificates[0] == own for one in signatures):
        why = next((one.flaw or f"it is by {one.signer}" for one in signatures), "there is none")
        message = f"{before.root / names[0]} has no valid signature by {signer.certificate}: {why}"
        raise _not_again(message, hint="pack again; a new certificate needs a new pack too")
    try:
        parts = _parts_again(data, layout, before, edit=edit, artifact_url=artifact_url)
    except _DifferingError as error:
        message = f"{error} differs from what is in the signed program {before.root / names[0]}"
        raise _not_again(message, hint="pack again; after an interrupted `pxe-pack pin`, run that again") from None
    made = make(layout, data, parts, signer=signer, programs=names, work=work)
    return {FACTS: {**section_of(before.facts, FACTS), **made}}


class _DifferingError(Exception):
    """A part of a layout is not in its signed program; the text names it."""


def _parts_again(
    data: bytes, layout: Layout, before: Layout, *, edit: Edit, artifact_url: str | None
) -> dict[str, tuple[uki.Part, ...]]:
    """The sections of the new program: those of the signed program `data`, with the changes from `before` to `layout`.

    Raises _DifferingError if `before`, or `layout` made of it, has anything else.
    """
    program, was, now = read_program(data), default_entry(before), default_entry(layout)
    linux, initrd = program.section(data, uki.KERNEL), program.section(data, uki.INITRD)
    if was.kernel != now.kernel or not _same((linux,), expected(layout).get(uki.KERNEL, ())):
        raise _DifferingError(f"the kernel {now.kernel}")
    if was.initrds != now.initrds or not _same((initrd,), expected(before).get(uki.INITRD, ())):
        raise _DifferingError(f"the initrd {' '.join(now.initrds)}")
    line = program.section(data, uki.COMMAND_LINE).decode(errors="surrogateescape")
    # after a `pin` that was killed, the program is newer than grub.cfg
    signed = was.arguments if line == joined(was.arguments) else tuple(word.strip('"') for word in facts.split(line))
    edited = [grub_words.unquoted(word) for word in edit([*map(grub_words.quoted, signed)])]
    if joined(edited) != joined(now.arguments):
        raise _DifferingError(f"the kernel arguments in {GRUB_CFG}")
    for key, given in ((ISO_SHA256, None), (ARTIFACT_URL, artifact_url)):  # else they are from the manifest
        signed_values = [one.partition("=")[2] for one in signed if one.startswith(f"{key}=")]
        if given is None and now.values(key) not in ([], signed_values):
            raise _DifferingError(f"the kernel argument {key}")
    initrds = _initrds_again(initrd, now.initrds, layout, before)
    kept = {name: (found,) for name in (uki.OS_RELEASE, uki.RELEASE) if (found := program.section(data, name))}
    return {
        **kept,
        uki.COMMAND_LINE: (joined(now.arguments).encode(errors="surrogateescape"),),
        **({uki.INITRD: tuple(initrds)} if initrds else {}),
        uki.KERNEL: (linux,),
    }


def _initrds_again(signed: bytes, paths: Sequence[str], layout: Layout, before: Layout) -> list[uki.Part]:
    """The initrds in the section `signed`, without what was appended to those that are shorter in `layout`."""
    found: list[uki.Part] = []
    at = 0
    for path in (one.lstrip("/") for one in paths):
        if path not in before.files or path not in layout.files:
            raise _DifferingError(f"the initrd {path}")
        size, new = before.files[path].size, layout.files[path].size
        part = signed[at : at + size]
        at += size + -size % ALIGNMENT
        if new != size:
            record = appended(lambda start, count, part=part: part[start : start + count], size=len(part))
            if record is None or record.before.size != new:
                raise _DifferingError(f"the initrd {path}")
            part = part[:new]
        found += [part, bytes(-len(part) % ALIGNMENT)]
    if at != len(signed):
        raise _DifferingError(f"the initrd {' '.join(paths)}")
    return found


def _same(parts: tuple[uki.Part, ...], others: tuple[uki.Part, ...]) -> bool:
    return counted_parts(parts) == counted_parts(others)


def _not_again(message: str, *, hint: str) -> InputError:
    return InputError(Problem(reference="signed-boot-changed", message=message, hint=hint))
