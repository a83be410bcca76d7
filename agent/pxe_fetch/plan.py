"""The configuration and the node -> the transfers of this run, with nothing left to decide."""

from __future__ import annotations

import grp
import hashlib
import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract import checks, facts, paths, validators
from pxe_fetch.contract.mirrors import moved, requested
from pxe_fetch.contract.model import Artifact, Chunks, Digest, FetchConfig, RetryPolicy, Timeouts
from pxe_fetch.contract.problem import Problem, ProblemError, RuleError
from pxe_fetch.contract.record import mutable_record, record
from pxe_fetch.contract.registry import Login
from pxe_fetch.contract.url import (
    Origin,
    Tiers,
    UrlError,
    below,
    each,
    flat,
    is_absolute,
    parse,
    redact,
    scheme_of,
    with_query,
)
from pxe_fetch.errors import CannotCreateError, FetchError, PolicyError
from pxe_fetch.filesystem import AllowedRoots, real_path
from pxe_fetch.node import Node

# A file is on the node already. After any fault tftp starts over, so it is the last resort.
_NEARNESS = {"file": 0, "tftp": 2}
_USUAL = 1


@record
class Source:
    """Bytes to download: their name, mirrors, digest and size, and how to request them."""

    name: str  # in events and messages
    mirrors: Tiers  # of the same bytes, absolute, in the order in which this node uses them
    digest: Digest | None = None
    size: int | None = None  # bytes on the wire
    headers: Mapping[str, str] = field(default_factory=dict)  # secret ones included
    login: Login | None = None  # to registries; None: the servers are none
    credentials: tuple[str, ...] = ()  # names of those that its headers and the queries of its urls come from
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def urls(self) -> tuple[str, ...]:
        """All mirrors."""
        return flat(self.mirrors)


@record
class Transfer(Source):
    """One artifact to fetch: every ${fact} filled in, user and group looked up.

    Some fields may be unknown until the run asks a server: `digest` if `sums` are mirrors of a SHA256SUMS file,
    `chunk_map` if `chunks.mirrors` have a list of chunk digests, and all that pins the bytes if there is a `title`:
    then `mirrors` are those of a manifest. resolve.py fills them in.
    """

    title: str | None = None  # of the layer to fetch, in the manifest of a registry
    sums: Tiers = ()  # absolute; mirrors of a SHA256SUMS file that has the digest
    listed_url: str  # the first url of the configuration: its last part is the file's name in SHA256SUMS
    chunks: Chunks | None = None  # as configured, with absolute mirrors
    chunk_map: ChunkMap | None = None  # pins every byte, chunk by chunk, instead of `digest` or beside it
    dest: Path
    part: Path  # the part file: beside `dest`, with the same name in every run, so that a later run resumes it
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    extract: str = "none"
    required: bool = True
    start: tuple[str, ...] = ()  # units
    start_required: bool = False

    @property
    def is_resolved(self) -> bool:
        """Whether the configuration has all that pins the bytes, so that no server is asked for it."""
        has_chunks = self.chunks is None or self.chunk_map is not None
        return self.title is None and has_chunks and (self.digest is not None or self.chunk_map is not None)

    @property
    def identity(self) -> str:
        """A word that identifies exactly these bytes: their digest, or that of their chunk digests."""
        return self.chunk_map.identity if self.chunk_map and self.digest is None else str(self.digest)


@mutable_record
class Plan:
    """What a run will do, in the order of the configuration."""

    transfers: list[Transfer] = field(default_factory=list)
    skipped: list[Artifact] = field(default_factory=list)  # their `when` selects other nodes
    failed: dict[str, FetchError | ProblemError] = field(default_factory=dict)  # optional ones, by name: why


def plan(config: FetchConfig, *, roots: AllowedRoots, node: Node) -> Plan:
    """Every transfer of `config` on `node`, whose kernel command line may replace the URLs that others are below.

    Raises ProblemError if two artifacts have the same destination, and with every problem of required artifacts on this
    node (an empty fact, a missing credential, …); CannotCreateError if a user or group is unknown; PolicyError if a
    destination is outside the roots.
    """
    problems: list[Problem] = []
    planned = Plan()
    base_url = node.arguments.base_url
    base = _checked(base_url, argument="base_url") if base_url else config.base_url
    for artifact in _moved(config, artifact_url=node.arguments.artifact_url):
        if not node.matches(artifact.when):
            planned.skipped.append(artifact)
            continue
        try:
            planned.transfers.append(_transfer(artifact, node=node, base=base, roots=roots))
        except (FetchError, ProblemError) as error:
            if not artifact.required:
                planned.failed[artifact.name] = error
            elif isinstance(error, FetchError):
                raise
            else:
                problems += [replace(one, message=f"{artifact.name}: {one.message}") for one in error.problems]
    problems += _collisions({one.name: f"{roots.check(one.dest)}/{one.dest.name}" for one in planned.transfers})
    if problems:
        raise ProblemError(*problems)
    return planned


def _moved(config: FetchConfig, *, artifact_url: str | None) -> tuple[Artifact, ...]:
    """The artifacts, with the files that pxe-pack exported moved below `artifact_url` of the kernel command line."""
    packed = config.artifact_url
    if not packed or not artifact_url:
        return config.artifacts
    served = _checked(artifact_url, argument="artifact_url")
    return tuple(moved(one, below=packed, to=served) for one in config.artifacts)


def _checked(url: str, *, argument: str) -> str:
    """The base URL in a kernel argument, ending in `/`. Raises ProblemError if it is invalid."""
    try:
        return validators.base_url(url)
    except RuleError as error:
        message = f"pxe-fetch.{argument}={redact(url)} on the kernel command line {error.message}"
        hint = error.hint or error.label
        raise ProblemError(Problem(reference=error.reference, message=message, hint=hint)) from None


def beside(dest: Path, suffix: str) -> Path:
    """A hidden file beside `dest` whose name is unique to it."""
    longest = paths.LONGEST_NAME - len(suffix) - 1
    name = dest.name.encode()
    if len(name) <= longest:
        return dest.with_name(f".{dest.name}{suffix}")
    return dest.with_name(f".{hashlib.sha256(name).hexdigest()}{suffix}")


def _transfer(artifact: Artifact, *, node: Node, base: str | None, roots: AllowedRoots) -> Transfer:
    if artifact.source is not None and not artifact.mirrors:
        message = f"`source: {artifact.source}` is on the packing machine, where no node can read it"
        hint = "pxe-pack turns it into a url and a digest; to try the file by hand, give url and sha256"
        raise ProblemError(Problem(reference="source-unresolved", message=message, hint=hint))
    dest = _dest(artifact.dest, node=node)
    roots.check(dest)
    file, chunk_list, sums = (
        each(tiers, lambda url: _absolute(url, node=node, base=base)) for tiers in requested(artifact, base=base)
    )
    urls = flat(file)
    headers = {name: facts.fill(value, node.fact) for name, value in artifact.headers.items()}
    for url in urls:  # facts and base urls can make one unencrypted
        if credential := checks.sent_unencrypted(artifact, url):
            message = f"the credential {credential} would be sent unencrypted to {redact(url)}"
            raise PolicyError(f"{message}; use https, or allow it with `insecure: true`")
    if artifact.header_credential:
        headers |= node.secret_headers(artifact.header_credential)
    query = node.secret_query(artifact.query_credential) if artifact.query_credential else ""
    servers = {_origin(url) for url in urls} if query else set()

    def signed(url: str) -> str:
        return with_query(url, query) if _origin(url) in servers else url

    chunks, chunk_map = artifact.chunks, None
    if chunks and chunks.mirrors:
        chunks = replace(chunks, mirrors=each(_in_order(artifact, chunk_list, node=node), signed))
    elif chunks and artifact.size is not None:
        chunk_map = ChunkMap(size=artifact.size, chunk=chunks.size, digests=chunks.digests)
    return Transfer(
        name=artifact.name,
        mirrors=each(_in_order(artifact, file, node=node), signed),  # no order depends on what is secret
        digest=artifact.digest,
        size=artifact.size,
        headers=headers,
        login=None if artifact.title is None else node.login(artifact.registry_credential, key="registry_credential"),
        title=artifact.title,
        credentials=artifact.credentials,
        retry=artifact.retry,
        timeouts=artifact.timeouts,
        sums=each(_in_order(artifact, sums, node=node), signed),
        listed_url=_absolute(artifact.urls[0], node=node, base=base),
        chunks=chunks,
        chunk_map=chunk_map,
        dest=dest,
        part=beside(dest, paths.PART_SUFFIX),
        mode=artifact.mode,
        uid=_id(artifact.owner, kind="user", look_up=lambda name: pwd.getpwnam(name).pw_uid),
        gid=_id(artifact.group, kind="group", look_up=lambda name: grp.getgrnam(name).gr_gid),
        extract=artifact.extract or "none",
        required=artifact.required,
        start=artifact.start,
        start_required=artifact.start_required,
    )


def _origin(url: str) -> Origin | None:
    """The server of `url`; None if that is no URL, which the download finds out."""
    try:
        return parse(url).origin
    except UrlError:
        return None


def _in_order(artifact: Artifact, tiers: Tiers, *, node: Node) -> Tiers:
    """The mirrors of each tier in the order in which this node uses them; as listed, each is a tier of its own."""
    if artifact.mirror_order == "listed":
        return tuple((url,) for url in flat(tiers))
    return tuple(spread(tier, node=node.identity, artifact=artifact.name) if len(tier) > 1 else tier for tier in tiers)


def spread(urls: Sequence[str], *, node: str, artifact: str) -> tuple[str, ...]:
    """`urls` in the order of this node for this artifact: the same at each run, and another on other nodes.

    Rendezvous hashing (Thaler and Ravishankar, 1998): each url has a weight of its own, so that one more or one less
    leaves the order of the others as it was. The node's files come before all others and tftp comes after them, each
    among themselves as they are listed.
    """

    def rank(url: str) -> tuple[int, bytes]:
        nearness = _NEARNESS.get(scheme_of(url), _USUAL)
        weight = hashlib.sha256(f"{node}\0{artifact}\0{url}".encode()).digest() if nearness == _USUAL else b""
        return nearness, weight

    return tuple(sorted(urls, key=rank))


def _dest(text: str, *, node: Node) -> Path:
    def name(reference: str) -> str:
        value = node.fact(reference)
        if "/" in value or "\0" in value or value in {".", ".."}:
            message = f"${{{reference}}} is {value!r} on this node, which is not a file name: {text} is refused"
            raise PolicyError(message)
        return value

    return Path(facts.fill(text, name))


def _absolute(url: str, *, node: Node, base: str | None) -> str:
    """`url` with its facts filled in, and joined to `base` if it is relative."""
    filled = node.fill_in(url)
    if is_absolute(filled):
        return filled
    if base is None:
        message = f"the url `{url}` is relative, and there is no base_url"
        hint = "give defaults.base_url, or pxe-fetch.base_url=URL on the kernel command line"
        raise ProblemError(Problem(reference="base-url-missing", message=message, hint=hint))
    return below(node.fill_in(base), filled)


def _collisions(destinations: dict[str, str]) -> list[Problem]:
    """Artifacts with the same destination, or one inside another's. `destinations` are by name, with links resolved."""
    problems: list[Problem] = []
    taken = {dest: name for name, dest in reversed(destinations.items())}  # the first of several
    for name, dest in destinations.items():
        if (first := taken[dest]) != name:
            message = f"{name} and {first} have the same destination on this node: {dest}"
            problems.append(Problem(reference="dest-taken", message=message))
        if outer := paths.enclosing(dest, taken):
            message = f"{name} goes to {dest}, inside {outer}, where {taken[outer]} is installed"
            problems.append(Problem(reference="dest-taken", message=message))
    return problems


def nested(
    transfers: Sequence[Transfer], *, earlier: Mapping[str, str], roots: AllowedRoots
) -> dict[str, CannotCreateError]:
    """The transfers that would delete what `earlier` runs installed, or be deleted by one of theirs: name -> error.

    `earlier` are destinations and artifacts. Within one configuration this is refused as a whole.
    """
    there = {f"{real_path(dest.rpartition('/')[0])}/{dest.rpartition('/')[2]}": name for dest, name in earlier.items()}
    around = {str(parent): dest for dest in there for parent in Path(dest).parents}
    found: dict[str, CannotCreateError] = {}
    for transfer in transfers:
        real = f"{roots.check(transfer.dest)}/{transfer.dest.name}"
        outer = paths.enclosing(real, there)
        if other := outer or around.get(real):
            how = "is inside" if outer else "would replace all of its folder, with"
            found[transfer.name] = CannotCreateError(
                f"{real} {how} {other}, where an earlier run has installed {there[other]}: choose another dest, or "
                f"remove {other}"
            )
    return found


def _id(account: str | None, *, kind: str, look_up: Callable[[str], int]) -> int | None:
    """The number of the user or group `account`; None if none is configured. Raises CannotCreateError."""
    if account is None or account.isdigit():
        return None if account is None else int(account)
    try:
        return look_up(account)
    except KeyError:
        raise CannotCreateError(f"this node has no {kind} {account}") from None
