"""Checks the menu that grub.cfg makes: its files, its commands, its default entry."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.bootloader import grub_in
from pxe_pack.image.grub.commands import INITRD, LINUX
from pxe_pack.layout.ipxe import IPXE_SCRIPT, program_script, script
from pxe_pack.trust import signed_boot


def grub_menu(subject: Subject) -> Iterator[Problem]:
    """Entries that GRUB cannot boot as they are written, and a default that boot.ipxe cannot have."""
    yield from _missing_files(subject)
    yield from _missing_commands(subject)
    yield from _other_script(subject)
    menu = subject.menu
    if menu.default is None and menu.entries:
        yield Problem(
            reference="grub-default-no-linux",
            message=f"GRUB boots {menu.default_title!r} by default, which is not Linux; boot.ipxe boots another entry",
            hint="set `default` in grub.cfg, or saved_entry in grubenv, to an entry that boots the LiveOS",
            severity="warning",
        )


def _missing_files(subject: Subject) -> Iterator[Problem]:
    for entry in subject.menu.entries:
        for path in (entry.kernel, *entry.initrds):
            if not subject.has(path):
                yield Problem(
                    reference="grub-no-file",
                    message=f"the entry {entry.title!r} loads {path}, which is not in the layout",
                    hint="add the file, or remove the entry; a submenu has only the variables that are exported",
                )


def _other_script(subject: Subject) -> Iterator[Problem]:
    """A warning if a layout's boot.ipxe is not the one for its grub.cfg and grubenv as they are now."""
    layout = subject.layout
    if layout and (now := layout.text(IPXE_SCRIPT)):
        signed = signed_boot.programs(layout)
        of_grub = script(subject.grub_cfg, read=layout.text, grub=grub_in(layout.root))
        wanted = program_script(signed[0]) if signed else of_grub
        if now != wanted:
            yield Problem(
                reference="ipxe-differs",
                message=f"{IPXE_SCRIPT} does not boot what grub.cfg and grubenv say now",
                hint=f"write it again: `pxe-pack relocate {layout.root} --boot-url URL` with the same URL",
                severity="warning",
            )


def _missing_commands(subject: Subject) -> Iterator[Problem]:
    """Commands that GRUB does not have. Modules in the layout may bring more, so then nothing is known."""
    if subject.has_modules:
        return
    for entry in subject.menu.entries:
        if fatal := [name for name in entry.missing if name in LINUX | INITRD]:
            yield Problem(
                reference="grub-no-command",
                message=f"the entry {entry.title!r} cannot boot: GRUB does not have its command {_listed(fatal)}",
                hint="use `linux` and `initrd`, or a GRUB with that module built in (--boot-loader)",
            )
        if harmless := [name for name in entry.missing if name not in LINUX | INITRD]:
            yield _without(f"the entry {entry.title!r}", harmless, "shows an error, waits for 10 seconds and continues")
    if subject.menu.missing:
        yield _without("grub.cfg", list(subject.menu.missing), "shows an error and continues")


def _without(where: str, names: list[str], effect: str) -> Problem:
    return Problem(
        reference="grub-command-ignored",
        message=f"{where} runs {_listed(names)}, which this GRUB does not have: it {effect}",
        hint="remove the command, or use a GRUB with that module built in (--boot-loader)",
        severity="warning",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
