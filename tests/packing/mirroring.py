"""A configuration that is mirrored in a registry, and what its artifacts are."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import yaml

from fakes.chunks import chunk_listing
from fakes.node import FakeNode
from fakes.registry import Registry
from fakes.server import Server

BODY = random.Random(53).randbytes(300_000)
CHUNK = 65_536
DIGEST = hashlib.sha256(BODY).hexdigest()
RETRY = {"attempts_without_progress": 2, "base": "10ms", "max": "20ms"}


class Mirroring:
    """A configuration, the repository that it is mirrored in, and the folder for the new configuration."""

    def __init__(self, folder: Path, place: str, node: FakeNode) -> None:
        self.config, self.output, self.place, self._node = folder / "fetch.yaml", folder / "site", place, node

    def write(self, *artifacts: dict[str, object], **others: object) -> None:
        top = {"version": 1, "allowed_roots": [str(self._node.out)], "defaults": {"retry": RETRY}}
        self.config.write_text(json.dumps({**top, **others, "artifacts": list(artifacts)}))

    @property
    def words(self) -> tuple[str | Path, ...]:
        return ("mirror", self.config, "--registry", self.place, "-o", self.output)

    def artifact(self, name: str, *urls: str | list[str], **others: object) -> dict[str, object]:
        pinned = {"sha256": DIGEST} if not {"sha256_url", "chunks", "sha512", "sha256"} & others.keys() else {}
        return {"name": name, "urls": list(urls), "dest": f"{self._node.out}/{name}"} | pinned | others

    def new(self) -> dict[str, Any]:
        """The new configuration, as another program reads YAML."""
        document = yaml.safe_load((self.output / "fetch.yaml").read_text())
        assert isinstance(document, dict)
        return document

    def run_node(self) -> str:
        """Run the new configuration on a node, which succeeds; what it wrote."""
        config = self._node.write("etc/pxe-fetch/fetch.yaml", (self.output / "fetch.yaml").read_text())
        ran = self._node.run("run", "--config", str(config))
        assert ran.code == 0, ran.err
        return ran.err


def layer(name: str, reference: str, node: FakeNode) -> dict[str, object]:
    return {"name": name, "oci": reference, "title": "m.bin", "dest": f"{node.out}/{name}"}


def folder_of(server: Server) -> str:
    return server.url("").removeprefix("http://").replace(":", "_")


def uploads(registry: Registry, place: str) -> list[str]:
    repository = place.split("/", 3)[3].partition(":")[0]
    return [one for one in registry.requests() if one.startswith(("POST", "PUT")) and f"/v2/{repository}/" in one]


def chunks() -> dict[str, object]:
    return {"size": CHUNK, "sha256": chunk_listing(BODY, size=CHUNK).decode().split()}
