"""What this unit's credentials hold: secret header fields, a proxy's password (systemd.exec(5), ImportCredential=)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from pxe_fetch.contract import validators
from pxe_fetch.contract.model import Proxy
from pxe_fetch.contract.problem import Problem, ProblemError, RuleError

_LARGEST = 1024 * 1024  # bytes; systemd gives a unit no more (CREDENTIALS_TOTAL_SIZE_MAX)


def credentials_directory() -> Path | None:
    """The directory of this unit's credentials ($CREDENTIALS_DIRECTORY); None if it has none."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def secret_headers(credential: str, *, directory: Path | None) -> dict[str, str]:
    """The header fields in the file `credential` of the unit's credentials `directory`: one `Name: value` a line.

    Raises ProblemError if it is missing or has other lines. Its content never appears in a message.
    """
    form = "one `Name: value` a line"
    body = _read(credential, directory=directory, key="header_credential", form=form)
    headers: dict[str, str] = {}
    for line in filter(str.strip, body.decode("ascii", "replace").splitlines()):
        name, value = _header(line)
        if not name:
            raise _invalid(credential, "a line that is not `Name: value` of a header field that may be set", form=form)
        headers[name] = value
    return headers


def with_password(proxy: Proxy, *, directory: Path | None) -> Proxy:
    """`proxy` with the user and password of its credential, if it names one, in the urls of the proxies.

    Raises ProblemError if the credential is missing or is not `user:password` (RFC 7617). Its content never appears in
    a message.
    """
    if proxy.credential is None:
        return proxy
    form = "`user:password` on one line"
    text = _read(proxy.credential, directory=directory, key="proxy.credential", form=form).decode("utf-8", "replace")
    user, colon, password = text.rstrip("\r\n").partition(":")
    if not user or not colon or not (user + password).isprintable() or "\ufffd" in text:
        raise _invalid(proxy.credential, "something other than `user:password`", form=form)
    login = f"//{quote(user, safe='')}:{quote(password, safe='')}@"
    http, https = (url and url.replace("//", login, 1) for url in (proxy.http, proxy.https))
    return replace(proxy, http=http, https=https)


def _read(credential: str, *, directory: Path | None, key: str, form: str) -> bytes:
    try:
        if directory:
            with (directory / credential).open("rb") as file:
                body = file.read(_LARGEST + 1)
            if len(body) > _LARGEST:
                raise _invalid(credential, f"more than {_LARGEST} bytes", form=form)
            return body
    except OSError:
        pass
    message = f"the credential {credential} ({key}) is missing"
    raise ProblemError(Problem(reference="credential-missing", message=message, hint=_hint(credential, form)))


def _invalid(credential: str, found: str, *, form: str) -> ProblemError:
    message = f"the credential {credential} has {found}"
    return ProblemError(Problem(reference="credential-invalid", message=message, hint=_hint(credential, form)))


def _hint(credential: str, form: str) -> str:
    return f"pass the credential {credential} to the unit (ImportCredential=, SMBIOS type 11), {form}"


def _header(line: str) -> tuple[str, str]:
    """Name and value of a header field; ("", "") if the line has none, or one that only the agent sets."""
    name, colon, value = (part.strip() for part in line.partition(":"))
    try:
        validators.header_name(name)
    except RuleError:
        return "", ""
    return (name, value) if colon and value.isascii() and value.isprintable() else ("", "")
