"""Chunk digests: how a file is cut, the list of its chunks' digests, and what a configuration says of them.

The list has one SHA-256 a line, 64 lower-case hexadecimal digits, in the order of the file; in memory it is 32 bytes a
chunk. All chunks are of one size but the last, which has what remains.
"""

from __future__ import annotations

from pxe_fetch.contract import document, quantity, rules
from pxe_fetch.contract.model import NO_CHUNKS, Chunks, Digest
from pxe_fetch.contract.section import Section

SUFFIX = ".chunks"  # of the list that pxe-pack writes beside a file
DIGEST = 32  # bytes
LINE = 65  # bytes: 64 hexadecimal digits and a newline
STEP = 4 * 1024  # a page: chunks begin where a file system's blocks do
SMALLEST = 64 * 1024
LARGEST = 1024 * 1024 * 1024
MOST = 1 << 17  # chunks: 4 MiB of digests
NONE = "none"  # instead of the section: pxe-pack is to make no digests of a source's chunks

_RECIPE = "`split -b {size} --filter=sha256sum FILE | cut -c-64` prints them; or give `source:` and pxe-pack does it"


def count(size: int, *, chunk: int) -> int:
    """How many chunks of `chunk` bytes a file of `size` bytes has."""
    return -(-size // chunk)


def fitting(size: int, *, least: int = SMALLEST) -> int:
    """The size of chunks for a file of `size` bytes: `least`, doubled until there are at most MOST."""
    return next(each for each in (least << power for power in range(64)) if count(size, chunk=each) <= MOST)


def listed(digests: bytes) -> str:
    """The list of `digests`, as a file has it."""
    return "".join(f"{digests[at : at + DIGEST].hex()}\n" for at in range(0, len(digests), DIGEST))


def unlisted(text: bytes, *, number: int) -> bytes:
    """The digests of a list that has to have `number` of them. Raises ValueError, which says what is wrong with it."""
    lines = text.split()
    if len(lines) != number:
        raise ValueError(f"it has {len(lines)} lines, and the file has {number} chunks")
    try:
        digests = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise ValueError("it has something else than SHA-256 digests") from None
    if any(len(line) != LINE - 1 for line in lines):
        raise ValueError("it has something else than SHA-256 digests")
    return digests


def read(artifact: Section, *, size: int | None, base_url: str | None) -> Chunks | None:
    """What the `artifact`, a file of `size` bytes, says of its chunks; problems are collected in the section."""
    if artifact.says("chunks", NONE):
        if not artifact.has("source"):
            message = f"{artifact.path}.chunks is `{NONE}`, and there is no `source` of which pxe-pack would make any"
            artifact.add("chunks-unclear", message, where=artifact.where("chunks"), hint="leave it out")
        return NO_CHUNKS
    section = artifact.section("chunks")
    if section is None:
        return None
    chunk = _chunk_size(section)
    urls = _urls(section, base_url)
    digests = section.one_or_more("sha256", rules.digest("sha256", 2 * DIGEST)) or ()
    if not section.has("size"):
        hint = "of each but the last, as in `size: 4MiB`"
        section.add("chunk-size-missing", f"{section.path} has no `size`", hint=hint)
    if artifact.has("source"):
        _check_source(section)
        found = Chunks(size=chunk or LARGEST)
    else:
        _check_list(section, has_urls=bool(urls))
        _check_count(section, artifact, size=size, chunk=chunk)
        found = _found(urls, digests, chunk=chunk or LARGEST)
    section.close()
    return found


def _found(urls: tuple[str, ...], digests: tuple[Digest, ...], *, chunk: int) -> Chunks:
    if urls:
        return Chunks(size=chunk, urls=urls, digest=digests[0] if digests else None)
    return Chunks(size=chunk, digests=b"".join(bytes.fromhex(digest.hex) for digest in digests))


def _chunk_size(section: Section) -> int | None:
    size = section.size("size", None)
    if size is not None and (size % STEP or not SMALLEST <= size <= LARGEST):
        section.add(
            "chunk-size-invalid",
            f"{section.path}.size is not a size of chunks",
            where=section.where("size"),
            label="a multiple of 4 KiB from 64 KiB to 1 GiB",
            hint="4MiB suits most files",
        )
        return None
    return size


def _urls(section: Section, base_url: str | None) -> tuple[str, ...]:
    url = section.text("url", rules.url)
    urls = section.texts("urls", rules.url) or ()
    if section.has("url") and section.has("urls"):
        message = f"{section.path} has url and urls; one of them says it all"
        section.add("chunks-unclear", message, where=section.where("urls"))
    elif section.is_empty_list("urls"):
        section.add("chunks-unclear", f"{section.path}.urls is empty", where=section.where("urls"))
    return rules.joined((url,) if url else urls, base_url)


def _check_source(section: Section) -> None:
    for key in ("sha256", "url", "urls"):
        if section.has(key):
            section.add(
                "chunks-of-source",
                f"{section.path}.{key} is given for a `source`",
                where=section.where(key),
                hint="leave it out: pxe-pack makes the digests of a source",
            )


def _check_list(section: Section, *, has_urls: bool) -> None:
    """Whether there is a list of digests, and one alone: here, or in a file that its own digest names."""
    has_list = section.has("sha256") and isinstance(section.mapping.entries["sha256"].value, document.Sequence)
    if not section.has("sha256"):
        named = has_urls or section.has("url") or section.has("urls")
        message = "names a list without its digest" if named else "has no digests"
        hint = "sha256 is the digest of the list itself: `sha256sum m.bin.chunks`" if named else _recipe("4M")
        section.add("chunks-unpinned", f"{section.path} {message}", hint=hint)
    elif has_list and has_urls:
        section.add(
            "chunks-unclear",
            f"{section.path} has a list of digests and the url of one",
            where=section.where("sha256"),
            hint="with url, sha256 is the one digest of the list itself",
        )


def _check_count(section: Section, artifact: Section, *, size: int | None, chunk: int | None) -> None:
    if size is None:
        if not artifact.has("size"):
            hint = "`stat -c %s FILE` prints it"
            artifact.add(
                "size-missing", f"{artifact.path} has chunks and no `size`", where=section.mapping.at, hint=hint
            )
        return
    if size == 0:
        section.add("chunk-count", f"{artifact.path} is empty, and an empty file has no chunks")
    if not size or chunk is None:
        return
    number = count(size, chunk=chunk)
    if number > MOST:
        least = fitting(size)
        message = f"{artifact.path} would have {number} chunks, and the most is {MOST}"
        hint = f"`size: {quantity.show_size(least)}` or more" if least <= LARGEST else "leave `chunks` out"
        section.add("chunk-size-invalid", message, where=section.where("size"), hint=hint)
        return
    if section.has("url") or section.has("urls") or not section.has("sha256"):
        return
    value = section.mapping.entries["sha256"].value
    given = len(value.items) if isinstance(value, document.Sequence) else 1
    if given != number:
        chunks = f"{number} chunks of {quantity.show_size(chunk)}"
        message = f"{section.path}.sha256 has {given} digests, and a file of {quantity.show_size(size)} has {chunks}"
        section.add("chunk-count", message, where=section.where("sha256"), hint=_recipe(str(chunk)))


def _recipe(size: str) -> str:
    return _RECIPE.format(size=size)
