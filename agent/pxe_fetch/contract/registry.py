"""Container registries: references, the URLs behind them, manifests, and how a client logs in.

Sources: OCI Distribution Specification 1.1 ("Pull"), for names and URLs; OCI Image Specification 1.1, for manifests,
descriptors and annotations; "Token Authentication Specification" and "Oauth2 Token Authentication" of the CNCF
Distribution project, for tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import NamedTuple
from urllib.parse import quote, urlencode

from pxe_fetch.contract import facts
from pxe_fetch.contract.problem import RuleError, printable
from pxe_fetch.contract.record import record
from pxe_fetch.contract.url import UrlError, parse, with_query

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ACCEPT = (  # a registry may answer 404 for a manifest of a type that is not accepted
    f"{IMAGE_MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
    ", application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
)
# Limits as those of containers/image (internal/iolimits), with which skopeo and podman read.
LARGEST_MANIFEST = 4 * 1024 * 1024  # bytes
_LARGEST = 2**63 - 1  # bytes of a file (off_t); descriptors have an int64 too
LARGEST_TOKEN = 1024 * 1024  # bytes of a token server's answer
TITLE = "org.opencontainers.image.title"  # annotation: the name of the file in a layer
CHUNK_SIZE = "io.pxe-pack.chunk-size"  # annotation of a list of chunk digests: the bytes in each chunk but the last

# Compiled when they are first used: most configurations name no registry.
_WRITTEN = r"(?:(https?|oci)://)?([^/@]+)/([^@]+?)(?::([^/:@]+))?(?:@([^@]+))?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_URL = r"([A-Za-z]+)://(.*?)/v2/(.+)/manifests/([^/?]+)(\?.*)?"  # a cache has it by any scheme, below any path
# The look behind keeps a long word without `=` from being tried from each of its letters.
_PARAMETER = r'(?<![A-Za-z])([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'  # RFC 9110, 11.2
DOCKER_HUB = {"docker.io": "registry-1.docker.io"}  # the name in references, and the host of its API


def manifest_url(text: str) -> str:
    """The URL of the manifest that the reference `text` names: `registry.lan/site/model@sha256:…`. Raises RuleError.

    `:TAG` may stand in front of the digest, which counts, or in its place. A reference means https, unless `http://` is
    in front of it. ${facts} may be anywhere but in the digest.
    """
    match = re.fullmatch(_WRITTEN, text)
    if not match:
        label = "as in registry.lan/site/model@sha256:…"
        raise RuleError("is not a reference of a registry", reference="oci-invalid", label=label)
    scheme, host, repository, tag, digest = match.groups()
    place, name, filled_tag = (facts.fill(part or "", lambda _: "1.1") for part in (host, repository, tag))
    try:
        parse(f"https://{place}/")
    except UrlError as error:
        raise RuleError(f"is a URL that {error}", reference="oci-invalid") from None
    has_host = scheme in {"http", "https"} or place == "localhost" or "." in place or ":" in place
    for is_right, message, hint in (
        (has_host, "names no registry", f"write it in front, as in docker.io/{text}; without a dot, with https://"),
        (re.fullmatch(_REPOSITORY, name), "has no valid repository", "lower-case letters, digits, `.`, `_`, `-`, `/`"),
        (not tag or re.fullmatch(_TAG, filled_tag), "has no valid tag", "letters and digits; `.`, `_` and `-`"),
        (not digest or re.fullmatch(_DIGEST, digest), "has no valid digest", "sha256: and 64 hexadecimal digits"),
        (digest or tag, "has neither a digest nor a tag", "write @sha256:…; for `pxe-pack lock` and `push` a tag"),
    ):
        if not is_right:
            raise RuleError(message, reference="oci-invalid", hint=hint)
    plain = "http" if scheme == "http" else "https"
    return f"{plain}://{DOCKER_HUB.get(host, host)}/v2/{repository}/manifests/{digest or tag}"


def written(url: str) -> str:
    """The reference of which `url` is the manifest's URL; `manifest_url` reads it back. `url`, if it is none's."""
    match = re.fullmatch(_URL, url)
    if not match:
        return url
    scheme, host, repository, last, _ = match.groups()
    is_short = scheme == "https" and ("." in host or ":" in host or host == "localhost")
    place = host if is_short else f"{scheme}://{host}"
    return f"{place}/{repository}{'@' if ':' in last else ':'}{last}"


def with_digest(url: str, digest: str) -> str:
    """The manifest's URL `url` with `digest` in place of its tag or digest."""
    return f"{url.rpartition('/')[0]}/{digest}"


def repository_name(url: str) -> str:
    """The name of the repository of the manifest's URL `url`; empty if it is none's."""
    return match[3] if (match := re.fullmatch(_URL, url)) else ""


def blob_url(url: str, digest: str) -> str:
    """The URL of the blob `digest` in the repository of the manifest's URL `url`. Raises ValueError if it is none."""
    if not (match := re.fullmatch(_URL, url)):
        raise ValueError("is not the URL of a manifest in a registry: /v2/NAME/manifests/DIGEST")
    return f"{match[1]}://{match[2]}/v2/{match[3]}/blobs/{digest}{match[5] or ''}"


def digest_of(urls: Iterable[str]) -> str | None:
    """The one digest of the manifest that all of its `urls` have; None if one has a tag, or another digest."""
    found = {match[4] if (match := re.fullmatch(_URL, url)) else "" for url in urls}
    digest = found.pop() if len(found) == 1 else ""
    return digest if re.fullmatch(_DIGEST, digest) else None


class Layer(NamedTuple):
    """A file in a registry, as a manifest describes it."""

    title: str  # empty: it has none
    digest: str  # `algorithm:hex`
    size: int  # bytes
    chunk_size: str = ""  # of a list of chunk digests: bytes, as written


def read_manifest(body: bytes) -> list[Layer]:
    """The layers in the manifest `body`, at most LARGEST_MANIFEST bytes.

    An index, which names manifests for several platforms, is refused: an artifact has one digest. Raises ValueError
    with a sentence.
    """
    document = _loaded(body)
    layers, index = _of(document, "layers"), _of(document, "manifests")
    if isinstance(layers, list):
        return list(map(_layer, layers))
    if index == []:
        raise ValueError("it is an index that names no manifest")
    if isinstance(index, list):
        several = printable(", ".join(map(_platform, index))[:600])
        message = f"it is an index of several manifests: name one, with `when: {{arch: …}}`: {several}"
        raise ValueError(message)  # noqa: TRY004  of a server's text
    raise ValueError("it is not the JSON of an image manifest, which has `layers`")


def find_layer(layers: Sequence[Layer], title: str) -> Layer:
    """The one layer of that title. Raises ValueError as `read_manifest`."""
    found = [layer for layer in layers if layer.title == title]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"several layers have the title {printable(title)}")
    if titles := printable(", ".join(layer.title for layer in layers if layer.title)[:300]):
        raise ValueError(f"no layer has the title {printable(title)}; there are: {titles}")
    raise ValueError("no layer has a title: it may be a container image")


def _loaded(text: bytes) -> object:
    """The value of `text` as JSON; None if it is not JSON."""
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _of(entry: object, key: str) -> object:
    return entry.get(key) if isinstance(entry, dict) else None


def _platform(entry: object) -> str:
    """`linux/arm64 sha256:…`, of an entry of an index."""
    words = (_of(_of(entry, "platform"), key) for key in ("os", "architecture", "variant"))
    return f"{'/'.join(map(str, filter(None, words)))} {_of(entry, 'digest')}".strip()


def _layer(entry: object) -> Layer:
    digest, size, notes = (_of(entry, key) for key in ("digest", "size", "annotations"))
    if not isinstance(digest, str) or not re.fullmatch(_DIGEST, digest):
        raise ValueError("it has a layer without a digest by SHA-256 or SHA-512")
    if type(size) is not int or not 0 <= size <= _LARGEST:
        raise ValueError("it has a layer without a size that a file can have")
    title, chunk = (value if isinstance(value := _of(notes, key), str) else "" for key in (TITLE, CHUNK_SIZE))
    return Layer(title=title, digest=digest, size=size, chunk_size=chunk)


@record
class Login:
    """Who logs in to a registry: a user with a password, or an identity token; nobody if all are empty."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """User and password as the value of an Authorization field (RFC 7617)."""
        from base64 import b64encode

        return f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


class TokenRequest(NamedTuple):
    """How a token is asked for: by GET, or with a `body` by POST."""

    url: str
    fields: Mapping[str, str]
    body: bytes | None


def token_request(challenge: str, login: Login) -> TokenRequest | None:
    """What to ask for a token that answers the WWW-Authenticate field `challenge`; None: `login.basic` is the answer.

    Raises ValueError if it names no way to log in that is known, or none for `login`.
    """
    bearer = re.search(r"(?:^|,)\s*bearer\s+(.*)", challenge, re.IGNORECASE)
    if not bearer:
        if not re.search(r"(?:^|,)\s*basic(?:\s|$)", challenge, re.IGNORECASE):
            raise ValueError("names no way to log in that is known: Bearer or Basic")
        if not login.user:
            raise ValueError("wants a user and password")
        return None
    found: dict[str, str] = {}
    for name, quoted, plain in re.findall(_PARAMETER, bearer[1]):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or plain)
    if not found.get("realm"):
        raise ValueError("names no token server")
    scopes = found.get("scope", "").split()
    service = {"service": found["service"]} if found.get("service") else {}
    if login.identity_token:
        form = {"grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": "pxe-fetch"}
        body = urlencode({**form, **service, "scope": " ".join(scopes)}).encode()
        return TokenRequest(found["realm"], {"Content-Type": "application/x-www-form-urlencoded"}, body)
    query = urlencode([*service.items(), *(("scope", scope) for scope in scopes)], quote_via=quote, safe=":/,")
    return TokenRequest(with_query(found["realm"], query), {"Authorization": login.basic} if login.user else {}, None)


def token_in(answer: bytes) -> str:
    """The token in a token server's answer. Raises ValueError if it has none."""
    document = _loaded(answer)
    token = _of(document, "token") or _of(document, "access_token")
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError("its answer has no token")
    return token
