"""Requests to registries: each with the Authorization that its repository wants, got from a token server if need be.

What a repository has accepted is used until it answers 401: then a token has expired, or is not for what was asked. The
challenge in that answer says how to get another, at the first request as in the middle of a download.
"""

from __future__ import annotations

from threading import Lock

from pxe_fetch.contract.registry import LARGEST_TOKEN, Login, TokenRequest, token_in, token_request
from pxe_fetch.contract.url import Origin, Url
from pxe_fetch.errors import NetworkError, PolicyError, RefusedError
from pxe_fetch.transport import Request, parse_url
from pxe_fetch.transport.exchange import refusal
from pxe_fetch.transport.session import Answer, Session

_OK, _UNAUTHORIZED = 200, 401


class Registries:
    """Shared by all downloads of a run. Thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[tuple[Login, Origin, str], str] = {}  # Authorization fields, by login and repository
        self._lock = Lock()  # one token for all streams that need one

    def ask(self, url: Url, *, login: Login, fields: dict[str, str], request: Request) -> Answer:
        """As Session.ask. Raises also RefusedError if `login` is not enough, and PolicyError if it is not protected."""
        place = login, url.origin, url.path.rsplit("/", 2)[0]  # /v2/NAME, whatever of it is asked for
        used = self._known.get(place)
        answer = self._ask(url, fields, used, request)
        if answer.status != _UNAUTHORIZED:
            return answer
        answer.dismiss()
        if not used or used != login.basic:  # else another try would be the same
            with self._lock:
                if self._known.get(place) == used:  # no other stream was here first
                    self._known[place] = self._renewed(url, answer, login=login, request=request)
            answer = self._ask(url, fields, self._known[place], request)
            if answer.status != _UNAUTHORIZED:
                return answer
            answer.dismiss()
        who = "anybody: set registry_credential" if login == Login() else "the user of registry_credential"
        raise RefusedError(f"the registry {url.host_and_port} does not give this to {who} (401)", status=_UNAUTHORIZED)

    def _ask(self, url: Url, fields: dict[str, str], authorization: str | None, request: Request) -> Answer:
        every = {**fields, **({"Authorization": authorization} if authorization else {})}
        return self._session.ask(url, fields=every, timeouts=request.timeouts, deadline=request.deadline)

    def _renewed(self, url: Url, answer: Answer, *, login: Login, request: Request) -> str:
        """The Authorization that the challenge of `answer` wants."""
        try:
            wanted = token_request(answer.field("WWW-Authenticate") or "", login)
        except ValueError as error:
            hint = ": set registry_credential" if login == Login() else ""
            raise RefusedError(f"the registry {url.host_and_port} {error}{hint} (401)", status=_UNAUTHORIZED) from None
        return f"Bearer {self._token(wanted, url, request=request)}" if wanted else login.basic

    def _token(self, wanted: TokenRequest, registry: Url, *, request: Request) -> str:
        """What the token server that the `registry` names gives. No redirect is followed."""
        server = parse_url(wanted.url)
        if server.scheme != "https" and (server.scheme != "http" or registry.scheme == "https"):
            raise PolicyError(f"the registry {registry.host_and_port} wants tokens from {server}, which is unprotected")
        fields = {**wanted.fields, **({"Content-Length": str(len(wanted.body))} if wanted.body else {})}
        timeouts, deadline = request.timeouts, request.deadline
        answer = self._session.ask(server, fields=fields, body=wanted.body, timeouts=timeouts, deadline=deadline)
        try:
            if answer.status != _OK:
                error = refusal(answer.status, answer.field, answer.exchange)
                error.args = (f"the token server {server}: {error}",)
                raise error
            return token_in(_read(answer))
        except ValueError as error:
            raise NetworkError(f"the token server {server}: {error}") from None
        finally:
            answer.close()


def _read(answer: Answer) -> bytes:
    """Its whole body. Raises ValueError if that is too large."""
    buffer, count = bytearray(LARGEST_TOKEN), 0
    while more := answer.readinto(memoryview(buffer)[count:]):
        count += more
    if count == LARGEST_TOKEN:
        raise ValueError("its answer is too large")
    return bytes(buffer[:count])
