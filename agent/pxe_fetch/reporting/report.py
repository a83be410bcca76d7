"""The run's result, told to whoever the configuration or the kernel command line names. Best effort, never more."""

from __future__ import annotations

from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from pxe_fetch.contract.model import Proxy, Tls
from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_fetch.redact import redact

PATIENCE = 5.0  # seconds for the whole of it
ACCEPTED = range(200, 300)


def post(url: str, body: str, *, tls: Tls, proxy: Proxy) -> str | None:
    """POST `body` (JSON) to `url`, waiting PATIENCE at most. None, or a sentence that says why it was not taken."""
    answers: SimpleQueue[str | None] = SimpleQueue()
    # requests' timeout is for each read, so a server that drips would hold the run; the thread is left behind then.
    Thread(target=lambda: answers.put(_post(url, body, tls=tls, proxy=proxy)), name="report", daemon=True).start()
    try:
        return answers.get(timeout=PATIENCE)
    except Empty:
        return f"{redact(url)} gave no answer within {PATIENCE:.0f} s"


def _post(url: str, body: str, *, tls: Tls, proxy: Proxy) -> str | None:
    from pxe_fetch.transport.lean import lean

    lean()
    import requests

    from pxe_fetch.transport.proxies import proxy_for

    through = proxy_for(url, proxy)
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(
                url,
                data=body.encode(),
                headers={"Content-Type": "application/json"},
                timeout=PATIENCE,
                allow_redirects=False,
                verify=tls.ca_file or next((path for path in CA_BUNDLES if Path(path).exists()), True),
                cert=(tls.client_cert, tls.client_key) if tls.client_cert and tls.client_key else tls.client_cert,
                proxies={"http": through, "https": through} if through else {},
            )
    except Exception as error:  # nothing here may fail the run, whatever a library makes of a URL or a file
        why = _first_cause(error).replace(url, redact(url))  # the library repeats what it was given, secrets and all
        return f"{redact(url)} cannot be told: {why}"
    if answer.status_code not in ACCEPTED:
        return f"{redact(url)} answered {answer.status_code}"
    return None


def _first_cause(error: BaseException) -> str:
    """The sentence at the bottom of a chain of exceptions: "Connection refused" instead of four classes around it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
