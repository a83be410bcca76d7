"""Checks each entry's kernel arguments: one `root=`, with a URL, for a file in the layout; nothing repeated.

Sources: dracut.cmdline(7), "Booting live images" and "ip="; dracut's livenet (parse-livenet.sh); Linux,
arch/x86/include/asm/setup.h and arch/arm64/include/uapi/asm/setup.h (COMMAND_LINE_SIZE).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.settings import boot_url
from pxe_pack.checks.subject import Subject
from pxe_pack.image.grub.arguments import network_argument, reaches
from pxe_pack.layout.entries import BootEntry, Menu, escaped
from pxe_pack.layout.kernel_arguments import ISO_SHA256

COMMAND_LINE_LIMIT = 2047  # bytes without the final NUL, on x86 and arm64

_SHOWN = 40  # characters of an argument that a message shows
_LIVE = "live:"
# arguments with one value: if they are repeated, dracut or the kernel ignores one of them
_ONE_VALUE = (
    *("rd.live.dir", "rd.live.squashimg", "rd.live.overlay", "selinux", "enforcing"),
    *("pxe-fetch.config", ISO_SHA256),
)


def arguments(subject: Subject) -> Iterator[Problem]:
    """Problems with the kernel arguments of each entry."""
    for entry in subject.menu.entries:
        if subject.image.live:
            yield from _root(entry, subject)
            yield from _network(entry)
        yield from _repeated(entry)
    yield from command_lines(subject.menu)


def command_lines(menu: Menu) -> Iterator[Problem]:
    """Entries whose kernel command line is longer than the kernel's buffer: GRUB or the kernel drops its end."""
    for entry in menu.entries:
        size = _size(entry.command_line)
        if size > COMMAND_LINE_LIMIT:
            lost = [argument for end, argument in _ends(entry) if end > COMMAND_LINE_LIMIT]
            shown = " ".join(argument if len(argument) <= _SHOWN else f"{argument[:_SHOWN]}…" for argument in lost)
            yield Problem(
                reference="command-line-too-long",
                message=f"the kernel command line of the entry {entry.title!r} has {size:,} bytes, but the kernel "
                f"takes {COMMAND_LINE_LIMIT:,}; these arguments would be lost: {shown}",
                hint="shorten or remove kernel arguments; packing adds root=, ip= and rd.live ones that are missing",
            )


def _ends(entry: BootEntry) -> Iterator[tuple[int, str]]:
    """Each argument, and how many bytes the command line has up to its end."""
    end = _size(replace(entry, arguments=()).command_line)
    for argument in entry.arguments:
        end += 1 + _size(escaped(argument))
        yield end, argument


def _size(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _network(entry: BootEntry) -> Iterator[Problem]:
    """An error if the network is configured for the other kind of address than the one in `root=`."""
    url = "".join(entry.values("root")[:1]).removeprefix(_LIVE)
    if not reaches(url, entry.arguments):
        given = " ".join(f"ip={value}" for value in entry.values("ip"))
        yield Problem(
            reference="root-other-network",
            message=f"the entry {entry.title!r} has {given}, with which a node cannot reach {url}",
            hint=f"use `{network_argument(url)}` instead, or remove it: packing then adds that",
        )


def _root(entry: BootEntry, subject: Subject) -> Iterator[Problem]:
    roots = entry.values("root")
    if len(roots) != 1:
        actual = "no root=" if not roots else f"root= {len(roots)} times: {' '.join(roots)}"
        yield Problem(
            reference="root-not-once",
            message=f"the entry {entry.title!r} has {actual}",
            hint="set `root=live:URL` to the ISO's URL, once; pxe-pack does this when it packs the image",
        )
        return
    (root,) = roots
    url = root.removeprefix(_LIVE)
    if not subject.layout and not subject.boot_url:
        return  # packing sets it to the boot_url
    if not root.startswith(_LIVE) or not urlsplit(url).scheme:
        yield Problem(
            reference="root-no-url",
            message=f"the entry {entry.title!r} has root={root}, which is not a URL: a node cannot fetch it",
            hint="set `root=live:URL` to the ISO's URL; pxe-pack does this when it packs the image",
        )
        return
    yield from boot_url(url)
    if subject.layout and not _serves(subject, url):
        name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
        yield Problem(
            reference="root-not-served",
            message=f"the entry {entry.title!r} boots {url}, but the layout has no {name} to serve at that URL",
            hint="fix it with `pxe-pack relocate DIR --boot-url URL`",
        )


def _serves(subject: Subject, url: str) -> bool:
    layout = subject.layout
    return bool(layout and any(listed.url == url and subject.has(path) for path, listed in layout.files.items()))


def _repeated(entry: BootEntry) -> Iterator[Problem]:
    count = Counter(argument for argument in entry.arguments if not argument.startswith("root="))
    if twice := [argument for argument, times in count.items() if times > 1]:
        yield Problem(
            reference="argument-twice",
            message=f"the entry {entry.title!r} repeats these kernel arguments: {' '.join(twice)}",
            hint="keep each of them once",
            severity="warning",
        )
    for name in _ONE_VALUE:
        values = list(dict.fromkeys(entry.values(name)))
        if len(values) > 1:
            yield Problem(
                reference="argument-contradicts",
                message=f"the entry {entry.title!r} has both {' and '.join(f'{name}={value}' for value in values)}",
                hint="keep the one you want",
                severity="warning",
            )
