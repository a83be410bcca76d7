"""Checks where the digests of artifacts come from."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import scheme_of
from pxe_fetch.contract.validators import joined
from pxe_pack.checks.subject import Subject

_PROTECTED = ("https", "file")


def unprotected(config: FetchConfig) -> list[str]:
    """The names of the artifacts whose digest anybody on the network can replace, with the artifact."""
    listed = {one.name: one.digest_url for one in config.artifacts if one.digest_url and not one.chunks}
    return [name for name, url in listed.items() if scheme_of(joined((url,), config.base_url)[0]) not in _PROTECTED]


def digests(subject: Subject) -> Iterator[Problem]:
    """A problem if digests come unprotected: a warning where the site protects what comes before them."""
    names = unprotected(subject.config) if subject.config else []
    if names:
        signs = bool(subject.trust) or bool(subject.layout and "secure_boot" in subject.layout.facts)
        yield Problem(
            reference="digest-unprotected",
            message=f"the `sha256_url` of {', '.join(names)} is not by https, so an attacker on the network can "
            "replace the digest together with the artifact",
            hint="give the digest itself (`pxe-pack lock` writes it down), or a `sha256_url` by https",
            severity="warning" if signs else "note",
        )
