"""`manifest.json`: what it says, and the checks of one that may come from anybody.

A layout is copied between machines and edited by hand, so its manifest is input from outside. Everything that is later
used as a path, as a URL or in a server's configuration is checked here, and nowhere else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from pxe_fetch.contract import validators
from pxe_fetch.contract.paths import parents
from pxe_fetch.contract.problem import HIDDEN, RuleError
from pxe_fetch.contract.url import UrlError, parse
from pxe_pack.layout.pinned import parse_pinned, serial_in

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
FOLDER = "other-user-artifacts"  # of the artifacts; Image Customizer's name for files that are served beside the ISO

MAX_SIZE = 16 << 20  # bytes
MAX_FILES = 50_000
_MAX_BRACKETS = 8 * MAX_FILES  # lists and objects (and brackets in names), since an empty one takes 20 times its size
_MAX_DEPTH = 32  # nested lists and objects; ours has 4
_MAX_FILE_SIZE = 1 << 60  # bytes
SCHEMES = ("http", "https", "ftp", "tftp", "nfs")  # of a URL in a layout; dracut's url-lib fetches the ISO by these
_URL = re.compile(r"[A-Za-z0-9!$&()*+,/:;=?@\[\]{}._~%#-]+")
_HOST = re.compile(r"[a-z0-9._~-]+|[0-9a-f:.]+(?:%[a-z0-9._~-]+)?")  # a name, or an IPv6 address
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # they end a line, or change a terminal
_MAX_PATH, _MAX_NAME = 4095, 255  # bytes; Linux, PATH_MAX and NAME_MAX in include/uapi/linux/limits.h


class Kind(StrEnum):
    """What a file of a layout is."""

    BOOT = "boot"  # boot loaders, kernels, initrds and their configuration; for TFTP
    ISO = "iso"  # what `root=live:` names
    ARTIFACT = "artifact"  # exported from `source:`, or its list of chunk digests
    ADDITIONAL = "additional"  # a file of the image's medium that has no part in the boot


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutFile:
    """A file of a layout."""

    size: int  # bytes
    sha256: str  # hexadecimal
    kind: Kind
    url: str | None  # where HTTP serves it; None if it does not


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of a manifest."""

    files: Mapping[str, LayoutFile]  # by path
    facts: Mapping[str, object]  # everything but the list of files: JSON values


class ManifestError(ValueError):
    """The manifest is refused; the message follows its name."""


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in `data`, at most MAX_SIZE bytes. Raises ManifestError."""
    if data.count(b"[") + data.count(b"{") > _MAX_BRACKETS:
        raise ManifestError("has too many lists and objects")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ManifestError("is nested too deeply") from None
    except ManifestError:
        raise
    except ValueError as error:
        raise ManifestError(f"is not JSON in UTF-8: {error}") from error
    _check_values(document)
    if not isinstance(document, dict):
        raise ManifestError("is not a JSON object")
    facts = {key: value for key, value in document.items() if key != "outputs"}
    _check_facts(facts)
    return Manifest(files=dict(_files(document)), facts=facts)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ManifestError("has an object with the same key twice")
    return found


def _refuse_constant(name: str) -> object:
    raise ManifestError(f"contains {name}, which is not JSON")


def _check_values(document: object) -> None:
    """Check depth, texts and numbers of everything in `document`, without recursion. Raises ManifestError."""
    level = [document]
    for _ in range(_MAX_DEPTH):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                _check_text(value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise ManifestError("contains a number that is too large")
        if not below:
            return
        level = below
    raise ManifestError("is nested too deeply")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ManifestError("contains text that is not Unicode") from None


def _check_facts(facts: Mapping[str, object]) -> None:
    """Check the values that are used later. Raises ManifestError."""
    texts = {"pxe_pack": facts.get("pxe_pack"), "image.machine": _section(facts, "image").get("machine")}
    urls = {key: facts.get(key) for key in ("boot_url", "artifact_url")}
    urls["inject.artifact_url"] = _section(facts, "inject").get("artifact_url")
    for name, value in {**texts, **urls}.items():
        if value is not None and not isinstance(value, str):
            raise ManifestError(f"has a value of {name} that is not text")
        if value and name in urls and (reason := url_problem(value)):
            raise ManifestError(f"has a value of {name} that {reason}")
    if facts.get("pinned") is not None:
        try:
            parse_pinned(facts["pinned"])
        except ValueError as error:
            raise ManifestError(f"has a value of pinned that {error}") from None
    try:
        serial_in(facts)
    except ValueError as error:
        raise ManifestError(str(error)) from None


def _section(facts: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = facts.get(key)
    if value is not None and not isinstance(value, dict):
        raise ManifestError(f"has a value of {key} that is not an object")
    return value or {}


def _files(document: Mapping[str, object]) -> Iterator[tuple[str, LayoutFile]]:
    """Each file that `document` lists, with its path. Raises ManifestError."""
    outputs = document.get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(entry, dict) for entry in outputs):
        raise ManifestError("has no list of outputs")
    if len(outputs) > MAX_FILES:
        raise ManifestError(f"lists more than {MAX_FILES:,} files")
    paths = [_path(entry, number) for number, entry in enumerate(outputs)]
    folders = {parent for path in paths for parent in parents(path)}
    seen = {MANIFEST, SUMS}
    for number, (path, entry) in enumerate(zip(paths, outputs, strict=True)):
        if path in seen:
            raise ManifestError(f"lists {path!r} twice, or itself")
        if path in folders:
            raise ManifestError(f"lists {path!r} as a file and as a folder")
        seen.add(path)
        yield path, _file(path, entry, number=number, is_ours="pxe_pack" in document)


def _path(entry: Mapping[str, object], number: int) -> str:
    path = entry.get("path")
    if not isinstance(path, str):
        raise ManifestError(f"has an entry without a path: outputs[{number}]")
    if reason := path_problem(path):
        raise ManifestError(f"lists {path[:100]!a}, which {reason}")
    return path


def _file(path: str, entry: Mapping[str, object], *, number: int, is_ours: bool) -> LayoutFile:
    size, sha256, url, kind = (entry.get(key) for key in ("size", "sha256", "url", "kind"))
    where = f"outputs[{number}]"
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_FILE_SIZE:
        raise ManifestError(f"has no valid size in {where}")
    if sha256 is not None or is_ours:
        try:
            sha256 = validators.DigestOf("sha256", 64)(sha256 if isinstance(sha256, str) else "")
        except RuleError:
            raise ManifestError(f"has no valid sha256 in {where}") from None
    if url is not None and not isinstance(url, str):
        raise ManifestError(f"has a url in {where} that is not text")
    if url is not None and (reason := url_problem(url)):
        raise ManifestError(f"has a url in {where} that {reason}")
    kind = next((one for one in Kind if one == kind), None) if kind is not None else _kind(path, url)
    if kind is None:
        raise ManifestError(f"has an unknown kind in {where}")
    return LayoutFile(size=size, sha256=str(sha256 or ""), kind=kind, url=url)


def _kind(path: str, url: str | None) -> Kind:
    """The kind of a file in a manifest that does not state it, as older ones."""
    if path.startswith(f"{FOLDER}/"):
        return Kind.ARTIFACT
    return Kind.ISO if url else Kind.BOOT


def path_problem(path: str) -> str | None:
    """Why `path` cannot be a file of a layout, as the end of a sentence; None if it can.

    Paths end up in checksums, URLs and the configuration of servers, so they are relative, in UTF-8, and on one line.
    """
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    parts = path.split("/")
    if _CONTROL.search(path):
        return "contains a control character"
    if HIDDEN.search(path):
        return "contains an invisible character"
    if path.startswith("/") or {"", ".", ".."} & {*parts}:
        return "is not a relative path without `.` and `..`"
    if len(encoded) > _MAX_PATH or max(len(part.encode()) for part in parts) > _MAX_NAME:
        return "is longer than a path may be"
    return None


def url_problem(url: str) -> str | None:
    """Why `url` cannot be the URL of a file or a folder of a layout, as the end of a sentence; None if it can.

    It ends up in GRUB's configuration and in those of servers: no user, query or fragment, and nothing but what RFC
    3986 has in a URL, without quotes, and GRUB's `${variable}`.
    """
    try:
        parsed = parse(url)
    except UrlError as error:
        return str(error)
    if parsed.scheme not in SCHEMES:
        return f"has the scheme `{parsed.scheme}`, not one of {', '.join(SCHEMES)}"
    if not _URL.fullmatch(url) or not _HOST.fullmatch(parsed.host) or _CONTROL.search(unquote(url)):
        return "contains a character that must be percent-encoded, or that a URL cannot have"
    if parsed.userinfo is not None:
        return "contains a user name or password"
    if parsed.query is not None or parsed.fragment is not None:
        return "has a query or a fragment"
    return None
