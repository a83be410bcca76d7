"""Asks for a URL as the agent on a node does, so that the answer means here what it means there.

Of a file by http that is: a GET with a Range, and one without for servers that refuse ranges; no environment; the
configuration's proxies, with its exemptions; the image's CA bundle, or the configuration's own files; redirects by the
agent's rules.

Sources: RFC 9110 (9.3.7 OPTIONS, 14.2 Range, 15.4 redirects), RFC 3659 (FTP's SIZE); docs/node.md.
"""

from __future__ import annotations

import ftplib
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from pxe_fetch import __version__
from pxe_fetch.contract.model import Proxy, Tls
from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_fetch.contract.registry import Login, find_layer, read_manifest
from pxe_fetch.contract.url import Url, UrlError, join, parse
from pxe_pack import https
from pxe_pack.cleanup import temporary_folder
from pxe_pack.image.tree import RootTree, regular_file
from pxe_pack.registry.client import Repository
from pxe_pack.tools import WorkError

_TIMEOUT = 10  # seconds, to connect and for each response
_REDIRECTS = 10
_MOVED = frozenset({300, 301, 302, 303, 307, 308})
_RANGE_REFUSALS = frozenset({400, 406, 412, 416, 417, 431})
_NOT_THE_FILE = frozenset({201, 202, 204, 205})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_OF_PROXIES = frozenset({502, 503, 504})  # nodes ask without a proxy that answers so, if it has a fallback
_WAITS = (0.5, 1.5)  # seconds between attempts; nodes have more patience
_OK, _PARTIAL, _MULTIPLE, _UNSATISFIABLE = 200, 206, 300, 416
ERRORS = (requests.RequestException, OSError, EOFError, ValueError, ftplib.Error)  # that asking raises


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a server says of a file."""

    size: int | None  # bytes; None if it does not say
    ranges: bool  # whether a download can resume
    doubt: str = ""  # why its bytes may be other ones than those of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    status: int
    reason: str
    headers: Mapping[str, str]  # in any case
    body: bytes  # as much of it as was wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """Asks as nodes do. `refusal` is why it cannot ask by https."""

    proxy: Proxy
    bundle: Path | None = None  # None: this machine's authorities
    certificate: tuple[str, str] | None = None  # files with the client's certificate and its key
    refusal: str = ""

    def unasked(self, url: Url) -> str:
        """Why `url` cannot be asked for from here; empty if it can."""
        if url.scheme == "https" and self.refusal:
            return self.refusal
        if self.proxy.of(url) and self.proxy.credential:
            return "it is behind a proxy that needs a credential, which only nodes have"
        return ""

    def http(self, url: Url, headers: Mapping[str, str]) -> Found:
        """What an http or https server says of the file at `url`. Raises one of ERRORS."""
        answer = self._follow(url, {**headers, "Range": "bytes=0-0"})
        if answer.status == _UNSATISFIABLE and answer.headers.get("Content-Range", "").endswith("*/0"):
            return Found(size=0, ranges=True)
        if answer.status in _RANGE_REFUSALS:
            answer = self._follow(url, headers)
        status = answer.status
        if not _OK <= status < _MULTIPLE or status in _NOT_THE_FILE:
            raise requests.HTTPError(f"the server responded {status} {answer.reason}")
        doubt = _doubt(answer)
        if status == _PARTIAL:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            return Found(size=_whole(total), ranges=True, doubt=doubt)
        length = answer.headers.get("Content-Length", "")
        # the whole of an answer to a range over the only byte says nothing
        return Found(size=_whole(length), ranges=length in {"0", "1"}, doubt=doubt)

    def layer(self, url: Url, title: str, headers: Mapping[str, str]) -> Found:
        """What a registry says of the layer with that title in the manifest at `url`. Raises one of ERRORS."""
        with self._session(url) as session:
            session.headers.update(headers)
            repository = Repository(url=url.raw, login=Login(), session=session)
            try:
                found = find_layer(read_manifest(repository.manifest()), title)
                if not repository.has(found.digest):
                    raise requests.HTTPError(f"the registry has the manifest, but not the file {found.digest}")
            except WorkError as error:
                raise requests.HTTPError(str(error.problems[0])) from error
            return Found(size=found.size, ranges=True)

    def content(self, url: Url, *, limit: int) -> bytes:
        """The file at `url`, or the first `limit` + 1 bytes of it. Raises one of ERRORS."""
        if url.scheme == "ftp":
            return _ftp_content(url, limit)
        answer = self._follow(url, {}, wanted=limit + 1)
        if answer.status != _OK:
            raise requests.HTTPError(f"the server responded {answer.status} {answer.reason}")
        return answer.body

    def listens(self, url: Url) -> int:
        """The status with which the server of `url`, where something is to be posted, responds to OPTIONS.

        That is what RFC 9110, 9.3.7, has for such a question: it changes nothing. Raises one of ERRORS.
        """
        return self._send("OPTIONS", url, {}).status

    def _follow(self, own: Url, fields: Mapping[str, str], *, wanted: int = 0) -> _Answer:
        """The answer to a GET, after redirects, with `wanted` bytes of its body."""
        url = own
        for _ in range(_REDIRECTS + 1):
            fields = fields if url.origin == own.origin else _without_secrets(fields)
            answer = self._patient(url, fields, wanted)
            if answer.status not in _MOVED:
                return answer
            target = join(url, answer.headers.get("Location", "").encode("latin-1", "replace"))
            if target.scheme not in ("http", "https") or (url.scheme, target.scheme) == ("https", "http"):
                raise requests.HTTPError(f"a redirect to {target}, which nodes do not follow")
            url = target
        raise requests.TooManyRedirects(f"more than {_REDIRECTS} redirects")

    def _patient(self, url: Url, fields: Mapping[str, str], wanted: int) -> _Answer:
        """The answer to a GET, asked for again where another moment may bring another one."""
        for seconds in _WAITS:
            answer = self._send("GET", url, fields, wanted)
            if answer.status not in _PASSING:
                return answer
            time.sleep(seconds)
        return self._send("GET", url, fields, wanted)

    def _send(self, method: str, url: Url, fields: Mapping[str, str], wanted: int = 0) -> _Answer:
        with self._session(url) as session:
            request = session.prepare_request(
                requests.Request(method, url.request_url, headers={**fields, "Accept-Encoding": "identity"})
            )
            request.url = url.request_url  # as written: requests encodes it anew
            proxy = self.proxy.of(url)
            send = partial(
                session.send,
                request,
                timeout=_TIMEOUT,
                stream=True,
                allow_redirects=False,
                verify=session.verify,
                cert=session.cert,
            )
            if proxy and self.proxy.fallback == "direct":
                with suppress(requests.ConnectionError, requests.Timeout):
                    answer = _read(send(proxies={url.scheme: proxy}), wanted)
                    if answer.status not in _OF_PROXIES:
                        return answer
                proxy = None
            return _read(send(proxies={url.scheme: proxy} if proxy else {}), wanted)

    def _session(self, url: Url) -> requests.Session:
        """A session with what a node has for `url`."""
        session = https.session()
        session.trust_env = False  # nodes ignore the environment too
        session.headers = CaseInsensitiveDict({"User-Agent": f"pxe-fetch/{__version__}", "Accept": "*/*"})
        session.verify, session.cert = str(self.bundle) if self.bundle else True, self.certificate
        session.proxies = {url.scheme: proxy} if (proxy := self.proxy.of(url)) else {}
        return session


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else None  # int() takes other digits, and refuses many


def _read(answer: requests.Response, wanted: int) -> _Answer:
    """The answer with `wanted` bytes of its body, and its connection closed."""
    with answer:
        body = answer.raw.read(wanted, decode_content=False) if wanted else b""
    return _Answer(status=answer.status_code, reason=answer.reason or "", headers=answer.headers, body=body)


def _doubt(answer: _Answer) -> str:
    """What the agent tells of such an answer if its bytes are wrong; empty if nothing is odd about it."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return f"is sent with Content-Encoding {encoding[:40]}, which nodes do not undo"
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return "is sent as text/html: a web page, perhaps a login or an error" if kind == "text/html" else ""


def ftp(url: str) -> Found:
    """What an FTP server says of the file at `url`. Raises one of ERRORS."""
    parts = urlsplit(url)
    with ftplib.FTP(timeout=_TIMEOUT) as client:  # noqa: S321  the user's choice; the agent verifies digests
        client.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        client.login()
        client.voidcmd("TYPE I")
        return Found(size=client.size(unquote(parts.path.lstrip("/"))), ranges=True)


def _ftp_content(url: Url, limit: int) -> bytes:
    with ftplib.FTP(timeout=_TIMEOUT) as client:  # noqa: S321  as above
        client.connect(url.host, url.port)
        client.login()
        client.voidcmd("TYPE I")
        with (
            client.transfercmd(f"RETR {os.fsdecode(url.path_bytes).lstrip('/')}") as channel,
            channel.makefile("rb") as file,
        ):
            return file.read(limit + 1)


@contextmanager
def client_for(tls: Tls, proxy: Proxy, tree: RootTree | None) -> Iterator[Client]:
    """A client as on a node whose root filesystem is `tree`; its files last as long as this context."""
    with temporary_folder(prefix="pxe-pack-tls-") as folder:
        try:
            bundle = _file(tls.ca_file, tree, folder / "ca.pem") if tls.ca_file else _bundle(tree, folder / "ca.pem")
            certificate = None
            if tls.client_cert:
                first = _file(tls.client_cert, tree, folder / "cert.pem")
                key = _file(tls.client_key, tree, folder / "key.pem") if tls.client_key else first
                certificate = (str(first), str(key))
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*certificate, password=lambda: b"")
        except FileNotFoundError as error:
            yield Client(proxy=proxy, refusal=f"it needs {error.filename}, which is not in the image")
        except (ssl.SSLError, OSError) as error:
            yield Client(proxy=proxy, refusal=f"the files in `tls` cannot be used: {error}")
        else:
            yield Client(proxy=proxy, bundle=bundle, certificate=certificate)


def _bundle(tree: RootTree | None, target: Path) -> Path | None:
    """The image's own CA bundle; None if it has none, or cannot be read."""
    for path in CA_BUNDLES if tree else ():
        if tree and (content := regular_file(tree, path)):
            target.write_bytes(content)
            return target
    return None


def _file(path: str, tree: RootTree | None, target: Path) -> Path:
    """The node's file `path`: from the image, else from this machine. Raises FileNotFoundError."""
    content = regular_file(tree, path) if tree else None
    if content is None:
        if not Path(path).is_file():
            raise FileNotFoundError(2, "missing", path)
        return Path(path)
    target.touch(mode=0o600)
    target.write_bytes(content)
    return target


def _without_secrets(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields that another server may see."""
    return {name: value for name, value in fields.items() if name == "Range"}


def usable(text: str) -> Url | None:
    """`text` parsed; None if it is not a URL."""
    try:
        return parse(text)
    except UrlError:
        return None
