"""The Authorization fields by which registries let this run in, and how another is got when one is refused.

A token is used until a registry answers 401 to it: then it has expired, or is not for what was asked. What renews it is
the challenge in that answer, at the first request as in the middle of a download.
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

from pxe_fetch.contract.registry import LARGEST_TOKEN, Login, TokenRequest, token_in, token_request
from pxe_fetch.contract.url import Origin, Url
from pxe_fetch.errors import NetworkError, PolicyError, RefusedError
from pxe_fetch.transport import Request, parse_url
from pxe_fetch.transport.exchange import refusal
from pxe_fetch.transport.session import Answer, Session

_OK = 200


class Refused(NamedTuple):
    """The Authorization field of a request that was answered with 401."""

    field: str | None
    is_new: bool  # it was got for this very request


class Authorizations:
    """By login and repository; the downloads of a run share them. Thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[tuple[Login, Origin, str], str] = {}
        self._lock = Lock()  # one token for all streams that need one

    def of(self, url: Url, *, login: Login | None) -> str | None:
        """The field for `url`; None if there is no `login`, or nothing has asked for it yet."""
        return self._known.get(_repository(url, login)) if login else None

    def renew(self, url: Url, answer: Answer, *, request: Request, refused: Refused) -> str:
        """The field for another request for `url`, after the 401 `answer`, which is closed.

        Raises RefusedError if the login of `request` is not enough, PolicyError if it would be sent unprotected, and
        what Transport.open raises of the token server.
        """
        challenge, login = answer.field("WWW-Authenticate") or "", request.login or Login()
        answer.dismiss()
        place = _repository(url, login)
        if refused.is_new or (refused.field and refused.field == login.basic):
            who = "anybody: set registry_credential" if login.is_anonymous else "the user of registry_credential"
            message = f"the registry {url.host_and_port} does not give this to {who} (401)"
            raise RefusedError(message, status=401)
        with self._lock:
            if (known := self._known.get(place)) and known != refused.field:
                return known  # another stream was here first
            try:
                wanted = token_request(challenge, login)
            except ValueError as error:
                hint = ": set registry_credential" if login.is_anonymous else ""
                raise RefusedError(f"the registry {url.host_and_port} {error}{hint} (401)", status=401) from None
            field = f"Bearer {self._token(wanted, url, request=request)}" if wanted else login.basic
            self._known[place] = field
            return field

    def _token(self, wanted: TokenRequest, registry: Url, *, request: Request) -> str:
        """What the token server that the `registry` names gives. No redirect is followed."""
        server = parse_url(wanted.url)
        if server.scheme not in {"http", "https"}:
            raise PolicyError(f"the registry {registry.host_and_port} names {server} as its token server")
        if registry.scheme == "https" and server.scheme == "http":
            raise PolicyError(
                f"the registry {registry.host_and_port} names {server} for tokens, which is not protected"
            )
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


def _repository(url: Url, login: Login | None) -> tuple[Login, Origin, str]:
    """Where one token is good for: `/v2/site/model` of a server, whatever of it is asked for."""
    return login or Login(), url.origin, url.path.rsplit("/", 2)[0]


def _read(answer: Answer) -> bytes:
    """Its whole body. Raises ValueError if that is too large."""
    buffer, count = bytearray(LARGEST_TOKEN), 0
    while more := answer.readinto(memoryview(buffer)[count:]):
        count += more
    if count == LARGEST_TOKEN:
        raise ValueError("its answer is too large")
    return bytes(buffer[:count])
