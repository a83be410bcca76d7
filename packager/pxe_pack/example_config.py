"""The fetch.yaml that `pxe-pack init` writes: every key with an example and its meaning, from the declarations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pxe_fetch.contract.keys import FieldKey, Group
from pxe_fetch.contract.model import (
    DIGESTS,
    ORIGINS,
    PINNED_BY,
    Artifact,
    FetchConfig,
    Proxy,
    Report,
    RetryPolicy,
    Tls,
    When,
)
from pxe_pack.config import SECTIONS, Pack, SecureBoot
from pxe_pack.reference import default_of

_HEAD = """\
# What pxe-pack packs into an image, and what each node fetches when it boots. docs/fetch-yaml.md explains every key.
#
#   pxe-fetch check fetch.yaml                       check this file
#   pxe-pack --agent-config fetch.yaml --dry-run     print the plan
#   pxe-pack --agent-config fetch.yaml               pack
#
# A line that begins with `#` shows a default or an example: remove the `#` to change it.
version: 1

# For `pxe-pack`, on this machine; never sent to nodes. Each key is also a flag (`--image`, …); flags take precedence.
pack:
"""
_ARTIFACTS = """
# The rest is for the nodes.
artifacts:
  # A local file. pxe-pack hashes it and exports it with the layout; nodes fetch and verify it.
"""
_BY_URL = """
  # A file on a server, with its digest (or run `pxe-pack lock`, which downloads it and writes fetch.lock).
"""
_ARCHIVE = """
  # An archive, unpacked into a folder, which is replaced as a whole.
"""
_SHA256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
# Values for the keys whose defaults would show nothing, by the class that declares them.
_EXAMPLES: dict[type, dict[str, str]] = {
    Artifact: {
        "name": "model",
        "url": "http://mirror.lan/models/${arch}/model.bin",
        "urls": "[http://a/m.bin, https://b/m.bin]",
        "oci": "registry.lan/site/model:v1",
        "title": "model.bin",
        "source": "files/model.bin",
        "sha256": _SHA256,
        "tiers": "{http://a/: [http://b/]}",
        "sha256_url": "http://mirror.lan/models/SHA256SUMS",
        "size": "1GiB",
        "chunks": "{size: 8MiB}",
        "dest": "/srv/models/model.bin",
        "mode": '"0640"',
        "owner": "root",
        "group": "app",
        "required": "false",
        "headers": "{X-Site: lab}",
        "header_credential": "pxe-fetch.token",
        "query_credential": "pxe-fetch.sas",
        "registry_credential": "pxe-fetch.registry",
        "insecure": "true",
        "start": "[app.service]",
        "start_required": "true",
    },
    FetchConfig: {
        "min_agent": "0.1",
        "serial": "42",
        "expires": "2030-12-31",
        "base_url": "http://10.0.0.1/",
        "live_space": "60%",
    },
    Report: {
        "url": "https://10.0.0.1/report",
        "header_credential": "pxe-fetch.token",
        "query_credential": "pxe-fetch.sas",
        "insecure": "true",
    },
    RetryPolicy: {
        "deadline": "2h",
    },
    When: {
        "mac": '["52:54:*"]',
        "arch": "x86_64",
        "cmdline": "{role: gpu}",
    },
    Tls: {
        "ca_file": "/etc/pki/site.pem",
        "client_cert": "/etc/pki/node.pem",
        "client_key": "/etc/pki/node.key",
    },
    Proxy: {
        "http": "http://cache.lan:3128",
        "https": "http://cache.lan:3128",
        "no_proxy": "[10.0.0.0/8, .lan]",
        "credential": "pxe-fetch.proxy",
    },
    Pack: {
        "image": "liveos.iso",
        "output": "pxe/",
        "boot_url": "http://10.0.0.1/liveos.iso",
        "artifact_url": "http://10.0.0.1/other-user-artifacts/",
        "boot_loader": "boot-loader/",
        "compressor": "zstd",
        "level": "1",
        "node_memory": "4GiB",
        "leave_out": "[docs/*]",
        "trust": "[site.pub, next.pub]",
        "report": "auto",
    },
    SecureBoot: {
        "key": "db.key",
        "cert": "db.pem",
        "passphrase": "db.pass",
    },
}
_COLUMN = 42  # where comments begin
_FILLED_IN = ("image", "output", "boot_url")  # keys of `pack` that everyone needs
_GREETING = {"name": "greeting", "source": "files/greeting.txt", "dest": "/srv/greeting.txt"}
_PACKAGES = {
    "name": "packages",
    "url": "http://mirror.lan/packages.tar.zst",
    "sha256": _SHA256,
    "dest": "/srv/packages",
    "extract": "tar",
}


def example(name: str, declared: FieldKey) -> str:
    """A value for the key `name` as YAML on one line: an example, else its default; empty if it has neither."""
    return _EXAMPLES.get(declared.owner, {}).get(name) or default_of(declared)


def text() -> str:
    """The content of the file."""
    pack = SECTIONS["pack"].keys
    artifact, defaults = SECTIONS["artifacts"].keys, SECTIONS["defaults"].keys
    for_all = [key for key, one in defaults.items() if isinstance(one.key.kind, Group) or one.owner is FetchConfig]
    rest = [key for key in SECTIONS[""].keys if key not in {"version", "pack", "artifacts", "defaults"}]
    parts = [
        _HEAD,
        *_lines("pack", _FILLED_IN, margin="  "),
        *_lines("pack", [key for key in pack if key not in _FILLED_IN], margin="  # "),
        _ARTIFACTS,
        *_artifact(_GREETING, margin="  "),
        _BY_URL,
        *_artifact({key: example(key, one) for key, one in artifact.items() if key not in for_all}, margin="  # "),
        _ARCHIVE,
        *_artifact(_PACKAGES, margin="  # "),
        "\n",
        *_key("defaults", SECTIONS[""].keys["defaults"], value="", margin="# "),
        *_lines("defaults", sorted(for_all, key=lambda key: isinstance(defaults[key].key.kind, Group)), margin="#   "),
        "\n",
        *_lines("", rest, margin="# "),
    ]
    return "".join(parts)


def _artifact(given: Mapping[str, str], *, margin: str) -> Iterator[str]:
    """An artifact with these keys and values. If keys exclude each other, all but the first are commented out."""
    lead = f"{margin}- "
    origins = [key for key in given if key in ORIGINS]
    for key, value in given.items():
        excluded = key in {*origins[1:], "title", *DIGESTS[1:]} or (key in PINNED_BY and key not in origins)
        yield from _key(key, SECTIONS["artifacts"].keys[key], value=value, margin=lead + "# " * excluded)
        lead = f"{margin}  "


def _lines(section: str, keys: Iterable[str], *, margin: str) -> Iterator[str]:
    for key in keys:
        declared = SECTIONS[section].keys[key]
        yield from _key(key, declared, value=example(key, declared), margin=margin)


def _key(key: str, declared: FieldKey, *, value: str, margin: str) -> Iterator[str]:
    """The lines for a key and the keys below it; none if it has neither a value nor keys below."""
    below = declared.key.kind.section if isinstance(declared.key.kind, Group) and not value else ""
    if value or below:
        line = f"{margin}{key}: {value}".rstrip()
        yield f"{line.ljust(_COLUMN - 2)}  # {declared.key.meaning}\n"
    if below and below != "defaults":
        yield from _lines(below, SECTIONS[below].keys, margin=f"{margin}  ")
