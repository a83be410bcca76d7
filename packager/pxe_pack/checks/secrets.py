"""Checks for secrets in URLs and headers, which everybody who can read the image or the layout has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl

from pxe_fetch.contract.mirrors import requested
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.checks.subject import Subject
from pxe_pack.layout import kernel_arguments

# What is secret in a query, by the names of its parameters in lower case and without `-` and `_`; `*` is any beginning.
_NAMES = (
    # AWS, "Authenticating Requests: Using Query Parameters": X-Amz-Signature, X-Amz-Security-Token; version 2 and
    # CloudFront: Signature. Google Cloud Storage, "Signed URLs": X-Goog-Signature. Alibaba Cloud: sign, x-oss-signature
    *("*signature", "*token", "sign"),
    # Azure Storage, "Create a service SAS": sig; its whole as one value is often named sas. Azure API Management
    *("sig", "sas", "subscriptionkey"),
    # Google APIs, "Use API keys": key. Many others: api_key, apikey, api-key
    *("key", "*apikey", "*accesskey", "*authkey", "*accountkey", "*privatekey", "*secretkey"),
    # RFC 6750, 2.3: access_token. RFC 6749, 2.3.1: client_secret. GitLab, "Authentication": private_token, job_token
    *("*secret", "*credentials", "auth", "authorization", "bearer", "jwt"),
    # Akamai, "Token authentication": hdnts, hdnea
    *("hdnts", "hdnea", "hmac"),
    *("pass", "passwd", "password", "*password", "*passwd", "pwd", "passphrase"),
)
_SECRET_NAME = re.compile("|".join(name.replace("*", ".*") for name in _NAMES), re.ASCII)
# Names that end like those, and are not secret: of S3's ListObjectsV2, and of pages of results
_HARMLESS = frozenset({"continuationtoken", "nexttoken", "pagetoken", "synctoken", "delimitertoken"})
# Values that are secret under any name: RFC 7519, 3 (JWT); GitHub, "Token formats"; GitLab, "Token prefixes"; Google,
# API keys; Slack, "Token types"; Hugging Face, "User access tokens"
_SECRET_VALUE = re.compile(
    r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]*|(?:gh[oprsu]|github_pat)_\w{20,}|gl(?:pat|dt|rt|cbt)-[\w-]{20,}|AIza[\w-]{35}"
    r"|xox[abeprs]-[\w-]{10,}|hf_\w{20,}",
    re.ASCII,
)
# Header fields with a secret, in lower case (RFC 9110, 11.6.2; RFC 6265, 4.2); `_NAMES` has `X-Auth-Token` too.
_SECRET_FIELDS = frozenset({"authorization", "cookie"})


def secrets(subject: Subject) -> Iterator[Problem]:
    """A warning for each URL, of the configuration or of the LiveOS, and for each header, that has a secret in it."""
    yield from _with_secrets(_urls(subject), where="the image or the layout")
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


def url_secrets(config: FetchConfig, *, where: str) -> Iterator[Problem]:
    """A warning for each URL of `config` that has a secret in it. `where` is what has the configuration."""
    return _with_secrets(dict.fromkeys(_of_config(config)), where=where)


def _with_secrets(urls: Iterable[tuple[str, str]], *, where: str) -> Iterator[Problem]:
    for what, url in urls:
        if found := _secret_in(url):
            yield Problem(
                reference="secret-in-url",
                message=f"{what}: the URL {redact(url)} has {found} in it, which looks like a secret: everybody who "
                f"can read {where} can read it",
                hint="give nodes a credential, and name it in `query_credential` (what follows the `?`) or "
                "`header_credential`"
                if what != _LIVEOS
                else "serve the LiveOS where nodes need no password",
                severity="warning",
            )


def _urls(subject: Subject) -> Iterator[tuple[str, str]]:
    """The URLs, and what each is for; each once."""
    if subject.boot_url:
        yield _LIVEOS, subject.boot_url
    if subject.config:
        yield from dict.fromkeys(_of_config(subject.config))
    for entry in subject.menu.entries:
        for url in entry.agent_values(kernel_arguments.CONFIG):
            yield "the configuration for nodes", url


def _of_config(config: FetchConfig) -> Iterator[tuple[str, str]]:
    for url in filter(None, (config.base_url, config.artifact_url)):
        yield "the base of the artifacts", url
    for artifact in config.artifacts:
        for url in requested(artifact, base=config.base_url).urls:
            yield f"artifact {artifact.name}", url
    if config.report.url:
        yield "the report", config.report.url


def _secret_in(url: str) -> str:
    """What in `url` is secret, without its value; empty if nothing is."""
    authority = url.partition("://")[2].partition("/")[0] if "://" in url else ""
    if "@" in authority:
        return "a user name or password"
    pairs = parse_qsl(url.partition("#")[0].partition("?")[2], keep_blank_values=True)
    return next(
        (f"`{name}=`" for name, value in pairs if value and (_is_secret(name) or _SECRET_VALUE.fullmatch(value))), ""
    )


def _is_secret_field(name: str) -> bool:
    return name.lower() in _SECRET_FIELDS or _is_secret(name.lower().removeprefix("x-"))


def _is_secret(name: str) -> bool:
    plain = re.sub("[-_]", "", name).lower()
    return plain not in _HARMLESS and bool(_SECRET_NAME.fullmatch(plain))
