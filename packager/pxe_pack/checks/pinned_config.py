"""Checks the configuration that a layout's nodes fetch by URL: whether they accept it, as far as this is known here.

The rules are the agent's (docs/node.md, "A configuration by URL").
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from pxe_fetch.contract.minisign import signature_url
from pxe_fetch.contract.problem import Problem, printable
from pxe_fetch.contract.quantity import show_moment
from pxe_fetch.contract.url import redact, scheme_of
from pxe_pack.checks.subject import Subject
from pxe_pack.layout.entries import BootEntry
from pxe_pack.layout.kernel_arguments import CONFIG, CONFIG_SHA256
from pxe_pack.layout.pinned import Pinned
from pxe_pack.trust.keys import TrustKey

_PIN = "pxe-pack pin LAYOUT fleet.yaml"


def pinned_config(subject: Subject) -> Iterator[Problem]:
    """Problems with the configuration that the entries of a layout name, and a note on what is pinned."""
    if not subject.layout:
        return
    pinned = subject.layout.pinned
    for url, sha256, entry in named(subject):
        yield from _unprotected(subject, entry, url=url, sha256=sha256, pinned=pinned)
    if pinned:
        packed = subject.packed.serial if subject.packed else None
        yield _state(pinned, packed=packed, trust=subject.trust)
        yield from acceptable(pinned.serial, pinned.expires, packed=packed, trusted=bool(subject.trust))


def acceptable(
    serial: int | None, expires: int | None, *, packed: int | None, trusted: bool, before: int | None = None
) -> Iterator[Problem]:
    """Reasons why nodes refuse a configuration with this `serial` and `expires` (seconds since 1970).

    `packed` is the serial of the packed configuration, `before` that of the one pinned before; `trusted`: the image has
    public keys.
    """
    if expires is not None and time.time() >= expires + 1:  # that second belongs to it
        yield Problem(
            reference="config-expired",
            message=f"the pinned configuration has expired, at {show_moment(expires)}: nodes refuse it",
            hint=f"give it a later `expires` and a higher `serial`, and pin it again: {_PIN}",
        )
    floor = max((one for one in (packed, before) if one is not None), default=None)
    if floor is None:
        return
    origin = "the image has" if floor == packed else "one pinned before had"
    if serial is None and trusted:
        yield Problem(
            reference="config-serial-missing",
            message=f"the pinned configuration has no `serial`, but {origin} serial {floor}: nodes refuse it",
            hint=f"give it a `serial` of {floor} or more",
        )
    elif serial is not None and serial < floor:
        yield Problem(
            reference="config-serial-lower",
            message=f"the pinned configuration has `serial: {serial}`, but {origin} serial {floor}: nodes refuse it",
            hint=f"raise its `serial` to {floor} or more",
        )


def named(subject: Subject) -> Iterator[tuple[str, str, BootEntry]]:
    """URL and digest of each configuration that an entry names (the last, as on nodes), with the first that does."""
    seen: dict[tuple[str, str], BootEntry] = {}
    for entry in subject.menu.entries:
        if urls := entry.agent_values(CONFIG):
            seen.setdefault((urls[-1], "".join(entry.agent_values(CONFIG_SHA256)[-1:])), entry)
    yield from ((url, sha256, entry) for (url, sha256), entry in seen.items())


def _unprotected(
    subject: Subject, entry: BootEntry, *, url: str, sha256: str, pinned: Pinned | None
) -> Iterator[Problem]:
    """Problems with what an entry names: nothing protects it, or it is not what was pinned."""
    named, known = f"the entry {entry.title!r} names the configuration {redact(url)}", {key.id for key in subject.trust}
    signer = pinned.signed_by if pinned and pinned.url == url else None
    if not sha256 and subject.trust and signer not in known:
        why = f"is signed by the key {signer}, which is not in the image" if signer else "is neither signed nor pinned"
        yield Problem(
            reference="config-unsigned",
            message=f"{named}, which {why}: nodes refuse it, unless a signature by one of the image's keys is at "
            f"{redact(signature_url(url))}",
            hint=f"sign it, or pin it by its digest: {_PIN} --url URL --sign KEY",
        )
    elif not sha256 and not subject.trust and scheme_of(url) not in ("https", "file"):
        yield Problem(
            reference="config-unpinned",
            message=f"{named} without its digest, and the image has no public keys: nodes refuse it",
            hint=f"pin it: {_PIN} --url URL",
        )
    if pinned and (url, sha256.lower().removeprefix("sha256:")) != (
        *(pinned.url, "" if pinned.signed_by else pinned.sha256),
    ):
        yield Problem(
            reference="config-pin-differs",
            message=f"{named}, but the manifest has another one, {redact(pinned.url)}, or another digest",
            hint=f"pin it again: {_PIN} --url URL",
            severity="warning",
        )


def _state(pinned: Pinned, *, packed: int | None, trust: Sequence[TrustKey]) -> Problem:
    """A note on what is pinned."""
    signer = next((str(key) for key in trust if key.id == pinned.signed_by), f"the key {pinned.signed_by}")
    serial = "no serial" if pinned.serial is None else f"serial {pinned.serial}"
    words = [
        f"signed by {signer}" if pinned.signed_by else f"pinned by its digest, sha256 {pinned.sha256}",
        f"{serial} (packed: {'none' if packed is None else packed})",
        f"expires at {show_moment(pinned.expires)}" if pinned.expires is not None else "never expires",
    ]
    return Problem(
        reference="config-pinned",
        message=f"nodes fetch {printable(pinned.name)} from {redact(pinned.url)}: {', '.join(words)}",
        hint="no action needed; `pxe-pack pin` pins another one",
        severity="note",
    )
