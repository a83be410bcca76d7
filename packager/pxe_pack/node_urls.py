"""What a node contacts, by its configuration: the URLs it requests, and the hosts it connects to for them."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.mirrors import moved, requested
from pxe_fetch.contract.model import Artifact, FetchConfig
from pxe_fetch.contract.registry import written
from pxe_fetch.contract.url import Url, UrlError, is_absolute, parse, redact
from pxe_fetch.contract.validators import joined


def requested_urls(config: FetchConfig, *, artifact_url: str) -> Iterator[str]:
    """The absolute URLs that a node with `config` requests; `artifact_url` is the base of what the layout exports.

    If a relocation has changed that base, URLs below the one in `config` are what a node makes of them.
    """
    packed = config.artifact_url
    for artifact in config.artifacts:
        known = moved(artifact, below=packed, to=artifact_url) if packed and artifact_url else artifact
        yield from joined(requested(known, base=config.base_url).urls, config.base_url)
        if artifact.source and artifact_url:
            yield artifact_url
    if config.report.url:
        yield config.report.url


def contacted_hosts(config: FetchConfig, *, artifact_url: str) -> list[str]:
    """The hosts to which a node with `config` connects, each once: names and addresses, in lower case.

    A proxy stands for the servers behind it, unless it has a fallback. Hosts that depend on the node are left out.
    """
    hosts: dict[str, None] = {}
    for text in requested_urls(config, artifact_url=artifact_url):
        url = _known(text)
        proxy = config.proxy.of(url) if url else None
        hosts[host_of(proxy or text)] = None
        if proxy and config.proxy.fallback == "direct":
            hosts[host_of(text)] = None
    return [host for host in hosts if host]


def host_of(text: str) -> str:
    """The host in the URL `text`, in lower case; empty if it has none, is no URL, or depends on the node."""
    url = _known(text)
    return url.host if url else ""


def _known(text: str) -> Url | None:
    """The URL in `text`; None if it has no valid host, or one that depends on the node."""
    try:
        return parse(text) if is_absolute(text) and "${" not in "".join(text.split("/")[2:3]) else None
    except UrlError:
        return None


def shown_urls(artifact: Artifact) -> list[str]:
    """Where an artifact comes from, for people: its URLs without what may be secret, or references of registries."""
    urls = map(redact, artifact.urls)
    return [*(urls if artifact.title is None else map(written, urls))]
