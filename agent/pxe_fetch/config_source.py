"""Which configuration a run uses: the kernel command line's, else a credential, else /etc's, else /usr/lib's."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pxe_fetch import regular_file
from pxe_fetch.contract import paths
from pxe_fetch.contract.facts import PREFIX
from pxe_fetch.contract.model import Digest
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.url import UrlError, parse, redact, scheme_of
from pxe_fetch.errors import IntegrityError, PolicyError
from pxe_fetch.node import Node

MAX_SIZE = 1024 * 1024  # bytes of a configuration

# URL, pinned digest if there is one, MAX_SIZE -> body, retried as an artifact is. Raises FetchError; IntegrityError if
# the body does not have the digest.
ReadUrl = Callable[[str, Digest | None, int], bytes]


class LocatedConfig(NamedTuple):
    """The configuration that this run uses."""

    source: str  # file (--config), cmdline, credential, etc, usr
    location: str  # path or redacted URL; error messages name it so
    sha256: str
    text: str
    reason: str  # one line: which one is used, and why not the others


def locate(node: Node, *, read_url: ReadUrl, config_file: Path | None) -> LocatedConfig | None:
    """Read the configuration of `node`; None if there is none. `config_file` (--config) comes before all others.

    Raises PolicyError if it is not pinned or its digest is wrong, FetchError if its URL cannot be read, ProblemError if
    its file cannot.
    """
    if config_file:
        return _located("file", str(config_file), read_file(config_file), reason=f"{config_file} (--config)")
    etc, usr = (node.root / path.lstrip("/") for path in (paths.CONFIG_ETC, paths.CONFIG_USR))
    places = (
        ("credential", f"credential {paths.CREDENTIAL}", node.credentials and node.credentials / paths.CREDENTIAL),
        ("etc", paths.CONFIG_ETC, etc),
        ("usr", paths.CONFIG_USR, usr),
    )
    # Not Path.exists: a file that cannot be read, or a dangling link, is an error and not "no configuration".
    found = [(source, label, path) for source, label, path in places if path and os.path.lexists(path)]
    arguments = node.arguments
    if arguments.config:
        body = _read_pinned(arguments.config, arguments.config_sha256, read_url=read_url)
        url = redact(arguments.config)
        ignored = ", ".join(f"{label} is ignored" for _, label, _ in found)
        reason = f"{url} (kernel command line){ignored and f': {ignored}'}"
        return _located("cmdline", url, body, reason=reason)
    if not found:
        return None
    source, used, path = found[0]
    labels = [label for _, label, _ in places]
    notes = [f"no {PREFIX}.config on the kernel command line", *(f"no {one}" for one in labels[: labels.index(used)])]
    notes += [f"{label} is ignored" for _, label, _ in found[1:]]
    return _located(source, str(path), read_file(path), reason=f"{path} ({source}): {', '.join(notes)}")


def read_file(path: Path) -> bytes:
    """The content of a configuration file. Raises ProblemError if it is unreadable or larger than MAX_SIZE."""
    try:
        return regular_file.read(path, limit=MAX_SIZE)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reference = "config-too-large" if getattr(error, "errno", None) == errno.EFBIG else "config-unreadable"
        message = f"{path} cannot be read: {getattr(error, 'strerror', error)}"
        raise ProblemError(Problem(reference=reference, message=message)) from None


def decode(body: bytes, *, name: str) -> str:
    """`body` as text. Raises ProblemError if it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ProblemError(Problem(reference="config-unreadable", message=f"{name} is not UTF-8 text")) from None


def _read_pinned(url: str, sha256: str | None, *, read_url: ReadUrl) -> bytes:
    """The configuration at `url`; without a digest only by https or from a file, where nobody can replace it."""
    scheme = scheme_of(url)
    if scheme not in {"https", "file"} and not sha256:
        raise PolicyError(
            f"{PREFIX}.config={redact(url)} uses {scheme or 'no scheme'} and has no digest, so anybody on the "
            f"network could replace it; add {PREFIX}.config.sha256=HEX to the kernel arguments, or use https"
        )
    if scheme != "file":
        try:
            return read_url(url, Digest(algorithm="sha256", hex=sha256) if sha256 else None, MAX_SIZE)
        except IntegrityError as error:
            raise _wrong_digest(url, expected=error.expected, found=error.found) from error
    try:
        body = read_file(Path(os.fsdecode(parse(url).path_bytes)))
    except UrlError as error:
        raise PolicyError(f"{PREFIX}.config={redact(url)} {error}") from None
    found = hashlib.sha256(body).hexdigest()
    if sha256 and found != sha256:
        raise _wrong_digest(url, expected=sha256, found=found)
    return body


def _wrong_digest(url: str, *, expected: str, found: str) -> PolicyError:
    return PolicyError(
        f"the configuration from {redact(url)} does not match {PREFIX}.config.sha256: expected "
        f"{expected.removeprefix('sha256:')}, found {found.removeprefix('sha256:')}; nothing is fetched"
    )


def _located(source: str, location: str, body: bytes, *, reason: str) -> LocatedConfig:
    text = decode(body, name=location)
    sha256 = hashlib.sha256(body).hexdigest()
    return LocatedConfig(source=source, location=location, sha256=sha256, text=text, reason=reason)
