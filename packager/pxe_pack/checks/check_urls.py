"""Checks that the URLs nodes will fetch respond to this machine, with files of the expected size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pxe_fetch.contract.minisign import signature_url
from pxe_fetch.contract.mirrors import moved, requested
from pxe_fetch.contract.model import Artifact, FetchConfig, Proxy
from pxe_fetch.contract.problem import Problem, printable
from pxe_fetch.contract.registry import written
from pxe_fetch.contract.url import flat, redact
from pxe_fetch.contract.validators import joined
from pxe_pack.checks import url_client
from pxe_pack.checks.pinned_config import named
from pxe_pack.checks.subject import Subject
from pxe_pack.checks.url_client import Client, Found
from pxe_pack.image.grub.words import unknown_variable
from pxe_pack.layout.manifest import Kind
from pxe_pack.layout.pinned import Pinned

_AT_ONCE = 8
_NOTHING_THERE = frozenset({404, 410, 502, 503, 504})  # statuses of a server, or of a proxy without one behind it
_WEB_PAGES = (".html", ".htm")  # that an artifact, or a file of the image, may well be


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """A URL, and the file expected there."""

    url: str
    what: str
    size: int | None  # bytes; None: unknown
    title: str | None = None  # of a layer; the URL is that of a registry's manifest
    headers: Mapping[str, str] = field(default_factory=dict)
    unasked: str = ""  # why it cannot be checked from here
    needed: bool = True
    resumes: bool = True  # a download that is worth resuming
    by_dracut: bool = False  # it is the initrd that fetches it, without our proxies and certificates

    @property
    def shown(self) -> str:
        """The URL for messages: its query may be secret."""
        return redact(self.url) if self.title is None else f"{self.title} of {written(redact(self.url))}"


def check_urls(subject: Subject) -> Iterator[Problem]:
    """Problems with the responses of the URLs, in the order of the layout and the configuration."""
    targets = {(target.url, target.title): target for target in _targets(subject)}
    config = subject.config or subject.packed or FetchConfig()
    with (
        url_client.client_for(config.tls, config.proxy, subject.image.tree) as client,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        plain = Client(proxy=Proxy())
        for found in pool.map(lambda one: _asked(one, plain if one.by_dracut else client), targets.values()):
            yield from found
        if config.report.url:
            yield from _report(config.report.url, client)


def _report(url: str, client: Client) -> Iterator[Problem]:
    """A problem if nothing takes reports at `url`. None is posted: it would be taken for that of a node."""
    target = _Target(url=url, what="the report", size=None, needed=False)
    parsed = url_client.usable(url)
    unasked = "it depends on the node" if unknown_variable(url) or parsed is None else client.unasked(parsed)
    if unasked or parsed is None:
        yield _unasked(target, unasked)
        return
    try:
        status = client.listens(parsed)
    except url_client.ERRORS as error:
        yield _no_reports(target, f"cannot be reached: {_reason(error)}")
        return
    if status in _NOTHING_THERE:
        yield _no_reports(target, f"responds {status} to OPTIONS")


def _no_reports(target: _Target, why: str) -> Problem:
    return Problem(
        reference="report-unreachable",
        message=f"{target.what}: {target.shown} {why}, so the results of nodes may be lost",
        hint="start the server there, or fix report.url; the runs of nodes do not depend on it; --offline skips this",
        severity="warning",
    )


def _targets(subject: Subject) -> Iterator[_Target]:
    if layout := subject.layout:
        for path, listed in layout.files.items():
            if listed.url:
                iso = listed.kind is Kind.ISO  # dracut's livenet begins anew after each failure
                needed = listed.kind is not Kind.ADDITIONAL
                yield _Target(
                    url=listed.url, what=path, size=listed.size, needed=needed, resumes=not iso, by_dracut=iso
                )
        for url, sha256, _ in named(subject):
            yield from _of_config(url, layout.pinned, is_signed=bool(subject.trust) and not sha256)
    if config := subject.config:
        # what the layout exports is above, at the URLs that it has now
        exported = config.artifact_url if config is subject.packed and subject.layout else None
        served = subject.artifact_url
        for artifact in config.artifacts:
            known = moved(artifact, below=exported, to=served) if exported else artifact
            for target in _of_artifact(known, config):
                if not exported or not target.url.startswith(served):
                    yield target


def _of_config(url: str, pinned: Pinned | None, *, is_signed: bool) -> Iterator[_Target]:
    """The URLs of a configuration and its signature. One that is signed may be newer than the one that was pinned."""
    known = pinned if pinned and pinned.url == url else None
    what = f"the configuration {printable(known.name)}" if known else "the configuration"
    yield _Target(url=url, what=what, size=known.size if known and not is_signed else None, resumes=False)
    if is_signed:
        yield _Target(url=signature_url(url), what=f"the signature of {what}", size=None, resumes=False)


def _of_artifact(artifact: Artifact, config: FetchConfig) -> Iterator[_Target]:
    """The URLs of an artifact: of its mirrors, of the list of its chunks, and of the file with its digest."""
    name, wanted = f"artifact {artifact.name}", requested(artifact, base=config.base_url)
    unasked = "it needs a credential that only nodes have" if artifact.credentials else ""
    if any(map(unknown_variable, artifact.headers.values())):
        unasked = "its headers depend on the node"
    several = (
        (name, wanted.file, artifact.size, True),
        (f"the chunks of {name}", wanted.chunk_list, None, False),
        (f"the digest of {name}", wanted.sums, None, False),
    )
    for what, tiers, size, resumes in several:
        mirrors = joined(flat(tiers), config.base_url)
        for url in mirrors:
            yield _Target(
                url=url,
                what=what,
                size=size,
                title=artifact.title,
                headers=artifact.headers,
                unasked="it depends on the node" if unknown_variable(url) else unasked,
                needed=artifact.required and len(mirrors) == 1,
                resumes=resumes,
            )


def _asked(target: _Target, client: Client) -> list[Problem]:
    url = url_client.usable(target.url)
    if target.unasked or url is None:
        return [_unasked(target, target.unasked or "it is relative, and there is no base_url")]
    if url.scheme not in ("http", "https", "ftp"):
        return [_unasked(target, f"{url.scheme} cannot be checked from here")]
    if url.scheme != "ftp" and (why := client.unasked(url)):
        return [_unasked(target, why)]
    try:
        if target.title is not None:
            found = client.layer(url, target.title, target.headers)
        else:
            found = url_client.ftp(target.url) if url.scheme == "ftp" else client.http(url, target.headers)
    except url_client.ERRORS as error:
        return [_unreachable(target, _reason(error))]
    return list(_compared(target, found))


def _compared(target: _Target, found: Found) -> Iterator[Problem]:
    if found.doubt and not urlsplit(target.url).path.endswith(_WEB_PAGES):
        yield Problem(
            reference="url-doubtful",
            message=f"{target.what}: {target.shown} {found.doubt}",
            hint="put the file itself there, and switch compression off for it, on the server or on a proxy",
            severity="warning",
        )
    if found.size is not None and target.size is not None and found.size != target.size:
        yield Problem(
            reference="url-size",
            message=f"{target.what}: {target.shown} has {found.size:,} bytes, expected {target.size:,}",
            hint="put this layout's file on the server, or fix the configuration",
            severity=_severity(target),
        )
    elif not found.ranges and target.resumes:
        yield Problem(
            reference="url-no-ranges",
            message=f"{target.what}: the server of {target.shown} does not support ranges, so downloads cannot resume",
            hint="use nginx or another server that supports ranges",
            severity="note",
        )


def _severity(target: _Target) -> str:
    return "error" if target.needed else "warning"


def _unreachable(target: _Target, why: str) -> Problem:
    return Problem(
        reference="url-unreachable",
        message=f"{target.what}: cannot fetch {target.shown}: {why}",
        hint="serve the file there, or fix the URL; --offline skips this check",
        severity=_severity(target),
    )


def _unasked(target: _Target, why: str) -> Problem:
    return Problem(
        reference="url-unasked",
        message=f"{target.what}: {target.shown} was not checked: {why}",
        hint="test it on a node, or with pxe-pack boot",
        severity="note",
    )


def _reason(error: Exception) -> str:
    """The innermost cause as text: requests wraps errors in several layers."""
    causes: list[BaseException] = [error]
    while (inner := _inner(causes[-1])) is not None and inner not in causes:
        causes.append(inner)
    words = [getattr(cause, "strerror", None) for cause in causes]
    return next((str(word) for word in reversed(words) if word), str(error))


def _inner(error: BaseException) -> BaseException | None:
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return reason
    first = error.args[0] if error.args else None
    return first if isinstance(first, BaseException) else error.__cause__ or error.__context__
