"""Debian's docker-registry on loopback, and how files are put into it by nothing of ours."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import ports
from fakes.certs import Issued
from fakes.process import Process, program, running
from fakes.token_server import ISSUER, SERVICE

USER, PASSWORD = "joe", "s3cret"
_BCRYPT = "$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK"  # of PASSWORD
EMPTY = b"{}"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A running one. `reference` has the scheme only where it is plain http."""

    port: int
    log: Path
    config: Path
    data: Path  # what it stores, for another one to serve
    secure: bool
    process: Process

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def place(self) -> str:
        """The registry as a reference begins with it."""
        return self.host if self.secure else f"http://{self.host}"

    def url(self, path: str) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}{path}"

    def restart(self, **sections: object) -> None:
        """Start it again, with these sections in its configuration: as {"auth": …}."""
        self.config.write_text(json.dumps(json.loads(self.config.read_text()) | sections))
        self.process.start()

    def requests(self) -> Sequence[str]:
        """Method and path of each request that it answered."""
        return [f"{one['http.request.method']} {one['http.request.uri']}" for one in self._answered()]

    def sent(self, path: str) -> int:
        """The bytes that it has sent of `path`."""
        found = [one for one in self._answered() if one["http.response.status"] in {200, 206}]
        asked = [one for one in found if (one["http.request.method"], one["http.request.uri"]) == ("GET", path)]
        return sum(int(one["http.response.written"]) for one in asked)

    def _answered(self) -> Sequence[Mapping[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [one for one in lines if "http.response.status" in one]


def descriptor(
    body: bytes, *, title: str = "", kind: str = "application/octet-stream", **notes: str
) -> dict[str, object]:
    """What a manifest says of `body`."""
    annotations = {"org.opencontainers.image.title": title} if title else {}
    annotations |= {name.replace("_", "-"): value for name, value in notes.items()}
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(body), "annotations": annotations}


def manifest(*layers: Mapping[str, object], **others: object) -> bytes:
    """A manifest of `layers`."""
    config = descriptor(EMPTY, kind="application/vnd.oci.empty.v1+json")
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **others}
    return json.dumps(document).encode()


def digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def put(
    registry: Registry,
    repository: str,
    manifest: bytes,
    *blobs: bytes,
    tag: str = "",
    authorization: str = "",
    context: ssl.SSLContext | None = None,
) -> str:
    """Upload `blobs` and a `manifest` (OCI Distribution Specification, "Push"); the manifest's digest."""
    fields = {"Authorization": authorization} if authorization else {}
    base = registry.url(f"/v2/{repository}")
    for blob in (EMPTY, *blobs):
        begun = _send("POST", f"{base}/blobs/uploads/", b"", fields, context)
        joint = "&" if "?" in begun else "?"
        kind = {**fields, "Content-Type": "application/octet-stream"}
        _send("PUT", f"{begun}{joint}digest={digest(blob)}", blob, kind, context)
    of = {**fields, "Content-Type": json.loads(manifest).get("mediaType", MANIFEST)}
    _send("PUT", f"{base}/manifests/{tag or digest(manifest)}", manifest, of, context)
    return digest(manifest)


def _send(method: str, url: str, body: bytes, fields: Mapping[str, str], context: ssl.SSLContext | None) -> str:
    request = urllib.request.Request(url, data=body, headers=dict(fields), method=method)
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return str(answer.headers["Location"])


@contextlib.contextmanager
def registry(
    folder: Path,
    *,
    htpasswd: bool = False,
    tokens: str = "",
    token_root: Path | None = None,
    certificate: Issued | None = None,
    proxied: str = "",
    data: Path | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
    inside: Sequence[str] = (),
) -> Iterator[Registry]:
    """Run it in `folder`: open to all, with `htpasswd`, or with `tokens` from the server at that URL.

    `token_root` is the authority of the token server's certificate; `proxied` is a registry that this one caches;
    `data` is another one's; `inside` are the words that run a command in the network namespace that has `address`.
    """
    folder.mkdir()
    data = data or folder / "data"
    port = port or ports.free()
    auth: dict[str, object] = {}
    (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
    if htpasswd:
        auth = {"htpasswd": {"realm": "site", "path": str(folder / "htpasswd")}}
    if tokens:
        auth = {"token": {"realm": tokens, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(token_root)}}
    tls = {"tls": {"certificate": str(certificate.certificate), "key": str(certificate.key)}} if certificate else {}
    config = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "http": {"addr": f"{address}:{port}", "secret": "of-the-tests", **tls},
        **({"auth": auth} if auth else {}),
        **({"proxy": {"remoteurl": proxied}} if proxied else {}),
    }
    (folder / "config.yml").write_text(json.dumps(config))
    process = Process(
        command=[*inside, program("docker-registry"), "serve", folder / "config.yml"],
        is_ready=lambda: ports.is_listening(port, inside=inside),
        output=folder / "log",
    )
    with running(process):
        yield Registry(
            port=port,
            log=folder / "log",
            config=folder / "config.yml",
            data=data,
            secure=certificate is not None,
            process=process,
        )
