"""Checks that the root filesystem has the certificates with which the agent verifies https servers.

Source: the agent, transport/session.py (tls.ca_file, else the first of CA_BUNDLES that exists).
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.checks.subject import Subject, requested_urls
from pxe_pack.image import ca_bundles


def root_certificates(subject: Subject) -> Iterator[Problem]:
    """A warning if the agent fetches something by https without certificates."""
    tree, config = subject.image.tree, subject.config
    url = next(_by_https(config, subject.artifact_url), "") if config else ""
    if tree is None or config is None or not url:
        return
    wanted = config.tls.ca_file
    if wanted and any(wanted == one.dest or wanted.startswith(f"{one.dest}/") for one in config.artifacts):
        return  # it is fetched first
    path = wanted or next(iter(ca_bundles.present(tree, CA_BUNDLES, dangling=False)), None)
    if path:
        if not (flaw := ca_bundles.flaw(tree, path)):
            return
        lacks = f"{'tls.ca_file ' if wanted else ''}{path} {flaw}"
    else:
        there = [f"{one} {ca_bundles.flaw(tree, one)}" for one in ca_bundles.present(tree, CA_BUNDLES)]
        lacks = ", ".join(there) or f"none of {', '.join(CA_BUNDLES)} exists"
    yield Problem(
        reference="root-no-certificates",
        message=f"the root filesystem has no CA certificates for {redact(url)}: {lacks}",
        hint="install ca-certificates in the image and run its update program, or set tls.ca_file to a file in it",
        severity="warning",
    )


def _by_https(config: FetchConfig, artifact_url: str) -> Iterator[str]:
    """The URLs that the agent fetches by https."""
    urls = [config.report.url or ""]
    for artifact in config.artifacts:
        urls += [urljoin(config.base_url or "", url) for url in requested_urls(artifact)]
        urls += [artifact_url] if artifact.source else []
    return (url for url in urls if url.startswith("https:"))
