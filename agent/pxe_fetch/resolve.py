"""What pins the bytes of an artifact, where a server has it: a SHA256SUMS file, a registry's manifest, a chunk list."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract import registry, sha256sums
from pxe_fetch.contract.chunks import LINE, MOST, SUFFIX, chunk_size, count, unlisted
from pxe_fetch.contract.model import Chunks, Digest
from pxe_fetch.contract.problem import RuleError
from pxe_fetch.contract.registry import Layer
from pxe_fetch.contract.url import Tiers, each, flat, redact
from pxe_fetch.download.context import Context
from pxe_fetch.download.sequential import fetch_text
from pxe_fetch.errors import OF_THE_NODE, FetchError, IntegrityError, PolicyError
from pxe_fetch.plan import Source, Transfer
from pxe_fetch.transport import parse_url

_FEW = 4  # attempts without progress at a list that the artifact can do without


def resolved(transfer: Transfer, context: Context, *, is_unpinned_allowed: bool) -> Transfer:
    """`transfer` with all that pins its bytes; of a registry, also with the URLs of the layer.

    Without the list of chunk digests, a digest of the whole is enough. Raises FetchError; a PolicyError if nothing
    pins its bytes, and `pxe-pack lock`, which finds digests out, is not the caller.
    """
    if transfer.title is not None:
        if not is_unpinned_allowed and not registry.digest_of([transfer.listed_url]):
            raise _unpinned(transfer)
        transfer = _layer(transfer, context)
    if transfer.digest is None and transfer.sums:
        source = _small(transfer, mirrors=transfer.sums, what="digests")
        find = partial(_listed, parse_url(transfer.listed_url).path_bytes.rpartition(b"/")[2])
        transfer = replace(transfer, digest=find(fetch_text(source, context, limit=sha256sums.LARGEST, accept=find)))
    if transfer.chunks and transfer.chunk_map is None and transfer.size is not None:
        size, chunks = transfer.size, transfer.chunks
        number, own = count(size, chunk=chunks.size), Digest(algorithm="sha256", hex=chunks.digests.hex())
        source = _small(transfer, mirrors=chunks.mirrors, what="chunk digests", digest=own)
        if transfer.digest:
            tries = min(_FEW, source.retry.attempts_without_progress)
            source = replace(source, retry=replace(source.retry, attempts_without_progress=tries))
        try:
            text = fetch_text(source, context, limit=LINE * number)
            digests = unlisted(text, number=number)
        except ValueError as error:
            message = f"the list of chunk digests at {redact(source.urls[0])} cannot be used: {error}"
            raise PolicyError(message) from None
        except FetchError as error:
            if transfer.digest is None or isinstance(error, OF_THE_NODE):
                raise
            context.events.lost_chunks(transfer, error=str(error))
            return transfer
        # A registry's digest of the whole says the same: with both, the file would be read twice.
        whole = transfer.digest if transfer.title is None else None
        chunk_map = ChunkMap(size=size, chunk=chunks.size, digests=digests)
        transfer = replace(transfer, chunk_map=chunk_map, digest=whole)
    if not is_unpinned_allowed and transfer.digest is None and transfer.chunk_map is None:
        raise _unpinned(transfer)
    return transfer


def _listed(name: bytes, sums: bytes) -> Digest:
    """The digest of the file `name`. Raises IntegrityError: a mirror may be in the middle of an update."""
    try:
        return Digest(algorithm="sha256", hex=sha256sums.digest_of(name, sums=sums))
    except ValueError as error:
        raise IntegrityError(f"the list of digests {error}", expected="a line for it", found="none") from None


def _unpinned(transfer: Transfer) -> PolicyError:
    return PolicyError(f"nothing says which bytes {redact(transfer.listed_url)} must have: it has no digest")


def _layer(transfer: Transfer, context: Context) -> Transfer:
    """`transfer`, whose URLs are those of a manifest, as the layer with its title."""
    mirrors, pinned = transfer.mirrors, registry.digest_of([transfer.listed_url])
    for url in transfer.urls:
        try:
            registry.blob_url(url, "")
        except ValueError as error:
            message = f"{redact(url)}, which `tiers` puts before {redact(transfer.listed_url)}, {error}"
            raise PolicyError(message) from None
    source = _small(transfer, mirrors=mirrors, what="manifest", digest=_digest(pinned) if pinned else None)
    source = replace(source, headers={**source.headers, "Accept": registry.ACCEPT})
    body = fetch_text(source, context, limit=registry.LARGEST_MANIFEST)
    reference = registry.written(redact(transfer.listed_url))
    if not pinned:  # by a tag
        reference = f"{reference}@sha256:{hashlib.sha256(body).hexdigest()}"
    try:
        layers = registry.read_manifest(body)
        layer = registry.find_layer(layers, transfer.title or "")
    except ValueError as error:
        raise PolicyError(f"the manifest {reference} cannot be used: {error}") from None
    if transfer.size not in {None, layer.size}:
        raise PolicyError(f"{reference} has {layer.size} bytes, but the configuration has `size: {transfer.size}`")
    chunks = next((_chunks(one, layer, mirrors) for one in layers if one.title == layer.title + SUFFIX), None)
    found = replace(
        transfer,
        mirrors=each(mirrors, lambda url: registry.blob_url(url, layer.digest)),
        digest=_digest(layer.digest),
        size=layer.size,
        chunks=chunks,
    )
    context.events.resolved(found, reference=reference)
    return found


def _chunks(listed: Layer, layer: Layer, mirrors: Tiers) -> Chunks | None:
    """The list of chunk digests in the layer `listed`; None if it does not say how long a chunk is, or not rightly."""
    try:
        size = chunk_size(listed.chunk_size)
    except RuleError:
        return None
    number = count(layer.size, chunk=size)
    if not 0 < number <= MOST or listed.size != LINE * number or not listed.digest.startswith("sha256:"):
        return None
    digests = bytes.fromhex(_digest(listed.digest).hex)
    return Chunks(size=size, digests=digests, mirrors=each(mirrors, lambda url: registry.blob_url(url, listed.digest)))


def _digest(text: str) -> Digest:
    algorithm, _, digits = text.partition(":")
    return Digest(algorithm=algorithm, hex=digits)


def _small(transfer: Transfer, *, mirrors: Tiers, what: str, digest: Digest | None = None) -> Source:
    """Something small that belongs to `transfer`, fetched with the same persistence.

    Its headers, which may be secret, go to the servers of the artifact itself and to no other.
    """
    servers = {parse_url(url).origin for url in transfer.urls}
    is_theirs = all(parse_url(url).origin in servers for url in flat(mirrors))
    return Source(
        name=f"{transfer.name} ({what})",
        mirrors=mirrors,
        digest=digest,
        headers=transfer.headers if is_theirs else {},
        credentials=transfer.credentials if is_theirs else (),
        login=transfer.login,
        retry=transfer.retry,
        timeouts=transfer.timeouts,
    )
