"""Who logs in to a registry: as `docker login`, `podman login` and `oras login` left it, or a file that is given.

Sources: containers-auth.json(5) for the places, in their order; "docker login", credential helpers, for the program
`docker-credential-NAME get`, which is told the registry and answers with JSON.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.registry import Login
from pxe_pack import tools
from pxe_pack.input_file import read_input
from pxe_pack.tools import InputError, WorkError

_LARGEST = 1 << 20  # bytes
_DOCKER_HUB = {"registry-1.docker.io": ("https://index.docker.io/v1/", "docker.io")}
_TOKEN_USER = "<token>"  # noqa: S105  what a credential helper has instead of a user before an identity token


def login_for(host: str, repository: str, *, file: Path | None = None) -> Login:
    """The login to `repository` of the registry `host`: that in `file`, `user:password` or an identity token.

    Without a file, the first one that the places have; nobody's if there is none. Raises InputError.
    """
    if file:
        return _given(file)
    parts = repository.split("/")
    names = [*("/".join([host, *parts[:count]]) for count in range(len(parts), 0, -1)), host, f"https://{host}"]
    names += _DOCKER_HUB.get(host, ())
    for place in _places():
        if place.is_file() and (login := _stored(place, names, host=_DOCKER_HUB.get(host, (host,))[0])):
            return login
    return Login()


def _given(file: Path) -> Login:
    try:
        text = read_input(file, limit=_LARGEST).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(file, str(getattr(error, "strerror", None) or "is not ASCII")) from error
    user, colon, password = text.partition(":")
    if not user or not text.isprintable():
        raise _unusable(file, "it has neither `user:password` nor an identity token on one line")
    return Login(user=user, password=password) if colon else Login(identity_token=text)


def _places() -> Iterator[Path]:
    environment = os.environ
    if given := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(given)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    home = Path(environment.get("HOME") or "/")
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _stored(place: Path, names: list[str], *, host: str) -> Login | None:
    try:
        document = json.loads(read_input(place, limit=_LARGEST))
        auths, helpers = (document.get(key) or {} for key in ("auths", "credHelpers"))
        for name in names:
            if name in auths and (login := _entry(auths[name])):
                return login
        helper = next((helpers[name] for name in names if name in helpers), document.get("credsStore"))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        why = str(getattr(error, "strerror", None) or "it is not what `docker login` writes")
        raise _unusable(place, why) from error
    return _helped(str(helper), host) if helper else None


def _entry(entry: Mapping[str, str]) -> Login | None:
    if token := entry.get("identitytoken"):
        return Login(identity_token=token)
    user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    return Login(user=user, password=password.rstrip("\0")) if user else None


def _helped(helper: str, host: str) -> Login | None:
    """What the credential helper has; None if it has nothing. Raises InputError if it is not installed."""
    with tempfile.TemporaryFile() as asked:
        asked.write(host.encode())
        asked.seek(0)
        try:
            found = json.loads(tools.run(f"docker-credential-{helper}", "get", stdin=asked))
        except (WorkError, ValueError):
            return None  # "credentials not found in native keychain" is an exit code too
    if not isinstance(found, dict):
        return None
    user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
    return Login(identity_token=secret) if user == _TOKEN_USER else Login(user=user, password=secret)


def _unusable(file: Path, why: str) -> InputError:
    return InputError(Problem(reference="login-unusable", message=f"the login in {file} cannot be used: {why}"))
