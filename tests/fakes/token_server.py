"""A token server of a registry ("Token Authentication Specification" of the CNCF Distribution project).

Its tokens are JSON Web Tokens signed with ES256, with the certificate in the header field `x5c`, which docker-registry
verifies by its `rootcertbundle`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from fakes.certs import Issued

ISSUER, SERVICE = "the token server of the tests", "registry.of.the.tests"
LEEWAY = 60  # seconds that docker-registry 2.8 takes a token beyond its end (registry/auth/token/token.go)


@dataclass(kw_only=True)
class TokenServer:
    """A running one, which knows one user. `lifetime` in seconds, as docker-registry counts it."""

    url: str
    signer: Issued
    user: str
    password: str
    identity_token: str
    lifetime: float = 300.0
    pulls_for_all: bool = False
    asked: list[str] = field(default_factory=list)  # who wanted a token: the user, "identity", "nobody", "refused"

    def token(self, scopes: Sequence[str], *, actions: set[str]) -> str:
        """A token for what is in `scopes` and in `actions`."""
        now = time.time()
        access = []
        for scope in scopes:
            kind, name, wanted = scope.split(":")
            access.append({"type": kind, "name": name, "actions": sorted(actions & set(wanted.split(",")))})
        certificate = x509.load_pem_x509_certificate(self.signer.certificate.read_bytes())
        shown = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        header = {"typ": "JWT", "alg": "ES256", "x5c": [shown]}
        claims = {
            "iss": ISSUER,
            "sub": self.user,
            "aud": SERVICE,
            "exp": int(now + self.lifetime - LEEWAY),
            "nbf": int(now) - 3600,
            "iat": int(now) - 3600,
            "jti": str(now),
            "access": access,
        }
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        key = serialization.load_pem_private_key(self.signer.key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        numbers = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_encoded(b''.join(number.to_bytes(32, 'big') for number in numbers))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        known = self.server.known
        login = f"Basic {base64.b64encode(f'{known.user}:{known.password}'.encode()).decode()}"
        given = self.headers.get("Authorization")
        who = known.user if given == login else "refused" if given else "nobody"
        self._answer(who, parse_qs(urlsplit(self.path).query).get("scope", []))

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        is_known = form.get("grant_type") == ["refresh_token"] and form["refresh_token"] == [
            self.server.known.identity_token
        ]
        self._answer("identity" if is_known else "refused", " ".join(form.get("scope", [])).split())

    def _answer(self, who: str, scopes: Sequence[str]) -> None:
        known = self.server.known
        known.asked.append(who)
        if who == "refused":
            self.send_error(401)
            return
        actions = {"pull", "push"} if who != "nobody" else {"pull"} if known.pulls_for_all else set()
        body = json.dumps({"token": known.token(scopes, actions=actions), "expires_in": 60}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    known: TokenServer


@contextlib.contextmanager
def token_server(signer: Issued, *, user: str, password: str, identity_token: str = "") -> Iterator[TokenServer]:
    """Run it on loopback; `signer` is the certificate and key that it signs with."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.known = TokenServer(
            url=f"http://localhost:{server.server_address[1]}/token",
            signer=signer,
            user=user,
            password=password,
            identity_token=identity_token or "no-identity",
        )
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
        try:
            yield server.known
        finally:
            server.shutdown()
