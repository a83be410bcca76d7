"""Header fields that are secret: the lines of a credential that systemd gave this unit (systemd.exec(5))."""

from __future__ import annotations

from pathlib import Path

from pxe_fetch.contract import validators
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.validators import RuleError


def secret_headers(credential: str, *, directory: Path | None) -> dict[str, str]:
    """The header fields that the `Name: value` lines of `credential` say, below systemd's `directory` for this unit.

    Raises ProblemError where it is not there, or has something else. Its content is shown nowhere.
    """
    hint = f"give the unit the credential {credential} (ImportCredential=, SMBIOS type 11), one `Name: value` line each"
    try:
        body = (directory / credential).read_bytes() if directory else None
    except OSError:
        body = None
    if body is None:
        message = f"the credential {credential} (header_credential) is not there"
        raise ProblemError(Problem(reference="credential-missing", message=message, hint=hint))
    headers: dict[str, str] = {}
    for line in filter(str.strip, body.decode("ascii", "replace").splitlines()):
        name, value = _header(line)
        if not name:
            message = f"the credential {credential} has a line that is not `Name: value` of a header that may be given"
            raise ProblemError(Problem(reference="credential-invalid", message=message, hint=hint))
        headers[name] = value
    return headers


def _header(line: str) -> tuple[str, str]:
    """Name and value of a header field; ("", "") where the line is none, or one that the agent sets itself."""
    name, colon, value = (part.strip() for part in line.partition(":"))
    try:
        validators.header_name(name)
    except RuleError:
        return "", ""
    return (name, value) if colon and value.isascii() and value.isprintable() else ("", "")
