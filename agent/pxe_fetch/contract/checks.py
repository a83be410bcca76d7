"""Rules about several values at once: one origin, one digest, distinct names and destinations.

Each check adds its problems to the section that it checks.
"""

from __future__ import annotations

from typing import TypedDict

from pxe_fetch.contract import chunks as cut
from pxe_fetch.contract import model, paths, quantity, validators
from pxe_fetch.contract.document import Section, Sequence
from pxe_fetch.contract.url import scheme_of

_EVERY_NODE = model.When()
_OF_SOURCE = "is given for a `source`"
_LEAVE_OUT = "leave it out: pxe-pack computes the digests of a source"
_RECIPE = "`split -b {size} --filter=sha256sum FILE | cut -c-64` prints them; or give `source:` and pxe-pack makes them"


def origin(artifact: Section) -> None:
    """Check that there is exactly one place to get the bytes from."""
    given = [key for key in model.ORIGINS if artifact.has(key)]
    if len(given) != 1:
        needed, found = ", ".join(model.ORIGINS), " and ".join(given) or "none"
        message = f"{artifact.path} needs exactly one of {needed}, and has {found}"
        artifact.add("source-unclear", message, where=artifact.where(given[-1]) if given else None)
    _check_not_empty(artifact, "source-unclear")


def digest(artifact: Section) -> None:
    """Check that there is one digest, or none if something else pins the bytes."""
    given = [key for key in model.DIGESTS if artifact.has(key)]
    if len(given) > 1:
        message = f"{artifact.path} has {' and '.join(given)}; give one digest"
        artifact.add("checksum-unclear", message, where=artifact.where(given[-1]))
    elif artifact.has("source") and artifact.has("sha256_url"):
        artifact.refuse("sha256_url", _OF_SOURCE, reference="checksum-of-source", hint=_LEAVE_OUT)
    if not given and not any(map(artifact.has, model.PINNED_BY)):
        message = f"{artifact.path} has no digest, so wrong bytes would go unnoticed"
        hint = "give sha256 (`sha256sum FILE` prints it), or `source:` and pxe-pack computes it"
        artifact.add("checksum-missing", message, hint=hint)


def secret(section: Section, artifact: model.Artifact, *, base_url: str | None) -> None:
    """Check that no url sends the credential unencrypted; the agent checks those that depend on the node."""
    urls = validators.joined(artifact.urls, base_url)
    unencrypted = any(scheme_of(url) == validators.UNENCRYPTED for url in urls)
    if unencrypted and artifact.header_credential and not artifact.insecure:
        section.add(
            "credential-unencrypted",
            f"{section.path} would send the credential {artifact.header_credential} unencrypted",
            where=section.where("urls" if section.has("urls") else "url"),
            label="anybody on the network could read it",
            hint="use https, or allow it with `insecure: true`",
        )


def dest(artifact: Section, path: str, roots: tuple[str, ...]) -> None:
    """Check that the destination is below an allowed root, up to its first ${fact}, and not in a protected place.

    The agent checks it with its facts filled in, and links resolved.
    """
    if path and (place := validators.protected_place(path)):
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
            section.add("name-taken", message, where=section.where("name"))
        if artifact.when != _EVERY_NODE or not artifact.dest:
            continue  # `when` may choose one of several for the same place
        first = dests.setdefault(artifact.dest, index)
        if first != index:
            message = f"{artifact.dest} is the destination of artifacts[{first}] too"
            section.add("dest-taken", message, where=section.where("dest"))
    for dest, index in dests.items():
        if outer := paths.enclosing(dest, dests):
            message = f"{dest} is inside {outer}, the destination of artifacts[{dests[outer]}]"
            sections[index].add("dest-taken", message, where=sections[index].where("dest"))


def when(section: Section | None) -> None:
    """Check that no key is empty: the artifact would be for every node, which nobody intends."""
    if section is None:
        return
    for key in section.mapping.entries:
        if not section.has(key) or section.is_empty_list(key):
            hint = "leave it out, or give globs that match the nodes: `*` matches any value"
            section.refuse(key, "is empty, so it would match every node", reference="when-empty", hint=hint)
    when(section.below("cmdline"))


def start(artifact: Section) -> None:
    """Check that there are units to start if that is required."""
    if artifact.has("start_required") and not artifact.has("start"):
        message, hint = "is given without `start`", "name the units in `start`"
        artifact.refuse("start_required", message, reference="start-missing", hint=hint)


def tls(section: Section | None) -> None:
    """Check that a client key has a certificate."""
    if section and section.has("client_key") and not section.has("client_cert"):
        section.add("tls-incomplete", "tls.client_key is given without tls.client_cert")


class ChunkValues(TypedDict, total=False):
    """The values of a `chunks` section."""

    size: int
    urls: tuple[str, ...]
    digests: tuple[str, ...]


def chunks(artifact: Section, given: ChunkValues | str, *, size: int | None, base_url: str | None) -> model.Chunks:
    """The chunks of `artifact`, a file of `size` bytes; `given` has the values of its section, or a word instead."""
    section = artifact.below("chunks")
    if section is None or isinstance(given, str):
        if not artifact.has("source"):
            message = f"is `{model.NO_CHUNKS_WORD}`, which only applies to a `source`"
            artifact.refuse("chunks", message, reference="chunks-unclear", hint="leave it out")
        return model.NO_CHUNKS
    chunk = given.get("size")
    urls = validators.joined(given.get("urls", ()), base_url)
    digests = given.get("digests", ())
    if section.has("url") and section.has("urls"):
        message = f"{section.path} has both url and urls; give one of them"
        section.add("chunks-unclear", message, where=section.where("urls"))
    _check_not_empty(section, "chunks-unclear")
    if artifact.has("source"):
        for key in filter(section.has, ("sha256", "url", "urls")):
            section.refuse(key, _OF_SOURCE, reference="chunks-of-source", hint=_LEAVE_OUT)
        return model.Chunks(size=chunk or cut.LARGEST)
    _check_list(section, has_urls=bool(urls))
    _check_count(section, artifact, size=size, chunk=chunk)
    if urls:
        named = model.Digest(algorithm="sha256", hex=digests[0]) if digests else None
        return model.Chunks(size=chunk or cut.LARGEST, urls=urls, digest=named)
    return model.Chunks(size=chunk or cut.LARGEST, digests=bytes.fromhex("".join(digests)))


def _check_not_empty(section: Section, reference: str) -> None:
    if section.is_empty_list("urls"):
        section.refuse("urls", "is empty", reference=reference)


def _check_list(section: Section, *, has_urls: bool) -> None:
    """Check that there is one list of digests: here, or in a file that is pinned by a digest."""
    has_list = isinstance(section.value("sha256"), Sequence)
    if not section.has("sha256"):
        named = has_urls or section.has("url") or section.has("urls")
        message = "names a list without its digest" if named else "has no digests"
        hint = (
            "sha256 is the digest of the list itself: `sha256sum m.bin.chunks`" if named else _RECIPE.format(size="4M")
        )
        section.add("chunks-unpinned", f"{section.path} {message}", hint=hint)
    elif has_list and has_urls:
        section.add(
            "chunks-unclear",
            f"{section.path} has both a list of digests and the url of one",
            where=section.where("sha256"),
            hint="with url, sha256 is the one digest of the list itself",
        )


def _check_count(section: Section, artifact: Section, *, size: int | None, chunk: int | None) -> None:
    if not artifact.has("size"):
        section.add("size-missing", f"{artifact.path} has chunks and no `size`", hint="`stat -c %s FILE` prints it")
    if size == 0:
        section.add("chunk-count", f"{artifact.path} is an empty file, which has no chunks")
    if not size or chunk is None:
        return
    number = cut.count(size, chunk=chunk)
    if number > cut.MOST:
        least = cut.fitting(size)
        message = f"{artifact.path} would have {number} chunks; at most {cut.MOST} are allowed"
        hint = f"`size: {quantity.show_size(least)}` or more" if least <= cut.LARGEST else "leave `chunks` out"
        section.add("chunk-size-invalid", message, where=section.where("size"), hint=hint)
        return
    if section.has("url") or section.has("urls") or not section.has("sha256"):
        return
    value = section.value("sha256")
    given = len(value.items) if isinstance(value, Sequence) else 1
    if given != number:
        whole = f"{number} chunks of {quantity.show_size(chunk)}"
        message = f"{section.path}.sha256 has {given} digests, but a file of {quantity.show_size(size)} has {whole}"
        section.add("chunk-count", message, where=section.where("sha256"), hint=_RECIPE.format(size=chunk))
