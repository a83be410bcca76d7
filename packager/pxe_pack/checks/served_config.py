"""Checks the configurations that servers have at the URLs that a layout's entries name: as nodes do, and now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pxe_fetch.contract import minisign, reader
from pxe_fetch.contract.document import MAX_CHARACTERS
from pxe_fetch.contract.model import Proxy, Tls
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.url import redact
from pxe_pack.checks import url_client
from pxe_pack.checks.pinned_config import acceptable, named
from pxe_pack.checks.subject import Subject
from pxe_pack.checks.url_client import Client
from pxe_pack.cleanup import temporary_folder
from pxe_pack.image.grub.words import unknown_variable
from pxe_pack.tools import InputError
from pxe_pack.trust.signature import SignatureError, signer_of

_SERVE = "serve the file that was pinned, or pin this one: pxe-pack pin LAYOUT fleet.yaml"


def served_config(subject: Subject) -> Iterator[Problem]:
    """Reasons why nodes refuse what is served now. `check_urls` has told what cannot be fetched."""
    if not subject.layout:
        return
    with (
        url_client.client_for(Tls(), Proxy(), subject.image.tree) as client,
        temporary_folder(prefix="pxe-pack-check-") as work,
    ):
        for url, sha256, _ in named(subject):
            content = _fetched(url, client, limit=MAX_CHARACTERS)
            if content is not None:
                wrong = [*_unverified(subject, url, content, sha256=sha256, client=client, work=work)]
                yield from wrong or _unusable(subject, url, content)


def _fetched(text: str, client: Client, *, limit: int) -> bytes | None:
    """The file at a URL, or the first `limit` + 1 bytes; None if it cannot be fetched from here."""
    url = url_client.usable(text)
    if url is None or unknown_variable(text) or url.scheme not in ("http", "https", "ftp") or client.unasked(url):
        return None
    try:
        return client.content(url, limit=limit)
    except url_client.ERRORS:
        return None


def _unverified(
    subject: Subject, url: str, content: bytes, *, sha256: str, client: Client, work: Path
) -> Iterator[Problem]:
    """A problem if nodes compare `content` with something else, or do not accept its signature."""
    wanted, found = sha256.lower().removeprefix("sha256:"), hashlib.sha256(content).hexdigest()
    served = f"the configuration that is served at {redact(url)}"
    if wanted and found != wanted:
        message = f"{served} has the sha256 {found}, not {wanted} as the kernel arguments say: nodes refuse it"
        yield Problem(reference="config-served-differs", message=message, hint=_SERVE)
    if wanted or not subject.trust:
        return
    beside = minisign.signature_url(url)
    signature = _fetched(beside, client, limit=minisign.MAX_SIZE)
    if signature is None:
        return
    try:
        signer_of(signature, content, keys=subject.trust, work=work)
    except SignatureError as error:
        message = f"the signature of {served}, {redact(beside)}, {error}: nodes refuse it"
        hint = "serve the file and its signature as `pxe-pack pin --sign` has written them"
        yield Problem(reference="config-served-unsigned", message=message, hint=hint)
    except InputError as error:  # there is no minisign here
        yield from error.problems


def _unusable(subject: Subject, url: str, content: bytes) -> Iterator[Problem]:
    """Problems with what a verified configuration says, but for those that the manifest's entry of it has too."""
    try:
        config = reader.read(content.decode(), name=redact(url))
    except UnicodeDecodeError:
        message = f"the configuration that is served at {redact(url)} is not UTF-8 text"
        yield Problem(reference="config-unreadable", message=message, hint=_SERVE)
        return
    except ProblemError as error:
        yield from error.problems
        return
    pinned = subject.layout.pinned if subject.layout else None
    if pinned and (pinned.serial, pinned.expires) == (config.serial, config.expires):
        return
    packed = subject.packed.serial if subject.packed else None
    yield from acceptable(config.serial, config.expires, packed=packed, trusted=bool(subject.trust))
