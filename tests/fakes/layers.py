"""A file in a registry, for tests of the agent: its manifests, and what a server of ours answers for them."""

from __future__ import annotations

import random
from base64 import b64encode
from typing import Any

from fakes import registry as fake
from fakes.chunks import chunk_listing
from fakes.exchange import Fault
from fakes.node import Entry, FakeNode
from fakes.registry import PASSWORD, USER, Registry
from fakes.server import Script, Server

BODY = random.Random(50).randbytes(400_000)
CHUNK = 64 * 1024
LOGIN = f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
CREDENTIAL, IDENTITY = "pxe-fetch.registry", "an.identity"
CHUNK_SIZE = "io.pxe-pack.chunk-size"

LOGS_IN: dict[str, Any] = {"registry_credential": CREDENTIAL, "insecure": True}


def chunk_list(body: bytes, *, title: str, size: int) -> dict[str, object]:
    """What a manifest says of that list, for the layer with this title."""
    described = fake.descriptor(chunk_listing(body, size=size), title=f"{title}.chunks")
    annotations = {"org.opencontainers.image.title": f"{title}.chunks", CHUNK_SIZE: str(size)}
    return {**described, "annotations": annotations}


CHUNKS = chunk_listing(BODY, size=CHUNK)
LAYER = fake.descriptor(BODY, title="m.bin")
LIST = fake.descriptor(CHUNKS, title="m.bin.chunks")
PLAIN = fake.manifest(LAYER)
CHUNKED = fake.manifest(LAYER, chunk_list(BODY, title="m.bin", size=CHUNK))


def entry(node: FakeNode, *references: str | list[str], name: str = "m", **others: object) -> Entry:
    """An artifact that is a layer of the manifest that `references` name."""
    return {"name": name, "oci": list(references), "title": "m.bin", "dest": str(node.out / name)} | others


def reference(registry: Registry, manifest: bytes = PLAIN) -> str:
    return f"{registry.place}/site/model@{fake.digest(manifest)}"


def placed(node: FakeNode, name: str = "m") -> bytes:
    return (node.out / name).read_bytes()


def scripts(manifest: bytes, body: bytes, *, faults: list[Fault] | None = None) -> dict[str, Script]:
    """What a registry has for an artifact; `faults` happen to the blob."""
    manifests = f"/v2/site/model/manifests/{fake.digest(manifest)}"
    blobs = f"/v2/site/model/blobs/{fake.digest(body)}"
    return {manifests: Script(body=manifest), blobs: Script(body=body, faults=faults or [])}


def at(server: Server, manifest: bytes) -> str:
    return f"{server.url('')}/site/model@{fake.digest(manifest)}"
