"""Requests to registries: each with the Authorization that its repository wants, got from a token server if need be.

What a repository has accepted is used until it answers 401: then a token has expired, or is not for what was asked. The
challenge in that answer says how to get another, at the first request as in the middle of a download.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import field
from threading import Event

from pxe_fetch.contract.quantity import span
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.contract.registry import LARGEST_TOKEN, Login, TokenRequest, token_in, token_request
from pxe_fetch.contract.url import Origin, Url, UrlError, parse
from pxe_fetch.errors import (
    DeadlineError,
    FetchError,
    NetworkError,
    PolicyError,
    RefusedError,
    SilentError,
    StoppedError,
)
from pxe_fetch.transport import Request
from pxe_fetch.transport.exchange import refusal
from pxe_fetch.transport.session import Answer, Session

_OK, _UNAUTHORIZED = 200, 401
_SET = ": set registry_credential"
_LOOK = 0.25  # seconds between two looks at the deadline of who waits for a token

Place = tuple[Login, Origin, str]


@mutable_record
class Renewal:
    """A token that one stream gets, for all that need it."""

    is_over: Event = field(default_factory=Event)
    error: BaseException | None = None


class Registries:
    """Shared by all downloads of a run. Thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[Place, str] = {}  # Authorization fields, by login and repository
        self._renewals: dict[Place, Renewal] = {}  # under way

    def ask(self, url: Url, *, login: Login, fields: dict[str, str], request: Request) -> Answer:
        """As Session.ask. Raises also RefusedError if `login` is not enough, and PolicyError if it is not protected."""
        place = login, url.origin, url.path.rsplit("/", 2)[0]  # /v2/NAME, whatever of it is asked for
        used = self._known.get(place)
        answer = self._ask(url, fields, used, request)
        if answer.status != _UNAUTHORIZED:
            return answer
        answer.dismiss()
        if not used or used != login.basic:  # else another try would be the same
            while self._known.get(place) == used:  # no other stream was here first
                mine = Renewal()
                if (theirs := self._renewals.setdefault(place, mine)) is not mine:
                    _await(theirs, request)
                    continue
                try:
                    self._known[place] = self._renewed(url, answer, login=login, request=request)
                except BaseException as error:
                    mine.error = error
                    raise
                finally:
                    del self._renewals[place]
                    mine.is_over.set()
            answer = self._ask(url, fields, self._known[place], request)
            if answer.status != _UNAUTHORIZED:
                return answer
            answer.dismiss()
        who = "anybody: set registry_credential" if login == Login() else "the user of registry_credential"
        raise RefusedError(f"the registry {url.host_and_port} does not give this to {who} (401)", status=_UNAUTHORIZED)

    def _ask(self, url: Url, fields: dict[str, str], authorization: str | None, request: Request) -> Answer:
        every = {**fields, **({"Authorization": authorization} if authorization else {})}
        return self._session.ask(url, request, fields=every)

    def _renewed(self, url: Url, answer: Answer, *, login: Login, request: Request) -> str:
        """The Authorization that the challenge of `answer` wants."""
        try:
            wanted = token_request(answer.field("WWW-Authenticate") or "", login)
        except ValueError as error:
            hint = _SET if login == Login() else ""
            raise RefusedError(f"the registry {url.host_and_port} {error}{hint} (401)", status=_UNAUTHORIZED) from None
        return f"Bearer {self._token(wanted, url, login=login, request=request)}" if wanted else login.basic

    def _token(self, wanted: TokenRequest, registry: Url, *, login: Login, request: Request) -> str:
        """What the token server that the `registry` names gives. No redirect is followed."""
        try:
            server = parse(wanted.url)
        except UrlError as reason:
            message = f"the registry {registry.host_and_port} names a token server whose URL {reason}"
            raise PolicyError(message) from None
        if server.scheme not in {"http", "https"}:
            by = f"by {server.scheme}, which is neither http nor https"
            raise PolicyError(f"the registry {registry.host_and_port} names a token server {by}")
        if server.scheme == "http" and registry.scheme == "https":
            raise PolicyError(f"the registry {registry.host_and_port} wants tokens from {server}, which is unprotected")
        answer = self._session.ask(server, request, fields={**wanted.fields}, body=wanted.body)
        seconds = request.timeouts.read
        try:
            if answer.status != _OK:
                error = refusal(answer.status, answer.field, answer.exchange)
                is_refused = isinstance(error, RefusedError)
                hint = (
                    "" if not is_refused else _SET if login == Login() else ": it does not accept registry_credential"
                )
                error.args = (f"the token server {server}: {error}{hint}",)
                raise error
            return token_in(_read(answer, seconds=seconds))
        except ValueError as error:
            raise NetworkError(f"the token server {server}: {error}") from None
        except TimeoutError:
            message = f"the token server {server}: its answer was not complete within {span(seconds)}"
            raise SilentError(message) from None
        finally:
            answer.close()


def _await(renewal: Renewal, request: Request) -> None:
    """Wait until another stream has the token, or failed to get it: then with its error, unless that is its own."""
    while not renewal.is_over.wait(_LOOK):
        request.deadline.check()
    if isinstance(renewal.error, FetchError) and not isinstance(renewal.error, DeadlineError | StoppedError):
        raise copy(renewal.error)


def _read(answer: Answer, *, seconds: float) -> bytes:
    """Its whole body. Raises ValueError if that is too large, TimeoutError if it takes longer than `seconds`."""
    buffer, count, until = bytearray(LARGEST_TOKEN), 0, time.monotonic() + seconds
    while more := answer.readinto(memoryview(buffer)[count:]):
        count += more
        if time.monotonic() >= until:
            raise TimeoutError
    if count == LARGEST_TOKEN:
        raise ValueError("its answer is too large")
    return bytes(buffer[:count])
