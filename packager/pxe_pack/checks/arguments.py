"""Checks each entry's kernel arguments: one `root=`, with a URL, for a file in the layout; nothing repeated.

Source: dracut.cmdline(7), "Booting live images"; dracut's livenet (parse-livenet.sh).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.settings import boot_url
from pxe_pack.checks.subject import Subject
from pxe_pack.layout.entries import BootEntry

_LIVE = "live:"
# arguments with one value: if they are repeated, dracut or the kernel ignores one of them
_ONE_VALUE = ("rd.live.dir", "rd.live.squashimg", "rd.live.overlay", "selinux", "enforcing", "pxe-fetch.config")


def arguments(subject: Subject) -> Iterator[Problem]:
    """Problems with the kernel arguments of each entry."""
    for entry in subject.menu.entries:
        if subject.image.live:
            yield from _root(entry, subject)
        yield from _repeated(entry)


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
