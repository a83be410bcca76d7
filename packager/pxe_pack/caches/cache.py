"""A cache between the nodes and the server that has the files, its origin."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from pxe_fetch.contract.problem import Problem, printable
from pxe_fetch.contract.url import Url, UrlError, parse
from pxe_pack.chunks import DEFAULT_SIZE
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.nginx import port_of
from pxe_pack.layout.site import Site, Tls, packed_in
from pxe_pack.tools import InputError

SIZE = 100 << 30  # bytes on the cache's disk, by default
LEAST_SIZE = 1 << 30  # an ISO has to fit; in less than 1 MiB, Squid's own units are 0
# What is named by its digest never changes. As the path of a URL, without its leading slash (OCI Distribution
# Specification, "Pulling manifests" and "Pulling blobs").
IMMUTABLE = "v2/.+/(blobs|manifests)/sha256:"
REGISTRY = "v2/"  # the rest of a registry: tags, sessions, uploads
_MiB = 1 << 20
_LEAST_SLICE, _LARGEST_SLICE = _MiB, 16 * _MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """What a cache's configuration depends on."""

    origin: Url  # of the whole server: it has no path
    port: int  # for nodes that ask the cache as they would ask the origin
    folder: str  # for what is cached; empty: the server's usual place
    size: int = SIZE  # bytes in it at most
    slice: int = DEFAULT_SIZE  # bytes fetched from the origin by one request, where the server can do that
    tls: Tls | None = None

    @property
    def authority(self) -> str:
        """Host and port of the origin, as in a URL."""
        return self.origin.host_and_port

    @property
    def backend(self) -> str:
        """Host and port of the origin; the port is there even if it is the scheme's default."""
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        return f"{host}:{self.origin.port}"

    def folder_or(self, usual: str) -> str:
        """The folder for what is cached; `usual` if none was given. Raises InputError if its path cannot be written."""
        folder = posixpath.normpath(self.folder or usual)
        if not folder.startswith("/") or any(letter in folder for letter in " \t\"'\\;{}$#"):
            message = f"{folder} cannot be the folder of a cache"
            hint = "give an absolute path without blanks, quotes and $"
            raise InputError(Problem(reference="cache-folder", message=message, hint=hint))
        return folder


def origin_of(text: str) -> Url:
    """The server that `text` names. Raises InputError if it is not an http or https server, or more than a server."""
    hint = "give scheme, host and port of the server, for example http://10.0.0.1:8080"
    try:
        url = parse(text)
    except UrlError as error:
        raise InputError(Problem(reference="cache-origin", message=f"the origin's URL {error}", hint=hint)) from None
    if url.scheme not in {"http", "https"} or not url.host or url.port == 0:
        message = f"the origin {url} is not an http or https server"
    elif not _is_host(url.host):
        message = f"the origin's host {printable(url.host)} is neither a name nor an address"
    elif more := [
        *(["a user"] if url.userinfo is not None else []),
        *([f"the path {printable(url.path)}"] if url.path not in {"", "/"} else []),
        *(["a query"] if url.query is not None else []),
        *(["a fragment"] if url.fragment is not None else []),
    ]:
        message = f"the origin {url.scheme}://{url.host_and_port} has more than a host and a port: {', '.join(more)}"
    else:
        return url
    raise InputError(Problem(reference="cache-origin", message=message, hint=hint))


def _is_host(host: str) -> bool:
    """Whether `host` means what it is to a server's configuration, whose words end at other characters."""
    try:
        return bool(re.fullmatch(r"[A-Za-z0-9._-]+", host) or IPv6Address(host).scope_id is None)
    except ValueError:
        return False


def plain_origin(cache: Cache, server: str) -> None:
    """Raise InputError if the configuration of `server` would need TLS."""
    if cache.origin.scheme == "https" or cache.tls:
        message = f"pxe-pack writes a configuration with TLS for nginx-cache only, not for {server}"
        hint = f"use `pxe-pack snippet nginx-cache`, or an http origin: {cache.origin}"
        raise InputError(Problem(reference="cache-tls", message=message, hint=hint))


def layout_port(layout: Layout, *, tls: Tls | None) -> int:
    """The port in the layout's URLs, for which nodes have to find the cache. Raises InputError if it needs TLS."""
    base = Site(layout=layout, folder="").base
    if base and urlsplit(base).scheme == "https" and not tls:
        message = f"nginx needs a certificate to serve {base}"
        hint = "give one with --tls-cert FILE --tls-key FILE"
        raise InputError(Problem(reference="snippet-scheme", message=message, hint=hint))
    return port_of(base or "")


def layout_slice(layout: Layout) -> int:
    """Bytes of a slice for a layout: its smallest chunks, so that a node that lacks one chunk waits for no others.

    From 1 to 16 MiB: each slice costs a request, and what waits for one gets nothing until it is whole.
    """
    config = packed_in(layout)
    artifacts = config.artifacts if config else ()
    sizes = [artifact.chunks.size for artifact in artifacts if artifact.chunks and artifact.chunks.size]
    return min(max(min(sizes, default=DEFAULT_SIZE), _LEAST_SLICE), _LARGEST_SLICE)
