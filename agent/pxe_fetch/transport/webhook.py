"""A report sent to a server by http or https: one POST at a time, over the layer that fetches use as well."""

from __future__ import annotations

from pxe_fetch.contract.model import Proxy, Timeouts, Tls
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import PolicyError
from pxe_fetch.transport import parse_url
from pxe_fetch.transport.headers import basic
from pxe_fetch.transport.session import Session


class Webhook:
    """Keeps its connection for the next report. Safe to use from several threads."""

    def __init__(self, *, tls: Tls, proxy: Proxy) -> None:
        self._session = Session(tls=tls, proxy=proxy)

    def post(self, url: str, body: bytes, *, kind: str, timeouts: Timeouts, deadline: Deadline) -> int:
        """The status that answers `body`, of the media type `kind`, be it a redirect's. Raises FetchError as `open`."""
        to = parse_url(url)
        if to.scheme not in {"http", "https"}:
            raise PolicyError("the URL is not one of http or https")
        fields = {"Content-Type": kind, "Content-Length": str(len(body))}
        if to.userinfo is not None:
            fields["Authorization"] = basic(to.userinfo)
        answer = self._session.ask(to, body=body, fields=fields, timeouts=timeouts, deadline=deadline)
        answer.dismiss()
        return answer.status
