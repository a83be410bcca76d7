"""Which configuration a run uses: the kernel command line's, else a credential, else /etc's, else /usr/lib's."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pxe_fetch import regular_file
from pxe_fetch.contract import minisign, paths, reader
from pxe_fetch.contract.facts import PREFIX
from pxe_fetch.contract.minisign import MinisignError, PublicKey
from pxe_fetch.contract.model import Digest, FetchConfig
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.quantity import show_moment
from pxe_fetch.contract.url import UrlError, parse, redact, scheme_of
from pxe_fetch.errors import IntegrityError, NotFoundError, PolicyError, RefusedError
from pxe_fetch.node import Node
from pxe_fetch.signature import read_keys, signer

MAX_SIZE = 1024 * 1024  # bytes of a configuration
_LONGEST_SERIAL = 20  # bytes of its file
_TRUST_DIR = paths.TRUST_DIR.lstrip("/")

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
    # Of one by URL:
    has_keys: bool = False  # the node says who may have signed it
    packed: Path | None = None  # that of the image, which is not used


def locate(node: Node, *, read_url: ReadUrl, config_file: Path | None) -> LocatedConfig | None:
    """Read the configuration of `node`; None if there is none. `config_file` (--config) comes before all others.

    Raises PolicyError if it is not pinned, its digest is wrong or its signature invalid; FetchError if its URL cannot
    be read, ProblemError if its file cannot.
    """
    if config_file:
        return _located("file", str(config_file), read_file(config_file), reason=f"{config_file} (--config)")
    places = (
        ("credential", f"credential {paths.CREDENTIAL}", node.credentials and node.credentials / paths.CREDENTIAL),
        ("etc", paths.CONFIG_ETC, node.root / paths.CONFIG_ETC.lstrip("/")),
        ("usr", paths.CONFIG_USR, node.root / paths.CONFIG_USR.lstrip("/")),
    )
    # Not Path.exists: a file that cannot be read, or a dangling link, is an error and not "no configuration".
    found = [(source, label, path) for source, label, path in places if path and os.path.lexists(path)]
    arguments = node.arguments
    if arguments.config:
        signed = ""
        read_url = _from_file if scheme_of(arguments.config) == "file" else read_url
        if (keys := read_keys(node.root / _TRUST_DIR)) and not arguments.config_sha256:
            body, key = _read_signed(arguments.config, keys=keys, read_url=read_url)
            signed = f", signed by {key}"
        else:
            body = _read_pinned(arguments.config, arguments.config_sha256, read_url=read_url)
        url = redact(arguments.config)
        ignored = ", ".join(f"{label} is ignored" for _, label, _ in found)
        reason = f"{url} (kernel command line{signed}){ignored and f': {ignored}'}"
        packed = next((path for source, _, path in found if source != "credential"), None)
        return _located("cmdline", url, body, reason=reason)._replace(has_keys=bool(keys), packed=packed)
    if not found:
        return None
    source, used, path = found[0]
    labels = [label for _, label, _ in places]
    notes = [f"no {PREFIX}.config on the kernel command line", *(f"no {one}" for one in labels[: labels.index(used)])]
    notes += [f"{label} is ignored" for _, label, _ in found[1:]]
    return _located(source, str(path), read_file(path), reason=f"{path} ({source}): {', '.join(notes)}")


def read_file(path: Path, *, limit: int = MAX_SIZE) -> bytes:
    """The content of a configuration file. Raises ProblemError if it is unreadable or larger than `limit`."""
    try:
        return regular_file.read(path, limit=limit)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reference = "config-too-large" if getattr(error, "errno", None) == errno.EFBIG else "config-unreadable"
        message = f"{path} cannot be read: {getattr(error, 'strerror', error)}"
        raise ProblemError(Problem(reference=reference, message=message)) from None


def _from_file(url: str, digest: Digest | None, limit: int) -> bytes:
    """A ReadUrl of file URLs: a file on the node is there, or it is not. Raises ProblemError as `read_file` does."""
    try:
        body = read_file(Path(os.fsdecode(parse(url).path_bytes)), limit=limit)
    except UrlError as error:
        raise PolicyError(f"{redact(url)} {error}") from None
    found = hashlib.sha256(body).hexdigest()
    if digest and found != digest.hex:
        raise IntegrityError("another digest", expected=digest.hex, found=found)
    return body


def decode(body: bytes, *, name: str) -> str:
    """`body` as text. Raises ProblemError if it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ProblemError(Problem(reference="config-unreadable", message=f"{name} is not UTF-8 text")) from None


def check_fresh(config: FetchConfig, *, located: LocatedConfig, node: Node) -> list[str]:
    """Refuse a configuration by URL that has expired, or is older than the packed one or any that this node has used.

    Both are checked if the node has keys, or the configuration `serial` or `expires`. Its serial is kept, for later
    runs. Returns what is doubtful though no reason to refuse it, as sentences. Raises PolicyError.
    """
    if located.source != "cmdline" or not (located.has_keys or config.serial is not None or config.expires is not None):
        return []
    name, packed = f"the configuration from {located.location}", located.packed
    kept = node.root / paths.SERIAL.lstrip("/")
    try:
        packed_serial = reader.read(decode(read_file(packed), name="it"), name="it").serial if packed else None
    except ProblemError as error:
        raise PolicyError(f"the serial in {packed} is unknown: {error}") from None
    notes = _check_expiry(config.expires, name=name, packed=packed)
    known = {packed: packed_serial, kept: _kept_serial(kept)}
    given = config.serial if config.serial is not None or not located.has_keys else -1  # it has to have one
    for file, serial in known.items():
        if serial is not None and given is not None and given < serial:
            has = "no serial" if given < 0 else f"the serial {given}"
            remedy = "it may be an old one; if not, give it a higher serial"
            raise PolicyError(f"{name} has {has}, and {file} has {serial}: {remedy}")
    if config.serial is not None and config.serial != known[kept]:
        try:
            _keep(config.serial, file=kept)
        except OSError as error:
            notes.append(f"{kept} cannot be written ({error.strerror}): later runs will not refuse an older one")
    return notes


def _check_expiry(expires: int | None, *, name: str, packed: Path | None) -> list[str]:
    """Raise PolicyError if `expires` has passed, by the clock or, if that is behind it, the time of the packed file."""
    if expires is None:
        return []
    now, earliest = time.time(), packed.stat().st_mtime if packed else 0.0
    clock = f"this node's clock says {show_moment(now)}"
    if now < earliest:
        clock += f", but {packed} is of {show_moment(earliest)}"
    if max(now, earliest) >= expires + 1:  # that second belongs to it
        raise PolicyError(f"{name} expired at {show_moment(expires)}: {clock}")
    return [f"{clock}: whether {name} has expired is uncertain"] if now < earliest else []


def _kept_serial(file: Path) -> int | None:
    try:
        return int(regular_file.read(file, limit=_LONGEST_SERIAL))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise PolicyError(f"{file} cannot be read as a number: remove it if you know why") from None


def _keep(serial: int, *, file: Path) -> None:
    """Replace `file` atomically, also if the power fails. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    with new.open("w", encoding="ascii") as stream:
        stream.write(f"{serial}\n")
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def _read_pinned(url: str, sha256: str | None, *, read_url: ReadUrl) -> bytes:
    """The configuration at `url`; without a digest only by https or from a file, where nobody can replace it."""
    scheme = scheme_of(url)
    if scheme not in {"https", "file"} and not sha256:
        raise PolicyError(
            f"{PREFIX}.config={redact(url)} uses {scheme or 'no scheme'} and has no digest, so anybody on the "
            f"network could replace it; add {PREFIX}.config.sha256=HEX to the kernel arguments, or use https"
        )
    try:
        return read_url(url, Digest(algorithm="sha256", hex=sha256) if sha256 else None, MAX_SIZE)
    except IntegrityError as error:
        if not sha256:
            raise
        expected, found = (digest.removeprefix("sha256:") for digest in (error.expected, error.found))
        message = f"the configuration from {redact(url)} does not match {PREFIX}.config.sha256: expected {expected}"
        raise PolicyError(f"{message}, found {found}; nothing is fetched") from error


def _read_signed(url: str, *, keys: Mapping[str, PublicKey], read_url: ReadUrl) -> tuple[bytes, str]:
    """The configuration at `url`, and the name of the key that has signed it."""
    signature_url = minisign.signature_url(url)
    failure = None
    for _ in range(2):  # one of the two may just have been replaced on the server, or come damaged
        body = read_url(url, None, MAX_SIZE)
        try:
            content = read_url(signature_url, None, minisign.MAX_SIZE)
            return body, signer(body, content, keys=keys)
        except (IntegrityError, NotFoundError, RefusedError, PolicyError, ProblemError) as error:
            failure = f"the configuration from {redact(url)} has no signature ({error})"
            break
        except MinisignError as error:
            failure = f"the signature {redact(signature_url)} {error}"
    hint = f"sign it (minisign -S), or add {PREFIX}.config.sha256=HEX to the kernel arguments"
    raise PolicyError(f"{failure}; {hint}")


def _located(source: str, location: str, body: bytes, *, reason: str) -> LocatedConfig:
    text = decode(body, name=location)
    sha256 = hashlib.sha256(body).hexdigest()
    return LocatedConfig(source=source, location=location, sha256=sha256, text=text, reason=reason)
