"""TLS as a node does it: the site's CA or the node's own bundle, TLS 1.2 at least, a client certificate if given."""

from __future__ import annotations

import ssl
from pathlib import Path

from pxe_fetch.contract.model import Tls
from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_fetch.errors import TrustError


def make_context(tls: Tls) -> ssl.SSLContext:
    """What every https connection of a run uses; made once, since reading a CA bundle takes tens of milliseconds.

    Raises TrustError where there is nothing to trust or the client certificate cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Up to 3.11.3 Python sets it, so that cutting the connection ends a body of no declared length (gh-95494).
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # only with OpenSSL 3
    bundle = tls.ca_file or next((path for path in CA_BUNDLES if Path(path).exists()), None)
    if bundle is None:
        raise TrustError("this node has no CA bundle; give tls.ca_file, or install ca-certificates in the image")
    used = f"the CA file {bundle}"
    try:
        context.load_verify_locations(cafile=bundle)
        if tls.client_cert:
            used = f"the client certificate {tls.client_cert}"
            context.post_handshake_auth = True  # a server may want it for some of its files alone (RFC 8446, 4.2.6)
            # The password callback keeps OpenSSL from asking on the console for an encrypted key's.
            context.load_cert_chain(tls.client_cert, tls.client_key, password=lambda: b"")
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise TrustError(f"{used} cannot be used: {reason}") from error
    except OSError as error:
        raise TrustError(f"{used} cannot be used: {error.strerror or error}") from error
    return context
