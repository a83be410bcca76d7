"""Whether a tree has certificates of authorities where its programs look for them.

Sources: the agent, contract/paths.py (CA_BUNDLES); dracut, 45url-lib/module-setup.sh (it installs the files whose names
it finds in libcurl and libcrypto: /etc/ssl/certs/ca-bundle.crt is a link of Fedora's).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable

from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_pack.image.tree import RootTree

OF_CURL = (*CA_BUNDLES, "/etc/ssl/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")

_CERTIFICATE = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")  # PEM_read_bio_X509_AUX(3)


def is_ca_bundle(path: str) -> bool:
    """Whether the file `path` is one that `flaw` usually reads."""
    return f"/{path}" in OF_CURL


def flaw(tree: RootTree, path: str) -> str:
    """What is wrong with the bundle at `path`, such as "is empty"; empty if it has certificates.

    Raises the errors of `tree`.
    """
    name = path.lstrip("/")
    real = tree.resolve(name)
    inode = tree.stat([real]).get(real)
    if inode is None:
        return f"is a link to {real}, which does not exist" if real != name else "does not exist"
    if not stat.S_ISREG(inode.mode):
        return "is not a file"
    if inode.size == "0":
        return "is empty"
    return "" if _CERTIFICATE.search(tree.cat(real)) else "has no certificates"


def present(tree: RootTree, paths: Iterable[str], *, dangling: bool = True) -> list[str]:
    """Those of `paths` that exist; with `dangling`, also links to nothing. Raises the errors of `tree`."""
    found = []
    for path in paths:
        folder, _, base = path.lstrip("/").rpartition("/")
        name = f"{tree.resolve(folder)}/{base}" if dangling else tree.resolve(path)
        if tree.stat([name]).get(name):
            found.append(path)
    return found
