"""Rules about several values at once: one origin, one digest, distinct names and destinations.

Each check adds its problems to the section that it checks.
"""

from __future__ import annotations

from pxe_fetch import __version__
from pxe_fetch.contract import chunks as cut
from pxe_fetch.contract import model, paths, quantity, registry, validators
from pxe_fetch.contract.document import Section
from pxe_fetch.contract.keys import EXTENSION
from pxe_fetch.contract.problem import Problem, ProblemError, RuleError
from pxe_fetch.contract.url import scheme_of

_OF_SOURCE = "is given for a `source`"
_OF_OCI = "is given for an `oci`, whose manifest has it"
_LEAVE_OUT = "leave it out: pxe-pack computes the digests of a source"


def version(root: Section) -> None:
    """Check that this program is new enough: else other problems may be none of the file's. Raises ProblemError."""
    needed, given = root.value("min_agent"), root.value("version")
    if needed and validators.version.accepts(needed.text) and _numbers(needed.text) > _numbers(__version__):
        message, label = f"this configuration needs pxe-fetch {needed.text} or later; this is {__version__}", ""
        reference, spot, hint = "agent-too-old", needed.spot, "pack the image again with a newer pxe-pack"
    elif given and type(given.data) is int and given.data > model.VERSION:
        message = f"this configuration is of version {given.data}, which is newer than this program knows"
        reference, spot, label = "number-out-of-range", given.spot, f"known: {model.VERSION}"
        hint = f"use a newer pxe-pack, and its agent; or write `version: {model.VERSION}`"
    else:
        return
    where = root.problems.position(spot)
    raise ProblemError(Problem(reference=reference, message=message, where=where, label=label, hint=hint))


def _numbers(version: str) -> list[int]:
    return [*map(int, version.split("."))]


def origin(artifact: Section) -> None:
    """Check that there is exactly one place to get the bytes from."""
    given = [key for key in model.ORIGINS if artifact.has(key)]
    if len(given) != 1:
        needed, found = ", ".join(model.ORIGINS), " and ".join(given) or "none"
        message = f"{artifact.path} needs exactly one of {needed}, and has {found}"
        artifact.add("source-unclear", message, at=given[-1] if given else "")
    _check_not_empty(artifact, "source-unclear")


def digest(artifact: Section) -> None:
    """Check that there is at most one digest, and no `sha256_url` for a source."""
    given = [key for key in model.DIGESTS if artifact.has(key)]
    if len(given) > 1:
        message = f"{artifact.path} has {' and '.join(given)}; give one digest"
        artifact.add("checksum-unclear", message, at=given[-1])
    elif artifact.has("source") and artifact.has("sha256_url"):
        artifact.refuse("sha256_url", _OF_SOURCE, reference="checksum-of-source", hint=_LEAVE_OUT)


def in_registry(artifact: Section, urls: tuple[str, ...]) -> None:
    """Check that `oci` has a title, one digest for all mirrors, and nothing that the manifest says."""
    if not artifact.has("oci"):
        if artifact.has("title"):
            artifact.refuse("title", "is given without `oci`", reference="title-misplaced", hint="leave it out")
        return
    if not artifact.has("title"):
        hint = "the name of the file there, as in `title: m.bin`: the org.opencontainers.image.title of a layer"
        artifact.add("title-missing", f"{artifact.path} has oci and no `title`", at="oci", hint=hint)
    for key in filter(artifact.has, (*model.DIGESTS, "chunks")):
        artifact.refuse(key, _OF_OCI, reference="checksum-of-oci", hint="leave it out")
    if len(lasts := {url.rpartition("/")[2] for url in urls}) > 1 and any(":" in last for last in lasts):
        hint = "mirrors have the same manifest: give its digest to all of them"
        artifact.refuse("oci", "has several digests", reference="oci-digests", hint=hint)


def is_pinned(artifact: Section, urls: tuple[str, ...]) -> bool:
    """Whether it has what pins its bytes, or will have it when it is packed."""
    if artifact.has("oci"):
        return registry.digest_of(urls) is not None
    return any(map(artifact.has, (*model.DIGESTS, *model.PINNED_BY)))


def unpinned(artifact: model.Artifact, _urls: tuple[str, ...]) -> model.Artifact:
    """Refuse an artifact whose bytes nothing pins. Raises RuleError."""
    if artifact.title is not None:
        raise RuleError(
            "has a tag, which may mean other bytes tomorrow",
            reference="oci-tag",
            hint="run `pxe-pack lock FILE`, which writes its digest to a lock file; or give that: `@sha256:…`",
        )
    raise RuleError(
        "has no digest, so wrong bytes would go unnoticed",
        reference="checksum-missing",
        hint="run `pxe-pack lock FILE`, which downloads it and writes its digest to a lock file; or give sha256 "
        "(`sha256sum FILE` prints it), or `source:` and pxe-pack computes it",
    )


def secret(section: Section, sender: model.Artifact | model.Report, *, urls: tuple[str, ...]) -> None:
    """Check that none of `urls` sends a credential unencrypted; the agent checks those that depend on the node."""
    if credential := next(filter(None, (sent_unencrypted(sender, url) for url in urls)), None):
        section.add(
            "credential-unencrypted",
            f"{section.path} would send the credential {credential} unencrypted",
            at="urls" if section.has("urls") else "url",
            label="anybody on the network could read it",
            hint="use https, or allow it with `insecure: true`",
        )


def sent_unencrypted(sender: model.Artifact | model.Report, url: str) -> str | None:
    """The credential that `sender` would send to `url` as anybody on the network can read it; ftp and tftp send none.

    None if there is none, or if `insecure` allows it.
    """
    is_wrong = scheme_of(url) == "http" and not sender.insecure
    return next(iter(sender.credentials), None) if is_wrong else None


def dest(artifact: Section, path: str, roots: tuple[str, ...]) -> None:
    """Check that the destination is below an allowed root, up to its first ${fact}, and not in a protected place.

    The agent checks it with its facts filled in, and links resolved.
    """
    if path and (place := validators.PROTECTED_PLACES.of(path)):
        artifact.refuse(
            "dest",
            f"is refused: {place} belongs to the system, and no artifact goes there",
            reference="dest-protected",
            label=f"in {place}" if path.startswith(place) else f"contains {place}",
            hint="choose a dest in a folder of your own, such as /srv or /var/lib/NAME",
        )
        return
    fixed, _, _ = path.partition("${")
    if path and not any(fixed.startswith(root + "/") for root in roots):
        artifact.refuse(
            "dest",
            "is not below any of allowed_roots",
            reference="dest-outside-roots",
            label=f"expected below {', '.join(roots) or 'none: allowed_roots is empty'}",
            hint="allowed_roots: […] widens where the agent (and its unit's sandbox) may write",
        )


def distinct(sections: list[Section], artifacts: list[model.Artifact]) -> None:
    """Check that no two artifacts share a name, or a destination on the same node, and none is inside another's."""
    names: dict[str, int] = {}
    dests: dict[str, int] = {}
    for index, (section, artifact) in enumerate(zip(sections, artifacts, strict=True)):
        first = names.setdefault(artifact.name, index)
        if first != index and section.has("name"):
            message = f"the name `{artifact.name}` is taken by artifacts[{first}]"
            section.add("name-taken", message, at="name")
        if artifact.when.facts or artifact.when.cmdline or not artifact.dest:
            continue  # `when` may choose one of several for the same place
        first = dests.setdefault(artifact.dest, index)
        if first != index:
            message = f"{artifact.dest} is the destination of artifacts[{first}] too"
            section.add("dest-taken", message, at="dest")
    for dest, index in dests.items():
        if outer := paths.enclosing(dest, dests):
            message = f"{dest} is inside {outer}, the destination of artifacts[{dests[outer]}]"
            sections[index].add("dest-taken", message, at="dest")


def when(section: Section | None, *, ignored: tuple[str, ...] = (EXTENSION,)) -> None:
    """Check that no key is empty: the artifact would be for every node, which nobody intends."""
    if section is None:
        return
    for key in section.entries:
        if not key.startswith(ignored) and (not section.has(key) or section.is_empty_list(key)):
            hint = "leave it out, or give globs that match the nodes: `*` matches any value"
            section.refuse(key, "is empty, so it would match every node", reference="when-empty", hint=hint)
    when(section.below("cmdline"), ignored=())


def start(artifact: Section) -> None:
    """Check that there are units to start if that is required."""
    if artifact.has("start_required") and not artifact.has("start"):
        message, hint = "is given without `start`", "name the units in `start`"
        artifact.refuse("start_required", message, reference="start-missing", hint=hint)


def tls(section: Section | None) -> None:
    """Check that a client key has a certificate."""
    if section and section.has("client_key") and not section.has("client_cert"):
        section.add("tls-incomplete", "tls.client_key is given without tls.client_cert")


def chunks(artifact: Section, given: model.Chunks, *, size: int | None) -> None:
    """Check that one list has a digest for each chunk of `artifact`, a file of `size` bytes, or is named with its own.

    With a `source`, pxe-pack makes the list.
    """
    section = artifact.below("chunks")
    if section is None:
        if not artifact.has("source"):
            message = f"is `{model.NO_CHUNKS_WORD}`, which only applies to a `source`"
            artifact.refuse("chunks", message, reference="chunks-unclear", hint="leave it out")
        return
    has_url = section.has("url") or section.has("urls")
    if section.has("url") and section.has("urls"):
        section.add("chunks-unclear", f"{section.path} has both url and urls; give one of them", at="urls")
    _check_not_empty(section, "chunks-unclear")
    if artifact.has("source"):
        for key in filter(section.has, ("sha256", "url", "urls")):
            section.refuse(key, _OF_SOURCE, reference="chunks-of-source", hint=_LEAVE_OUT)
        return
    _check_pinned(section, has_url=has_url)
    if not artifact.has("size"):
        section.add("size-missing", f"{artifact.path} has chunks and no `size`", hint="`stat -c %s FILE` prints it")
    if size == 0:
        section.add("chunk-count", f"{artifact.path} is an empty file, which has no chunks")
    if size and given.size:
        _check_count(section, artifact, size=size, chunk=given.size, is_listed=section.has("sha256") and not has_url)


def _check_pinned(section: Section, *, has_url: bool) -> None:
    if not section.has("sha256"):
        message = "names a list without its digest" if has_url else "has no digests"
        hint = "sha256 is the digest of the list itself: `sha256sum m.bin.chunks`" if has_url else _recipe("4M")
        section.add("chunks-unpinned", f"{section.path} {message}", hint=hint)
    elif has_url and isinstance(_data(section, "sha256"), list):
        message = f"{section.path} has both a list of digests and the url of one"
        hint = "with url, sha256 is the one digest of the list itself"
        section.add("chunks-unclear", message, at="sha256", hint=hint)


def _check_count(section: Section, artifact: Section, *, size: int, chunk: int, is_listed: bool) -> None:
    number = cut.count(size, chunk=chunk)
    if number > cut.MOST:
        least = cut.fitting(size)
        message = f"{artifact.path} would have {number} chunks; at most {cut.MOST} are allowed"
        hint = f"`size: {quantity.show_size(least)}` or more" if least <= cut.LARGEST else "leave `chunks` out"
        section.add("chunk-size-invalid", message, at="size", hint=hint)
    elif is_listed:
        digests = _data(section, "sha256")
        given = len(digests) if isinstance(digests, list) else 1
        if given != number:
            whole = f"a file of {quantity.show_size(size)} has {number} chunks of {quantity.show_size(chunk)}"
            message = f"has {given} digests, but {whole}"
            section.refuse("sha256", message, reference="chunk-count", hint=_recipe(chunk))


def _data(section: Section, key: str) -> object:
    return value.data if (value := section.value(key)) else None


def _recipe(size: int | str) -> str:
    prints = f"`split -b {size} --filter=sha256sum FILE | cut -c-64` prints them"
    return f"{prints}; or give `source:` and pxe-pack makes them"


def _check_not_empty(section: Section, reference: str) -> None:
    for key in filter(section.is_empty_list, ("urls", "oci")):
        section.refuse(key, "is empty", reference=reference)
