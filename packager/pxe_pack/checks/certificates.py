"""Checks that the root filesystem has the certificates with which the agent verifies https servers.

Source: the agent, transport/session.py (tls.ca_file, else the first of CA_BUNDLES that exists).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.checks.subject import Subject
from pxe_pack.image import ca_bundles
from pxe_pack.node_urls import requested_urls


def root_certificates(subject: Subject) -> Iterator[Problem]:
    """A warning if the agent fetches something by https without certificates."""
    tree, config = subject.image.tree, subject.config
    urls = requested_urls(config, artifact_url=subject.artifact_url) if config else iter(())
    url = next((url for url in urls if url.startswith("https:")), "")
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
