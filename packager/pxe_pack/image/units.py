"""The units of a root filesystem: which are installed, and which others start.

Sources: systemd.unit(5), "Unit File Load Path"; systemd.special(7); systemd-sysv-generator(8).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from pxe_pack.image.tree import Inode, RootTree

ENABLED_FOLDERS = ("etc/systemd/system", "usr/lib/systemd/system")
# where systemd looks for unit files; links such as /lib -> /usr/lib are followed
FOLDERS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_INIT_SCRIPTS = "etc/init.d"  # systemd-sysv-generator makes NAME.service of each
# podman-systemd.unit(5): services are made of the files there
QUADLETS = ("etc/containers/systemd", "usr/share/containers/systemd")
_MADE_BY_SYSTEMD = (".device", ".scope", ".slice")  # they exist without a unit file


def enabled(tree: RootTree) -> frozenset[str]:
    """The names of the units that other units want or require."""
    found = [
        inode.path
        for folder in ENABLED_FOLDERS
        for inode in _inside(tree, folder)
        if inode.path.endswith((".wants", ".requires"))
    ]
    return frozenset(inode.path.rsplit("/", 1)[-1] for folder in found for inode in tree.inside(folder))


def names(tree: RootTree, folder: str) -> frozenset[str]:
    """The names in the directory `folder`, whose path may have links in it."""
    return frozenset(inode.path.rsplit("/", 1)[-1] for inode in _inside(tree, folder))


def installed(tree: RootTree) -> frozenset[str]:
    """The names of all unit files, templates as `name@.service`, and of the services that systemd makes of scripts."""
    files = {name for folder in FOLDERS for name in names(tree, folder)}
    scripts = {f"{name}.service" for name in names(tree, _INIT_SCRIPTS)}
    return frozenset(files | scripts | {quadlet_service(name) for folder in QUADLETS for name in names(tree, folder)})


def quadlet_service(name: str) -> str:
    """The service that podman makes of the file `name`: app.service of app.container, app-pod.service of app.pod."""
    stem, _, kind = name.rpartition(".")
    return f"{stem}.service" if kind in ("container", "kube") else f"{stem}-{kind}.service"


def template_of(unit: str) -> str:
    """The template of an instance, `app@.service` of `app@one.service`; other units are their own."""
    return re.sub(r"@.*(\.[a-z]+)$", r"@\1", unit)


def is_among(unit: str, installed: Container[str]) -> bool:
    """Whether systemd finds `unit`: by its own name, by its template's, or without a file."""
    return unit.endswith(_MADE_BY_SYSTEMD) or unit in installed or template_of(unit) in installed


def _inside(tree: RootTree, folder: str) -> Iterable[Inode]:
    return tree.inside(tree.resolve(folder))
