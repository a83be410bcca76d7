"""Folders that are artifacts: made, read back, and fetched from a layout by a node."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from fakes.node import FakeNode, Ran
from packing.site import Site, files_of
from pxe_fetch.contract import reader
from pxe_fetch.contract.model import Artifact

EXPORTED = "other-user-artifacts"
CONFIG = "updates/etc/pxe-fetch/fetch.yaml"  # the configuration on an ISO


def artifact(name: str = "app", path: str = "app/", /, **others: object) -> dict[str, object]:
    """An artifact of the folder `path`, which goes to /srv/NAME unless `others` say otherwise."""
    return {"name": name, "source": path, "dest": f"/srv/{name}"} | others


def make(folder: Path, content: Mapping[str, str | bytes | None]) -> Path:
    """Make `folder`: a path that ends in `/` is a folder, `-> target` as content a link, and None no file at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif isinstance(text, str) and text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        elif text is not None:
            path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def tree(folder: Path) -> dict[str, tuple[str, str]]:
    """Path -> mode, and the content's digest or the link's target, of all that is below `folder`."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            facts = ("link", str(path.readlink()))
        elif stat.S_ISDIR(mode):
            facts = (f"folder {stat.S_IMODE(mode):04o}", "")
        else:
            facts = (f"file {stat.S_IMODE(mode):04o}", hashlib.sha256(path.read_bytes()).hexdigest())
        found[path.relative_to(folder).as_posix()] = facts
    return found


def told(site: Site) -> list[Artifact]:
    """The artifacts as a node of the layout reads them."""
    return list(reader.read(files_of(site.iso)[CONFIG].decode(), name="fetch.yaml").artifacts)


def fetch(site: Site, node: FakeNode) -> Ran:
    """Have `node` fetch by the configuration in the layout's image, with the layout's own kernel arguments."""
    node.folder.mkdir(parents=True, exist_ok=True)
    cfg = (site.output / "boot/grub2/grub.cfg").read_text()
    node.boot_with(" ".join(re.findall(r"pxe-fetch\S+", cfg)))
    config = node.folder / "fetch.yaml"
    config.write_bytes(files_of(site.iso)[CONFIG])
    return node.run("run", "--config", str(config))
