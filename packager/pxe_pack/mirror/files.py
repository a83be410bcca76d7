"""Which files a configuration fetches, and where each is in a mirror: `HOST/PATH`, as in its URL.

An artifact whose URL has ${facts} is several files; their names come from its `when`.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from pxe_fetch.contract import facts, registry
from pxe_fetch.contract.model import Artifact, Digest, FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import Origin, Tiers, UrlError, flat, is_absolute, parse, redact, scheme_of
from pxe_fetch.contract.validators import joined
from pxe_pack.layout.manifest import path_problem
from pxe_pack.tools import InputError

_GLOB = frozenset("*?[")
_MARK = "fact-{}-of-pxe-pack"  # stands for a ${fact} while a URL is taken apart
_MARKED = re.compile(r"fact-(\d+)-of-pxe-pack")
_MOST = 10_000  # files of one artifact
Kind = Literal["file", "sums", "chunk list"]  # nothing pins a SHA256SUMS file


@dataclass(frozen=True, kw_only=True, slots=True)
class MirroredFile:
    """A file to download. Its `artifact` has absolute URLs, all facts filled in, and what pins the bytes."""

    title: str  # for messages
    path: str  # below the folder
    artifact: Artifact
    kind: Kind = "file"
    sums: str = ""  # the path of the SHA256SUMS file that has its digest


def mirrored(config: FetchConfig) -> tuple[list[MirroredFile], FetchConfig]:
    """The files that `config` fetches, and the configuration with their URLs below the mirror's, relative.

    Raises InputError with all problems found.
    """
    problems: list[Problem] = []
    files: dict[str, MirroredFile] = {}
    rebased = []
    for artifact in config.artifacts:
        try:
            found, new = _of_artifact(artifact, base=config.base_url)
        except InputError as error:
            problems += error.problems
            continue
        rebased.append(new)
        for file in found:
            first = files.setdefault(file.path, file)
            if pin(first) != pin(file):
                message = (
                    f"{first.title} and {file.title} would both be the file {file.path}, but are pinned differently"
                )
                hint = "give both the same digest, size and chunks; if they differ, mirror them with two configurations"
                problems.append(Problem(reference="mirror-clash", message=message, hint=hint))
    folders = {str(folder): path for path in files for folder in Path(path).parents}
    for path in sorted(files.keys() & folders.keys()):
        message = f"{files[path].title} would be the file {path}, which is a folder for {files[folders[path]].title}"
        problems.append(Problem(reference="mirror-clash", message=message, hint="mirror them with two configurations"))
    if problems:
        raise InputError(*problems)
    return [*files.values()], replace(config, artifacts=tuple(rebased), base_url=None)


def pin(file: MirroredFile) -> tuple[object, ...]:
    """What pins the bytes of `file`, to be compared."""
    artifact = file.artifact
    manifest = registry.digest_of(artifact.urls) if artifact.title is not None else None
    return artifact.digest, artifact.chunks and artifact.chunks.digests, file.sums, artifact.size, manifest


def _of_artifact(artifact: Artifact, *, base: str | None) -> tuple[list[MirroredFile], Artifact]:
    """The files of one artifact, and the artifact as nodes fetch it from the mirror. Raises InputError."""
    tiers = _absolute(artifact.mirrors, base)
    if not tiers:
        return [], artifact  # a source, or on the nodes' own disks
    sums = joined((artifact.digest_url,), base)[0] if artifact.digest_url else ""
    lists = _absolute(artifact.chunks.mirrors, base) if artifact.chunks else ()
    texts = (*flat(tiers), *filter(None, (sums,)), *flat(lists), *artifact.headers.values())
    nodes = list(nodes_of(artifact, texts))
    files = [file for node in nodes for file in _on_node(artifact, node, tiers=tiers, sums=sums, lists=lists)]
    only = nodes[0] if len(nodes) == 1 else None

    def there(url: str) -> str:
        url = _file_url(url, artifact.title)
        if scheme_of(url) == "file":
            return url
        return _template(url) if only is None else quote(_path(facts.fill_url(url, only.__getitem__)))

    kept = [url for url in artifact.urls if scheme_of(url) == "file"]
    return files, replace(
        artifact,
        mirrors=((*kept, there(tiers[0][0])),),
        tiers={},
        title=None,
        registry_credential=None,
        digest_url=there(sums) if sums else None,
        chunks=artifact.chunks and replace(artifact.chunks, mirrors=((there(lists[0][0]),),) if lists else ()),
        # They are for the servers that it was fetched from.
        headers={},
        header_credential=None,
        query_credential=None,
        insecure=False,
    )


def _absolute(tiers: Tiers, base: str | None) -> Tiers:
    """`tiers` with relative URLs joined to `base`, without those of files on the nodes' own disks."""
    whole = (tuple(url for url in joined(tier, base) if scheme_of(url) != "file") for tier in tiers)
    return tuple(filter(None, whole))


def nodes_of(artifact: Artifact, texts: Iterable[str]) -> Iterator[Mapping[str, str]]:
    """The values of the facts in `texts`, for each kind of node that `artifact` is for; one of none without facts.

    Raises InputError if its `when` does not list them.
    """
    names = sorted({name for text in texts for name in facts.references(text)})
    values = []
    for name in names:
        argument = facts.argument(name.removeprefix(facts.CMDLINE))
        is_argument = name.startswith(facts.CMDLINE)
        globs = artifact.when.cmdline.get(argument, ()) if is_argument else artifact.when.facts.get(name, ())
        if not globs or any(_GLOB.intersection(glob) for glob in globs):
            example = f"cmdline: {{{argument}: [VALUE, VALUE]}}" if is_argument else f"{name}: [VALUE, VALUE]"
            message = f"the artifact {artifact.name} uses ${{{name}}}, and nothing says which values nodes have there"
            hint = f"list them: `when: {{{example}}}`"
            raise InputError(Problem(reference="mirror-facts", message=message, hint=hint))
        values.append(globs)
    if (count := len(list(itertools.islice(itertools.product(*values), _MOST + 1)))) > _MOST:
        message = f"the artifact {artifact.name} is more than {count - 1:,} files: its `when` lists too many values"
        raise InputError(Problem(reference="mirror-facts", message=message, hint="list those that nodes really have"))
    return (dict(zip(names, combination, strict=True)) for combination in itertools.product(*values))


def _on_node(
    artifact: Artifact, node: Mapping[str, str], *, tiers: Tiers, sums: str, lists: Tiers
) -> Iterator[MirroredFile]:
    """The files of `artifact` on nodes with these facts. Raises InputError."""
    tiers, lists = (
        tuple(tuple(facts.fill_url(url, node.__getitem__) for url in tier) for tier in several)
        for several in (tiers, lists)
    )
    headers = {name: facts.fill(value, node.__getitem__) for name, value in artifact.headers.items()}
    for url in (*flat(tiers), *flat(lists), *filter(None, (sums,))):
        if not is_absolute(url):
            message = f"the artifact {artifact.name} cannot be mirrored: its url `{url}` is relative"
            hint = "give defaults.base_url, or the whole URL"
            raise InputError(Problem(reference="mirror-relative", message=message, hint=hint))
    chunks = artifact.chunks and replace(artifact.chunks, mirrors=lists)
    whole = replace(artifact, mirrors=tiers, tiers={}, headers=headers, chunks=chunks, digest_url=None)
    servers = {_origin(url) for url in flat(tiers)}

    def beside(several: Tiers, digest: Digest | None) -> Artifact:
        """A list that belongs to the artifact: its headers go to the artifact's own servers alone."""
        listed = replace(whole, mirrors=several, digest=digest, chunks=None, size=None)
        if servers.issuperset(map(_origin, flat(several))):
            return listed
        return replace(listed, headers={}, header_credential=None, query_credential=None)

    path = ""
    if sums:
        sums = facts.fill_url(sums, node.__getitem__)
        path = _path(sums)
        yield MirroredFile(
            title=f"the digests of {artifact.name}", path=path, artifact=beside(((sums,),), None), kind="sums"
        )
    if chunks and lists:
        own = Digest(algorithm="sha256", hex=chunks.digests.hex())
        title = f"the chunk digests of {artifact.name}"
        yield MirroredFile(title=title, path=_path(lists[0][0]), artifact=beside(lists, own), kind="chunk list")
    yield MirroredFile(
        title=artifact.name, path=_path(_file_url(tiers[0][0], artifact.title)), artifact=whole, sums=path
    )


def _file_url(url: str, title: str | None) -> str:
    """The URL of the file itself; of a layer with this `title`, one of that name in the manifest's repository."""
    if title is None:
        return url
    return f"{url.partition('/v2/')[0]}/{registry.repository_name(url)}/{quote(title)}"


def _origin(url: str) -> Origin | None:
    try:
        return parse(url).origin
    except UrlError:
        return None


def _path(url: str) -> str:
    """Where the file at `url` is in the mirror. Raises InputError if it cannot be there.

    A `:` of a port is `_`, for file systems without it. A query becomes a folder, by its digest: it may be secret.
    """
    try:
        parsed = parse(url)
    except UrlError as error:
        raise _unusable(url, f"{error}") from None
    parts = [parsed.host_and_port.replace(":", "_"), *filter(None, parsed.path.split("/"))]
    if parsed.path.endswith("/") or len(parts) == 1:
        raise _unusable(url, "names no file")
    if parsed.query:
        parts.insert(-1, hashlib.sha256(parsed.query.encode()).hexdigest()[:16])
    path = "/".join(map(unquote, parts))
    if reason := path_problem(path) or ("contains ${" if "${" in path else None):
        raise _unusable(url, f"would be the file {path!a}, which {reason}")
    return path


def _template(url: str) -> str:
    """Where the files at `url` are in the mirror: a relative URL with its ${facts}. Raises InputError."""
    names = facts.references(url)
    numbers = iter(range(len(names)))
    marked = facts.fill(url, lambda _: _MARK.format(next(numbers)))
    if "?" in url and facts.references(url.partition("?")[2]):
        raise _unusable(url, "has a ${fact} in its query")
    return _MARKED.sub(lambda match: f"${{{names[int(match[1])]}}}", quote(_path(marked)))


def _unusable(url: str, why: str) -> InputError:
    message = f"{redact(url)} cannot be mirrored: it {why}"
    return InputError(Problem(reference="mirror-url", message=message, hint="leave its artifact out"))
