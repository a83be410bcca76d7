"""Secret header fields, from a credential that systemd passed to this unit (systemd.exec(5), ImportCredential=)."""

from __future__ import annotations

from pathlib import Path

from pxe_fetch.contract import validators
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.validators import RuleError


def secret_headers(credential: str, *, directory: Path | None) -> dict[str, str]:
    """The header fields in the file `credential` of the unit's credentials `directory`: one `Name: value` a line.

    Raises ProblemError if it is missing or has other lines. Its content never appears in a message.
    """
    hint = f"pass the credential {credential} to the unit (ImportCredential=, SMBIOS type 11), one `Name: value` a line"
    try:
        body = (directory / credential).read_bytes() if directory else None
    except OSError:
        body = None
    if body is None:
        message = f"the credential {credential} (header_credential) is missing"
        raise ProblemError(Problem(reference="credential-missing", message=message, hint=hint))
    headers: dict[str, str] = {}
    for line in filter(str.strip, body.decode("ascii", "replace").splitlines()):
        name, value = _header(line)
        if not name:
            message = (
                f"the credential {credential} has a line that is not `Name: value` of a header field that may be set"
            )
            raise ProblemError(Problem(reference="credential-invalid", message=message, hint=hint))
        headers[name] = value
    return headers


def _header(line: str) -> tuple[str, str]:
    """Name and value of a header field; ("", "") if the line has none, or one that only the agent sets."""
    name, colon, value = (part.strip() for part in line.partition(":"))
    try:
        validators.header_name(name)
    except RuleError:
        return "", ""
    return (name, value) if colon and value.isascii() and value.isprintable() else ("", "")
