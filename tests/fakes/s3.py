"""moto's S3 behind a check of presigned URLs, which moto itself does not verify.

The signature is computed again by botocore from the request as it arrived, so a client that changes one character of
a signed URL is refused, as by Amazon.
"""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

BUCKET, REGION, KEY, SECRET = "models", "eu-central-1", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG"
_DATE = "%Y%m%dT%H%M%SZ"
_ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>'


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A GET request: its path, query and the range it asked for."""

    path: str
    query: str
    range: str | None
    status: int


@dataclass(kw_only=True)
class S3:
    """A running server. `cuts` holds, answer by answer, how many bytes of a body are sent until the connection ends."""

    asked: list[Asked] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    session: str | None = None  # the session token whose URLs are refused as expired
    url: str = ""
    _moto: Any = field(default_factory=lambda: DomainDispatcherApplication(create_backend_app))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401  WSGI
        request = Request(environ)
        if request.method != "GET":
            return Response.from_app(self._moto, environ)(environ, start_response)
        code = self._refusal(request)
        if code:
            status = 400 if code[0] == "ExpiredToken" else 403
            response = Response(_ERROR.format(*code), status=status, mimetype="application/xml")
        else:
            response = Response.from_app(self._moto, environ)
            if self.cuts:
                response.response = _cut(response.get_data(), self.cuts.pop(0))
        query = environ["QUERY_STRING"]
        asked = Asked(path=request.path, query=query, range=request.headers.get("Range"), status=response.status_code)
        self.asked.append(asked)
        return response(environ, start_response)

    def _refusal(self, request: Request) -> tuple[str, str] | None:
        """Why the request's signature is refused: code and message in Amazon's words. None if it is valid."""
        path, _, query = request.environ["RAW_URI"].partition("?")
        given = dict(parse_qsl(query))
        if "X-Amz-Signature" not in given:
            return "AccessDenied", "Access Denied"
        if self.session and given.get("X-Amz-Security-Token") == self.session:
            return "ExpiredToken", "The provided token has expired."
        signed = "&".join(pair for pair in query.split("&") if not pair.startswith("X-Amz-Signature="))
        again = AWSRequest("GET", f"{self.url}{path}?{signed}", headers={"host": request.host})
        again.context["timestamp"] = given["X-Amz-Date"]
        auth = S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", REGION)
        expected = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
        if not hmac.compare_digest(expected, given["X-Amz-Signature"]):
            return (
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match.",
            )
        began = datetime.strptime(given["X-Amz-Date"], _DATE).replace(tzinfo=UTC)
        if datetime.now(tz=UTC) > began + timedelta(seconds=int(given["X-Amz-Expires"])):
            return "AccessDenied", "Request has expired"
        return None

    def client(self, *, session: str | None = None) -> Any:  # noqa: ANN401  boto3 makes the class at run time
        """boto3's client for it."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            aws_session_token=session,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
            verify=False,
        )

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        client = self.client()
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # moto keeps buckets as long as the process runs
            client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def presigned(self, key: str, *, expires: int = 3600, session: str | None = None) -> tuple[str, str]:
        """A presigned GET of `key` for `expires` seconds, as boto3 makes it: the URL, and its query."""
        parameters = {"Bucket": BUCKET, "Key": key}
        url = self.client(session=session).generate_presigned_url("get_object", Params=parameters, ExpiresIn=expires)
        base, _, query = url.partition("?")
        return base, query


def _cut(body: bytes, at: int) -> Iterator[bytes]:
    yield body[:at]
    raise ConnectionError  # werkzeug closes the connection


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object, **__: object) -> None:
        """Say nothing."""


@contextmanager
def s3(*, tls: ssl.SSLContext) -> Iterator[S3]:
    """A server on the loopback, as `localhost` by https."""
    store = S3()
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=_Handler, ssl_context=tls)
    store.url = f"https://localhost:{server.port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
