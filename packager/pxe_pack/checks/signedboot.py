"""Checks a layout's signed boot: who signed the program, and that it has what the layout's files say now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.efi import EfiProgram, examined
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.pe.program import PeProgram, read_program
from pxe_pack.layout.entries import Menu
from pxe_pack.layout.layout import Layout, section_of
from pxe_pack.tools import InputError
from pxe_pack.trust import signed_boot, uki
from pxe_pack.trust.signing import fingerprint, read_certificate

_AGAIN = "pack again"  # nothing else signs what somebody may have changed
_MEANINGS = {uki.COMMAND_LINE: "kernel arguments differ", uki.INITRD: "initrd differs", uki.KERNEL: "kernel differs"}


def other_entries(menu: Menu) -> Iterator[Problem]:
    """A warning with the entries that a signed boot leaves out."""
    others = [repr(entry.title) for number, entry in enumerate(menu.entries) if number != menu.default]
    if menu.default is not None and others:
        yield Problem(
            reference="signed-boot-one-entry",
            message=f"the signed program boots GRUB's default entry; these are left out: {', '.join(others)}",
            hint="pack once for each entry that nodes are to boot, each with another default",
            severity="warning",
        )


def signed_program(subject: Subject) -> Iterator[Problem]:
    """Reasons why nodes would refuse a layout's signed program, or boot something other than the layout's files."""
    layout = subject.layout
    names = signed_boot.programs(layout) if layout else ()
    if layout is None or not names or layout.missing():
        return
    for path in names:
        data = (layout.root / path).read_bytes()
        program = examined(path, data)
        yield from _signature(layout, program)
        if program.machine:
            yield from _content(layout, path, data, read_program(data))


def signed_by(layout: Layout, certificate: Path) -> Iterator[Problem]:
    """An error if a layout's signed program is not signed with the key of `certificate`. Raises InputError."""
    wanted = fingerprint(read_certificate(certificate))
    for path in signed_boot.programs(layout):
        if not (layout.root / path).is_file():
            continue
        signatures = examined(path, (layout.root / path).read_bytes()).signatures
        if not any(one.intact and fingerprint(one.certificates[0]) == wanted for one in signatures):
            yield Problem(
                reference="signed-boot-other-key",
                message=f"{path} is not signed with the key of {certificate}",
                hint=_AGAIN,
            )


def _signature(layout: Layout, program: EfiProgram) -> Iterator[Problem]:
    valid = [one for one in program.signatures if one.intact]
    facts = section_of(layout.facts, signed_boot.FACTS)
    wanted = str(section_of(facts, "certificate").get("sha256"))
    if not valid:
        why = next((one.flaw for one in program.signatures), "it is not signed")
        yield Problem(
            reference="signed-boot-invalid",
            message=f"the signature of {program.path} is not valid: {why}; nodes with Secure Boot refuse it",
            hint=_AGAIN,
        )
    elif not any(fingerprint(one.certificates[0]) == wanted for one in valid):
        yield Problem(
            reference="signed-boot-other-key",
            message=f"{program.path} is signed by {valid[0].signer}, not with the certificate in the manifest",
            hint=_AGAIN,
        )


def _content(layout: Layout, path: str, data: bytes, program: PeProgram) -> Iterator[Problem]:
    """The sections that differ from what would be signed now."""
    try:
        expected = signed_boot.expected(layout)
    except (InputError, GrubSyntaxError, FileNotFoundError):  # reported by the checks of grub.cfg
        return
    for name, parts in expected.items():
        actual = signed_boot.counted_parts((program.section(data, name),))
        if actual != signed_boot.counted_parts(parts):
            yield Problem(
                reference="signed-boot-outdated",
                message=f"nodes boot what is in {path}, but the layout has changed since: its {_MEANINGS[name]}",
                hint=f"{_AGAIN}; after an interrupted `pxe-pack pin`, run that again",
            )
