"""Checks that the URLs nodes will fetch respond to this machine, with files of the expected size.

Source: RFC 9110 (HEAD, Content-Length, ranges), RFC 3659 (FTP's SIZE).
"""

from __future__ import annotations

import ftplib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin, urlsplit

import requests

from pxe_fetch.contract.model import Artifact, FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.grub.words import unknown_variable

_TIMEOUT = 10  # seconds, to connect and for each response
_AT_ONCE = 8
_NO_HEAD = frozenset({403, 405, 501})  # responses of servers that only support GET
_OK, _PARTIAL = 200, 206


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """A URL, and the file expected there."""

    url: str
    what: str
    size: int | None  # bytes; None: unknown
    headers: Mapping[str, str] = field(default_factory=dict)
    unasked: str = ""  # why it cannot be checked from here
    needed: bool = True


def check_urls(subject: Subject) -> Iterator[Problem]:
    """Problems with the responses of the URLs, in the order of the layout and the configuration."""
    targets = {target.url: target for target in _targets(subject)}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for found in pool.map(_asked, targets.values()):
            yield from found


def _targets(subject: Subject) -> Iterator[_Target]:
    if layout := subject.layout:
        for path, listed in layout.files.items():
            if listed.url:
                yield _Target(url=listed.url, what=path, size=listed.size)
    if subject.config:
        for artifact in subject.config.artifacts:
            yield from _of_artifact(artifact, subject.config)


def _of_artifact(artifact: Artifact, config: FetchConfig) -> Iterator[_Target]:
    for url in artifact.urls:
        whole = urljoin(config.base_url or "", url)
        unasked = ""
        if unknown_variable(whole):
            unasked = "it depends on the node"
        elif artifact.header_credential:
            unasked = "it needs a credential that only nodes have"
        yield _Target(
            url=whole,
            what=f"artifact {artifact.name}",
            size=artifact.size,
            headers=artifact.headers,
            unasked=unasked,
            needed=artifact.required and len(artifact.urls) == 1,
        )


def _asked(target: _Target) -> list[Problem]:
    parts = urlsplit(target.url)
    try:
        if target.unasked:
            return [_unasked(target, target.unasked)]
        if parts.scheme in ("http", "https"):
            return list(_compared(target, *_http(target)))
        if parts.scheme == "ftp":
            return list(_compared(target, _ftp(target.url), ranges=True))
    except (requests.RequestException, OSError, EOFError, ValueError, ftplib.Error) as error:
        return [_unreachable(target, _reason(error))]
    return [_unasked(target, f"{parts.scheme or 'a path'} cannot be checked from here")]


def _http(target: _Target) -> tuple[int | None, bool]:
    """The size the server reports (None if it does not), and whether it supports ranges. Raises RequestException."""
    headers = {"Accept-Encoding": "identity", **target.headers}
    with requests.Session() as session:
        session.trust_env = False  # nodes ignore the environment too
        answer = session.head(target.url, headers=headers, timeout=_TIMEOUT, allow_redirects=True)
        if answer.status_code in _NO_HEAD:
            ranged = {**headers, "Range": "bytes=0-0"}
            answer = session.get(target.url, headers=ranged, timeout=_TIMEOUT, stream=True)
            answer.close()
        if answer.status_code not in (_OK, _PARTIAL):
            raise requests.HTTPError(f"the server responded {answer.status_code} {answer.reason}")
        if answer.status_code == _PARTIAL:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            return (int(total) if total.isdigit() else None), True
        length = answer.headers.get("Content-Length", "")
        return (int(length) if length.isdigit() else None), answer.headers.get("Accept-Ranges") == "bytes"


def _ftp(url: str) -> int | None:
    """The size an FTP server reports. Raises ftplib.Error, OSError, EOFError."""
    parts = urlsplit(url)
    with ftplib.FTP(timeout=_TIMEOUT) as client:  # noqa: S321  the user's choice; the agent verifies digests
        client.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        client.login(unquote(parts.username or ""), unquote(parts.password or ""))
        client.voidcmd("TYPE I")
        return client.size(unquote(parts.path.lstrip("/")))


def _compared(target: _Target, size: int | None, ranges: bool) -> Iterator[Problem]:  # noqa: FBT001  a fact
    if size is not None and target.size is not None and size != target.size:
        yield Problem(
            reference="url-size",
            message=f"{target.what}: {target.url} has {size:,} bytes, expected {target.size:,}",
            hint="put this layout's file on the server, or fix the configuration",
            severity=_severity(target),
        )
    elif not ranges:
        yield Problem(
            reference="url-no-ranges",
            message=f"{target.what}: the server of {target.url} does not support ranges, so downloads cannot resume",
            hint="use nginx or another server that supports ranges",
            severity="note",
        )


def _severity(target: _Target) -> str:
    return "error" if target.needed else "warning"


def _unreachable(target: _Target, why: str) -> Problem:
    return Problem(
        reference="url-unreachable",
        message=f"{target.what}: cannot fetch {target.url}: {why}",
        hint="serve the file there, or fix the URL; --offline skips this check",
        severity=_severity(target),
    )


def _unasked(target: _Target, why: str) -> Problem:
    return Problem(
        reference="url-unasked",
        message=f"{target.what}: {target.url} was not checked: {why}",
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
