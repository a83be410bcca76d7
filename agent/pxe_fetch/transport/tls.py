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
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    bundle = tls.ca_file or next((path for path in CA_BUNDLES if Path(path).exists()), None)
    if bundle is None:
        raise TrustError("this node has no CA bundle; give tls.ca_file, or install ca-certificates in the image")
    try:
        made.load_verify_locations(cafile=bundle)
    except (OSError, ssl.SSLError) as error:
        raise TrustError(f"the CA file {bundle} cannot be used: {_reason(error)}") from error
    if tls.client_cert:
        made.post_handshake_auth = True  # a server may ask for it when it knows what is asked for
        try:
            # The password callback keeps OpenSSL from asking on the console for an encrypted key's.
            made.load_cert_chain(tls.client_cert, tls.client_key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            raise TrustError(f"the client certificate {tls.client_cert} cannot be used: {_reason(error)}") from error
    return made


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return error.strerror or str(error)
