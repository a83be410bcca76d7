"""The configuration on this node: every transfer to make, with nothing left to decide but digests kept in a file."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.allowed_roots import AllowedRoots
from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract import paths, template, validators
from pxe_fetch.contract.archive import LONGEST_NAME
from pxe_fetch.contract.model import Artifact, Chunks, Digest, FetchConfig, RetryPolicy, Timeouts
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.url import UrlError, is_absolute, join, parse
from pxe_fetch.contract.validators import RuleError
from pxe_fetch.credential import secret_headers
from pxe_fetch.errors import CannotCreateError, FetchError, PolicyError
from pxe_fetch.mirror_order import spread
from pxe_fetch.node import Node
from pxe_fetch.redact import redact


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """One artifact to bring: absolute urls with their ${facts} filled in, ids looked up, headers with their secrets."""

    name: str
    urls: tuple[str, ...]  # mirrors, in the order to try
    digest: Digest | None  # of the whole; None only where there are `pieces`
    size: int | None  # bytes on the wire
    pieces: ChunkMap | None  # what pins every byte, chunk by chunk
    dest: Path
    part: Path  # the file under way: beside `dest`, the same name in every run, so that a later run resumes
    mode: int | None
    uid: int | None
    gid: int | None
    extract: str
    required: bool
    headers: Mapping[str, str]
    start: tuple[str, ...]
    retry: RetryPolicy
    timeouts: Timeouts

    @property
    def identity(self) -> str:
        """What names exactly these bytes, in a word: their digest, or their chunks'."""
        return self.pieces.identity if self.pieces and self.digest is None else str(self.digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One artifact as planned: a transfer, once what pins its bytes is known."""

    name: str
    dest: Path
    part: Path  # the file under way
    size: int | None
    required: bool
    digest: Digest | None
    digest_url: str | None  # absolute: a SHA256SUMS file
    listed: str  # the url that is listed first: its last part is what that file calls it
    chunks: Chunks | None  # their urls are absolute; without digest and digest_url it is these that pin the bytes
    urls: tuple[str, ...]
    headers: Mapping[str, str]
    retry: RetryPolicy
    timeouts: Timeouts
    pinned: Callable[[Digest | None, ChunkMap | None], Transfer]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will do, in the order of the configuration."""

    orders: tuple[Order, ...]
    skipped: tuple[Artifact, ...]  # their `when` means other nodes
    failed: tuple[tuple[Artifact, FetchError | ProblemError], ...]  # optional ones that are not to be had here


def plan(
    config: FetchConfig, *, roots: AllowedRoots, node: Node, base_url: str | None, credentials: Path | None
) -> Plan:
    """Every transfer of `config` on `node`; `base_url` (of the kernel command line) comes before the configuration's.

    Raises ProblemError when two artifacts have one place, and for required artifacts with every problem that they have
    on this node (a fact that is empty, a credential that is missing, …); CannotCreateError when the user or group of
    one is unknown, and PolicyError when its destination is outside the roots.
    """
    problems: list[Problem] = []
    orders: list[Order] = []
    skipped: list[Artifact] = []
    failed: list[tuple[Artifact, FetchError | ProblemError]] = []
    base = _checked(base_url, argument="base_url") if base_url else config.base_url
    for artifact in config.artifacts:
        if not node.matches(artifact.when):
            skipped.append(artifact)
            continue
        try:
            orders.append(_order(artifact, node=node, base=base, roots=roots, credentials=credentials))
        except ProblemError as error:
            if not artifact.required:
                failed.append((artifact, error))
                continue
            problems += [replace(problem, message=f"{artifact.name}: {problem.message}") for problem in error.problems]
        except FetchError as error:
            if artifact.required:
                raise
            failed.append((artifact, error))
    problems += _collisions(orders)
    if problems:
        raise ProblemError(*problems)
    return Plan(orders=tuple(orders), skipped=tuple(skipped), failed=tuple(failed))


def moved(config: FetchConfig, *, artifact_url: str | None) -> FetchConfig:
    """`config` with what pxe-pack exported looked for below `artifact_url` (of the kernel command line).

    Raises ProblemError where that is no URL.
    """
    packed = config.artifact_url
    if not packed or not artifact_url:
        return config
    served = _checked(artifact_url, argument="artifact_url")

    def there(url: str) -> str:
        return served + url.removeprefix(packed) if url.startswith(packed) else url

    artifacts = (
        replace(
            one,
            urls=tuple(there(url) for url in one.urls),
            digest_url=one.digest_url and there(one.digest_url),
            chunks=one.chunks and replace(one.chunks, urls=tuple(there(url) for url in one.chunks.urls)),
        )
        for one in config.artifacts
    )
    return replace(config, artifact_url=served, artifacts=tuple(artifacts))


def _checked(url: str, *, argument: str) -> str:
    """The base that a kernel argument gives, ending in `/`. Raises ProblemError where it is none."""
    try:
        return validators.base_url(url)
    except RuleError as error:
        message = f"pxe-fetch.{argument}={redact(url)} on the kernel command line {error.message}"
        raise ProblemError(
            Problem(reference=error.reference, message=message, hint=error.hint or error.label)
        ) from None


def part_of(dest: Path) -> Path:
    """The file beside `dest` that holds what has come of it so far."""
    return beside(dest, paths.PART_SUFFIX)


def beside(dest: Path, suffix: str) -> Path:
    """A hidden name in `dest`'s directory that no other destination has."""
    room = LONGEST_NAME - len(suffix) - 1
    name = dest.name.encode()
    if len(name) <= room:
        return dest.with_name(f".{dest.name}{suffix}")
    import hashlib

    return dest.with_name(f".{hashlib.sha256(name).hexdigest()}{suffix}")


def _order(artifact: Artifact, *, node: Node, base: str | None, roots: AllowedRoots, credentials: Path | None) -> Order:
    if artifact.source is not None and not artifact.urls:
        message = f"`source: {artifact.source}` names a file of the packing machine, which no node can read"
        raise ProblemError(
            Problem(
                reference="source-unresolved",
                message=message,
                hint="pxe-pack turns it into a url and a digest; to try the file by hand, give url and sha256",
            )
        )
    dest = _dest(artifact.dest, node=node)
    roots.check(dest)
    part = part_of(dest)
    listed = tuple(_absolute(url, node=node, base=base) for url in artifact.urls)
    urls = _ordered(artifact, listed, node=node)
    headers = {name: template.fill(value, node.fact) for name, value in artifact.headers.items()}
    if artifact.header_credential:
        headers |= secret_headers(artifact.header_credential, directory=credentials)
    uid, gid = _uid(artifact.owner), _gid(artifact.group)

    def pinned(digest: Digest | None, pieces: ChunkMap | None) -> Transfer:
        return Transfer(
            name=artifact.name,
            urls=urls,
            digest=digest,
            size=artifact.size,
            pieces=pieces,
            dest=dest,
            part=part,
            mode=artifact.mode,
            uid=uid,
            gid=gid,
            extract=artifact.extract or "none",
            required=artifact.required,
            headers=headers,
            start=artifact.start,
            retry=artifact.retry,
            timeouts=artifact.timeouts,
        )

    return Order(
        name=artifact.name,
        dest=dest,
        part=part,
        size=artifact.size,
        required=artifact.required,
        digest=artifact.digest,
        digest_url=_absolute(artifact.digest_url, node=node, base=base) if artifact.digest_url else None,
        listed=listed[0],
        chunks=_chunks(artifact, node=node, base=base),
        urls=urls,
        headers=headers,
        retry=artifact.retry,
        timeouts=artifact.timeouts,
        pinned=pinned,
    )


def _chunks(artifact: Artifact, *, node: Node, base: str | None) -> Chunks | None:
    if artifact.chunks is None:
        return None
    urls = tuple(_absolute(url, node=node, base=base) for url in artifact.chunks.urls)
    return replace(artifact.chunks, urls=_ordered(artifact, urls, node=node))


def _ordered(artifact: Artifact, listed: tuple[str, ...], *, node: Node) -> tuple[str, ...]:
    """The mirrors `listed` in the order in which this node asks them."""
    if len(listed) <= 1 or artifact.mirror_order == "listed":
        return listed
    return spread(listed, node=node.identity, artifact=artifact.name)


def _dest(text: str, *, node: Node) -> Path:
    def name(reference: str) -> str:
        value = node.fact(reference)
        if "/" in value or "\0" in value or value in {".", ".."}:
            raise PolicyError(f"${{{reference}}} is {value!r} on this node, which is no file name: {text} is refused")
        return value

    return Path(template.fill(text, name))


def _absolute(url: str, *, node: Node, base: str | None) -> str:
    """`url` with its facts filled in and joined to `base` when it is relative."""
    filled = node.fill_in(url)
    if is_absolute(filled):
        return filled
    if base is None:
        raise ProblemError(
            Problem(
                reference="base-url-missing",
                message=f"the url `{url}` is relative, and there is no base_url",
                hint="give defaults.base_url, or pxe-fetch.base_url=URL on the kernel command line",
            )
        )
    try:
        return join(parse(node.fill_in(base).rstrip("/") + "/"), filled.lstrip("/")).raw
    except UrlError as error:
        raise PolicyError(f"the base_url {redact(base)}, joined by {redact(url)}, {error}") from None


def _collisions(orders: list[Order]) -> list[Problem]:
    """Two artifacts for one place, or one inside the tree that another replaces."""
    problems: list[Problem] = []
    taken: dict[str, str] = {}
    for order in orders:
        dest = str(order.dest)
        first = taken.setdefault(dest, order.name)
        if first != order.name:
            message = f"{order.name} and {first} have one destination on this node: {dest}"
            problems.append(Problem(reference="dest-taken", message=message))
    for order in orders:
        dest = str(order.dest)
        outer = dest
        while outer := outer.rpartition("/")[0]:
            if outer in taken:
                message = f"{order.name} goes to {dest}, inside {outer}, which is what {taken[outer]} becomes"
                problems.append(Problem(reference="dest-taken", message=message))
    return problems


def _uid(owner: str | None) -> int | None:
    if owner is None or owner.isdigit():
        return None if owner is None else int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise CannotCreateError(f"this node has no user {owner}") from None


def _gid(group: str | None) -> int | None:
    if group is None or group.isdigit():
        return None if group is None else int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise CannotCreateError(f"this node has no group {group}") from None
