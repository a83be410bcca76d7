"""Checks that nodes can tell what relative URLs are relative to."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.mirrors import requested
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import is_absolute, redact
from pxe_fetch.contract.validators import joined
from pxe_pack.checks.subject import Subject
from pxe_pack.layout.kernel_arguments import BASE_URL


def relative_urls(subject: Subject) -> Iterator[Problem]:
    """A problem if URLs are relative, and neither the configuration nor the kernel arguments have a base_url."""
    config = subject.config or FetchConfig()
    for artifact in config.artifacts:
        urls = joined(requested(artifact, base=config.base_url).urls, config.base_url)
        # One that begins with a fact may be absolute on the node.
        if relative := [url for url in urls if not is_absolute(url) and not url.startswith("${")]:
            yield Problem(
                reference="url-relative",
                message=f"artifact {artifact.name}: {redact(relative[0])} is relative, and there is no base_url",
                hint=f"give defaults.base_url, or the kernel argument {BASE_URL}=URL "
                "(`pxe-pack relocate DIR --base-url URL` adds it)",
                severity="warning",
            )
