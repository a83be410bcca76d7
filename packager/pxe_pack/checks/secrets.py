"""Checks for secrets in URLs and headers, which everybody who can read the image or the layout has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.checks.subject import Subject
from pxe_pack.node_urls import artifact_urls

# Names of what is secret in a query, in lower case and without `-` and `_`: of shared access signatures (Azure: `sig`)
# and of presigned URLs (S3: `X-Amz-Signature`, `X-Amz-Security-Token`, before `Signature`; Google: `X-Goog-Signature`);
# `access_token` (RFC 6750, 2.3), `private_token` and `job_token` (GitLab), `hdnts` (Akamai), `sign` (Alibaba Cloud),
# and the like.
_SECRET = re.compile(
    r"sig|sign|auth|authorization|pass|pwd|jwt|sas|hdnts|hdnea"
    r"|.*(signature|token|password|passwd|secret|credentials|(api|access|auth|account|private|secret|subscription)key)",
    re.ASCII,
)
# Header fields with a secret, in lower case (RFC 9110, 11.6.2; RFC 6265, 4.2); `_SECRET` knows `X-Auth-Token` too.
_SECRET_FIELDS = frozenset({"authorization", "cookie"})


def secrets(subject: Subject) -> Iterator[Problem]:
    """A warning for each URL, of the configuration or of the LiveOS, and for each header, that has a secret in it."""
    for what, url in _urls(subject):
        if found := _secret_in(url):
            yield Problem(
                reference="secret-in-url",
                message=f"{what}: the URL {redact(url)} has {found} in it, which looks like a secret: everybody who "
                "can read the image or the layout can read it",
                hint="give nodes a credential, and name it in `query_credential` (what follows the `?`) or "
                "`header_credential`"
                if what != _LIVEOS
                else "serve the LiveOS where nodes need no password",
                severity="warning",
            )
    for artifact in subject.config.artifacts if subject.config else ():
        for name in filter(_is_secret_field, artifact.headers):
            yield Problem(
                reference="secret-in-header",
                message=f"artifact {artifact.name}: the header {name} looks like a secret: everybody who can read the "
                "image or the layout can read it",
                hint="give nodes a credential with that line, and name it in `header_credential`",
                severity="warning",
            )


_LIVEOS = "the boot_url"


def _urls(subject: Subject) -> Iterator[tuple[str, str]]:
    """The URLs, and what each is for; each once."""
    if subject.boot_url:
        yield _LIVEOS, subject.boot_url
    if subject.config:
        yield from dict.fromkeys(_of_config(subject.config))


def _of_config(config: FetchConfig) -> Iterator[tuple[str, str]]:
    for url in filter(None, (config.base_url, config.artifact_url)):
        yield "the base of the artifacts", url
    for artifact in config.artifacts:
        for url in artifact_urls(artifact):
            yield f"artifact {artifact.name}", url
    if config.report.url:
        yield "the report", config.report.url


def _secret_in(url: str) -> str:
    """What in `url` is secret, without its value; empty if nothing is."""
    parts = urlsplit(url)
    if parts.username is not None:
        return "a user name or password"
    names = (name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return next((f"`{name}=`" for name in names if _is_secret(name)), "")


def _is_secret_field(name: str) -> bool:
    return name.lower() in _SECRET_FIELDS or _is_secret(name.lower().removeprefix("x-"))


def _is_secret(name: str) -> bool:
    return bool(_SECRET.fullmatch(re.sub("[-_]", "", name).lower()))
