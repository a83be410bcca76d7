"""Which configuration counts: the kernel command line's, else a credential, else /etc's, else /usr/lib's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract import paths
from pxe_fetch.contract.cmdline import PREFIX, KernelArguments
from pxe_fetch.contract.model import Digest
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.url import UrlError, parse, scheme_of
from pxe_fetch.errors import IntegrityError, PolicyError
from pxe_fetch.redact import redact

LARGEST = 1024 * 1024  # bytes of a configuration

# url, its digest where one is pinned, most bytes -> body, retried as an artifact is; wrong bytes: IntegrityError
ReadUrl = Callable[[str, Digest | None, int], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The configuration that counts, and why."""

    source: str  # file, cmdline, credential, etc or usr
    path_or_url: str  # redacted
    sha256: str
    text: str
    reason: str  # one line: which won, and why the others did not

    @property
    def name(self) -> str:
        """What positions in error messages call it."""
        return self.path_or_url


def locate(
    arguments: KernelArguments, *, root: Path, read_url: ReadUrl, credentials: Path | None, given: Path | None = None
) -> Found | None:
    """The configuration of this node, None where there is none at all. `given` (--config) comes before all others.

    Raises PolicyError for one that is unpinned or whose digest is wrong, FetchError when a URL cannot be read, and
    ProblemError when a file cannot be.
    """
    places = [("credential", credentials / paths.CREDENTIAL if credentials else None)]
    places += [("etc", root / paths.CONFIG_ETC.lstrip("/")), ("usr", root / paths.CONFIG_USR.lstrip("/"))]
    passed: list[str] = []
    if given:
        return _found("file", str(given), read_file(given), reason=f"{given} (given with --config)")
    if arguments.config:
        body = _pinned(arguments.config, arguments.config_sha256, read_url=read_url)
        passed = [f"{_label(name)} is there, but the command line comes first" for name, path in places if _is(path)]
        shown = redact(arguments.config)
        return _found("cmdline", shown, body, reason=f"{shown} (kernel command line){_because(passed)}")
    passed.append(f"the kernel command line has no {PREFIX}.config")
    for index, (source, path) in enumerate(places):
        if path is None or not _is(path):
            passed.append(f"no {_label(source)}")
            continue
        later = [f"{_label(name)} comes after it" for name, other in places[index + 1 :] if _is(other)]
        return _found(source, str(path), read_file(path), reason=f"{path} ({source}){_because(passed + later)}")
    return None


def read_file(path: Path) -> bytes:
    """The bytes of a configuration file. Raises ProblemError when it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            body = file.read(LARGEST + 1)
    except OSError as error:
        raise ProblemError(
            Problem(reference="config-unreadable", message=f"{path} cannot be read: {error.strerror}")
        ) from None
    if len(body) > LARGEST:
        raise ProblemError(Problem(reference="config-too-large", message=f"{path} is larger than {LARGEST} bytes"))
    return body


def text_of(body: bytes, *, name: str) -> str:
    """`body` as text. Raises ProblemError when it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ProblemError(Problem(reference="config-unreadable", message=f"{name} is not UTF-8 text")) from None


def credentials_directory() -> Path | None:
    """Where systemd put this unit's credentials (systemd.exec(5)), if it did."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def _pinned(url: str, sha256: str | None, *, read_url: ReadUrl) -> bytes:
    """The bytes at `url`, which are those of the digest, or came by a way that nobody can write to underway."""
    scheme = scheme_of(url)
    if scheme not in {"https", "file"} and not sha256:
        raise PolicyError(
            f"{PREFIX}.config={redact(url)} comes by {scheme or 'no scheme'} and without a digest, so anybody on "
            f"the network could replace it; add {PREFIX}.config.sha256=HEX to the kernel arguments, or use https"
        )
    if scheme != "file":
        try:
            return read_url(url, Digest(algorithm="sha256", hex=sha256) if sha256 else None, LARGEST)
        except IntegrityError as error:
            raise _not_the_pinned_one(url, expected=error.expected, found=error.found) from error
    try:
        body = read_file(Path(os.fsdecode(parse(url).path_bytes)))
    except UrlError as error:
        raise PolicyError(f"{PREFIX}.config={redact(url)} {error}") from None
    found = hashlib.sha256(body).hexdigest()
    if sha256 and found != sha256:
        raise _not_the_pinned_one(url, expected=sha256, found=found)
    return body


def _not_the_pinned_one(url: str, *, expected: str, found: str) -> PolicyError:
    return PolicyError(
        f"the configuration from {redact(url)} is not the one that {PREFIX}.config.sha256 names: expected "
        f"{expected.removeprefix('sha256:')}, found {found.removeprefix('sha256:')}; nothing is fetched"
    )


def _found(source: str, path_or_url: str, body: bytes, *, reason: str) -> Found:
    return Found(
        source=source,
        path_or_url=path_or_url,
        sha256=hashlib.sha256(body).hexdigest(),
        text=text_of(body, name=path_or_url),
        reason=reason,
    )


def _is(path: Path | None) -> bool:
    return path is not None and os.path.lexists(path)  # as idle.reason looks; what cannot be read is told


def _label(source: str) -> str:
    return {
        "credential": f"credential {paths.CREDENTIAL}",
        "etc": paths.CONFIG_ETC,
        "usr": paths.CONFIG_USR,
    }[source]


def _because(passed: list[str]) -> str:
    return f"; {', '.join(passed)}" if passed else ""
