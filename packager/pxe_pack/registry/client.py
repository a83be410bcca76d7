"""One repository of a container registry, by HTTP.

Sources: OCI Distribution Specification 1.1, "Pull" and "Push" (a blob in one request after POST); the login as
pxe_fetch.contract.registry has it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

import requests
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from pxe_fetch.contract.problem import Problem, printable
from pxe_fetch.contract.registry import (
    ACCEPT,
    IMAGE_MANIFEST,
    LARGEST_MANIFEST,
    LARGEST_TOKEN,
    Login,
    blob_url,
    token_in,
    token_request,
    written,
)
from pxe_fetch.contract.url import Url, UrlError, join, parse, with_query
from pxe_pack.hashing import BLOCK
from pxe_pack.tools import WorkError

_TIMEOUT = 30.0  # seconds, to connect and without a byte
_COMMIT = 10 << 20  # bytes a second: how slowly a registry may put away what it was sent, before it answers
_REDIRECTS = 10
_MOVED = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_ATTEMPTS = 4
_OK, _CREATED, _ACCEPTED, _PARTIAL, _UNAUTHORIZED, _NOT_FOUND, _NOT_ALLOWED = 200, 201, 202, 206, 401, 404, 405


class PassingError(requests.RequestException):
    """A status that another attempt may not bring."""


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    is_trust = isinstance(error, requests.exceptions.SSLError)
    return isinstance(error, (PassingError, requests.ConnectionError, requests.Timeout)) and not is_trust


_again = retry(
    retry=retry_if_exception(_is_passing),
    wait=wait_random_exponential(max=10),
    stop=stop_after_attempt(_ATTEMPTS),
    reraise=True,
)


@dataclass(kw_only=True, slots=True)
class Repository:
    """The repository of a manifest's URL. Each method raises WorkError, or requests.RequestException after attempts."""

    url: str  # of a manifest, by tag or digest
    login: Login
    session: requests.Session
    _authorization: str = field(default="", init=False, repr=False)

    @_again
    def manifest(self) -> bytes:
        """The manifest, of at most LARGEST_MANIFEST bytes; if its URL has a digest, with that."""
        body = _bounded(self._ask("GET", self.url, {"Accept": ACCEPT}), limit=LARGEST_MANIFEST)
        digest = self.url.rpartition("/")[2]
        if ":" in digest and digest_of(body, like=digest) != digest:
            raise wrong(f"{written(self.url)} is another manifest: it has the digest {digest_of(body, like=digest)}")
        return body

    @_again
    def find_manifest(self) -> bytes | None:
        """The manifest that the URL's tag names, of at most LARGEST_MANIFEST bytes; None if there is none."""
        answer = self._ask("GET", self.url, {"Accept": ACCEPT}, known=(_OK, _NOT_FOUND))
        return _bounded(answer, limit=LARGEST_MANIFEST) if answer.status_code == _OK else None

    @_again
    def has(self, digest: str) -> bool:
        """Whether it has the blob."""
        return self._has(digest)

    def _has(self, digest: str) -> bool:
        answer = self._ask("HEAD", blob_url(self.url, digest), {}, known=(_OK, _NOT_FOUND))
        return answer.status_code == _OK

    @_again
    def text(self, digest: str, *, limit: int) -> bytes:
        """The blob, of at most `limit` bytes, verified."""
        body = _bounded(self._ask("GET", blob_url(self.url, digest), {}), limit=limit)
        if digest_of(body, like=digest) != digest:
            raise wrong(f"the registry sent other bytes than those of {digest}")
        return body

    def pieces(self, digest: str, *, size: int) -> Iterator[bytes]:
        """The bytes of a blob of `size` bytes; where they break off, the rest is asked for. Not verified here."""
        done, failed = 0, 0
        while done < size:
            before = done
            try:
                answer = self._ask("GET", blob_url(self.url, digest), _range(done), known=(_OK, _PARTIAL))
                skipped = done if answer.status_code == _OK else 0  # a registry without ranges begins at 0
                for piece in answer.iter_content(BLOCK):
                    new, skipped = piece[skipped:], max(0, skipped - len(piece))
                    done += len(new)
                    if done > size:
                        raise wrong(f"the registry sent more than the {size:,} bytes of {digest}")
                    yield new
            except requests.RequestException:
                failed = 1 if done > before else failed + 1
                if failed >= _ATTEMPTS:
                    raise
            else:
                if done < size:
                    raise wrong(f"the registry sent {done:,} of the {size:,} bytes of {digest}")

    @_again
    def put(self, digest: str, size: int, opened: Callable[[], IO[bytes]]) -> bool:
        """Upload the blob that `opened` opens anew for each attempt, unless it is there; whether it was sent.

        A registry may have it although the answer to an attempt was lost.
        """
        if self._has(digest):
            return False
        start = f"{blob_url(self.url, '')}uploads/"
        begun = self._ask("POST", start, {"Content-Length": "0"}, known=(_ACCEPTED,))
        target = with_query(_redirected(parse(start), begun).raw, f"digest={digest}")
        fields = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._ask("PUT", target, fields, body=opened, known=(_CREATED, _ACCEPTED))
        return True

    @_again
    def put_manifest(self, body: bytes) -> str:
        """Upload a manifest, which the URL's tag then names; its digest."""
        self._ask("PUT", self.url, {"Content-Type": IMAGE_MANIFEST}, body=lambda: io.BytesIO(body), known=(_CREATED,))
        return digest_of(body)

    def _ask(
        self,
        method: str,
        url: str,
        fields: Mapping[str, str],
        *,
        body: Callable[[], IO[bytes]] | None = None,
        known: tuple[int, ...] = (_OK,),
    ) -> requests.Response:
        """The answer, its body unread, if it has one of the `known` statuses; after redirects, and with a login."""
        registry, target, is_renewed = parse(self.url), parse(url), False
        for _ in range(_REDIRECTS):
            is_own = target.origin == registry.origin  # a storage that a blob is redirected to is told nothing
            login = {"Authorization": self._authorization} if is_own and self._authorization else {}
            answer = self._send(method, target, {**fields, **login}, body)
            if answer.status_code == _UNAUTHORIZED and is_own and not is_renewed:
                self._authorization = self._renewed(answer)
                is_renewed = True
            elif answer.status_code in _MOVED:
                target = _redirected(target, answer)
            elif answer.status_code in known:
                return answer
            else:
                raise _refused(answer, f"{method} {target}")
        raise wrong(f"more than {_REDIRECTS} redirects, the last to {target}")

    def _send(
        self, method: str, url: Url, fields: Mapping[str, str], body: Callable[[], IO[bytes]] | bytes | None
    ) -> requests.Response:
        opened = body() if callable(body) else body
        # An empty file would be sent in chunks; `auth` keeps requests from looking into ~/.netrc.
        data = b"" if fields.get("Content-Length") == "0" else opened
        try:
            return self.session.request(
                method,
                url.request_url,
                headers={**fields, "Accept-Encoding": "identity"},
                data=data,
                auth=_keep,
                verify=self.session.verify,  # else requests prefers what the environment names
                allow_redirects=False,
                stream=True,
                timeout=(_TIMEOUT, _TIMEOUT + int(fields.get("Content-Length", 0)) / _COMMIT),
            )
        finally:
            if opened is not None and not isinstance(opened, bytes):
                opened.close()

    def _renewed(self, answer: requests.Response) -> str:
        """The Authorization field that the challenge of a 401 wants."""
        host = parse(self.url).host_and_port
        try:
            wanted = token_request(answer.headers.get("WWW-Authenticate", ""), self.login)
            if wanted is None:
                return self.login.basic
            server = parse(wanted.url)
            if server.scheme != "https" and (server.scheme != "http" or self.url.startswith("https:")):
                raise wrong(f"the registry {host} wants tokens from {server}, which is unprotected")
            method = "GET" if wanted.body is None else "POST"
            given = self._send(method, server, wanted.fields, wanted.body)
            if given.status_code != _OK:
                raise _refused(given, f"the token server {server}")
            return f"Bearer {token_in(_bounded(given, limit=LARGEST_TOKEN))}"
        except UrlError as error:
            raise wrong(f"the registry {host} names a token server whose URL {error}") from error
        except ValueError as error:
            message = f"the registry {host}: {error}"
            hint = "log in with `docker login`, `podman login` or `oras login`, or give --login FILE"
            raise WorkError(Problem(reference="registry-refused", message=message, hint=hint)) from error


def _keep(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _range(offset: int) -> dict[str, str]:
    return {"Range": f"bytes={offset}-"} if offset else {}


def _bounded(answer: requests.Response, *, limit: int) -> bytes:
    body = bytearray()
    for piece in answer.iter_content(BLOCK):
        body += piece
        if len(body) > limit:
            raise wrong(f"the registry sent more than {limit:,} bytes, which is too much")
    return bytes(body)


def _redirected(url: Url, answer: requests.Response) -> Url:
    try:
        target = join(url, answer.headers.get("Location", "").encode("latin-1", "replace"))
    except UrlError as error:
        raise wrong(f"{url} redirects to a URL that {error}") from error
    if target.scheme not in {"http", "https"} or (url.scheme, target.scheme) == ("https", "http"):
        raise wrong(f"{url} redirects to {target}, which is not protected")
    return target


def digest_of(body: bytes, *, like: str = "sha256:") -> str:
    """The digest of `body`, by the algorithm of the digest `like`."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def wrong(message: str) -> WorkError:
    """The error that a registry did what it must not."""
    return WorkError(Problem(reference="registry-wrong", message=message))


def _refused(answer: requests.Response, what: str) -> WorkError | PassingError:
    """The error for a status: one to try again, or the end, with the registry's own words (spec, "Error Codes")."""
    status = answer.status_code
    if status in _PASSING:
        return PassingError(f"{what} was answered with {status}")
    said = ""
    try:
        errors = json.loads(_bounded(answer, limit=BLOCK))["errors"]
        said = ": " + "; ".join(str(one["message"]) for one in errors)
    except (WorkError, requests.RequestException, ValueError, KeyError, TypeError):
        said = ""
    hint = ""
    if status in {401, 403}:
        hint = "log in with `docker login`, `podman login` or `oras login`, or give --login FILE"
    elif status == _NOT_ALLOWED:
        hint = "the registry may be read-only, or a cache of another one: push to one that takes uploads"
    elif status == _NOT_FOUND:
        hint = "the registry does not have it: check the repository's name, and the tag or digest"
    message = f"{what} was answered with {status}{printable(said[:300])}"
    return WorkError(Problem(reference="registry-refused", message=message, hint=hint))
