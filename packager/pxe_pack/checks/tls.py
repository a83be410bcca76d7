"""Checks that the files that `tls` names are in the image."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.tree import regular_file

_AT_BOOT = ("/run/",)  # made on the node: credentials, for one


def tls_files(subject: Subject) -> Iterator[Problem]:
    """A warning for each file that is neither in the image nor made at boot."""
    tree, config = subject.image.tree, subject.config
    if tree is None or config is None:
        return
    tls = config.tls
    for key, path in (("ca_file", tls.ca_file), ("client_cert", tls.client_cert), ("client_key", tls.client_key)):
        if path and not path.startswith(_AT_BOOT) and regular_file(tree, path) is None:
            yield Problem(
                reference="tls-file-missing",
                message=f"tls.{key} is {path}, which is not in the image, so nodes could not use https",
                hint="add the file to the image, or pass it as a credential (examples/site-tls)",
                severity="warning",
            )
