"""Where nodes report to: `pack: {report: auto}` puts the collector's URL and a token into the image.

The token is kept in a file beside the configuration, so that all packs of it have the same: a node that booted from an
earlier version of a layout can still report, and the same inputs give the same layout. In the image, root alone can
read it; but so can anybody who has the ISO (docs/decisions/0047).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from pxe_fetch.contract.model import FetchConfig, Report
from pxe_fetch.contract.problem import Problem, RuleError
from pxe_fetch.contract.url import redact
from pxe_pack.choices import AUTO
from pxe_pack.config import report_url
from pxe_pack.input_file import read_input
from pxe_pack.layout.urls import server
from pxe_pack.tools import InputError

PATH = "/report"  # where the collector takes reports
CREDENTIAL = "pxe-fetch.report"
SUFFIX = ".report-token"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,200}=*", re.ASCII)  # RFC 6750, 2.1; the collector wants 16 characters
_LONGEST = 4096  # bytes of the file
_HEADER = "Authorization: Bearer "


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReports:
    """Where nodes report to, and the file that has the token which they prove themselves with."""

    url: str
    token_file: Path

    @property
    def report(self) -> Report:
        """The `report` section of the nodes' configuration."""
        return Report(url=self.url, header_credential=CREDENTIAL, insecure=urlsplit(self.url).scheme == "http")

    def credentials(self) -> Mapping[str, bytes]:
        """The credential for the image; the token's file is made if there is none. Raises InputError and OSError."""
        if not self.token_file.exists():
            descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{secrets.token_hex(32)}\n")
        if problems := [*_token_problems(self.token_file)]:
            raise InputError(*problems)
        return MappingProxyType({CREDENTIAL: f"{_HEADER}{_words(self.token_file)[-1]}\n".encode("ascii")})

    def line(self) -> str:
        """A line of the plan."""
        made = "" if self.token_file.exists() else ", which is made now"
        return f"report    {self.url}, with the token in {self.token_file}{made}"


NO_CREDENTIALS: Mapping[str, bytes] = MappingProxyType({})


def node_reports(
    wanted: str | None, fetch: FetchConfig, *, config: Path, boot_url: str, artifact_url: str
) -> tuple[NodeReports | None, list[Problem]]:
    """Where the nodes of the configuration file `config` report to, as `pack.report` says; and what is wrong with it.

    None if `pack` has no `report`.
    """
    if not wanted:
        return None, []
    problems: list[Problem] = []
    base = next((server(url) for url in (boot_url, artifact_url) if urlsplit(url).scheme in ("http", "https")), "")
    try:
        report_url(wanted)
    except RuleError as error:  # of a flag; that of the key has been told
        message = f"--report {redact(wanted)} {error.message}"
        problems.append(Problem(reference=error.reference, message=message, hint=error.hint))
    if fetch.report.url:
        message = f"{config} says twice where nodes report to: in `pack: {{report: …}}` and in `report:`"
        hint = "remove one; pack.report writes a `report:` section of its own, with a token"
        problems.append(Problem(reference="report-twice", message=message, hint=hint))
    if wanted == AUTO and not base:
        message = "`report: auto` means the layout's HTTP server, but no boot_url or artifact_url is by http or https"
        hint = "give the collector's URL: `pack: {report: http://10.0.0.1:8787/report}`"
        problems.append(Problem(reference="report-no-server", message=message, hint=hint))
    token_file = config.absolute().with_suffix(SUFFIX)
    if token_file.exists():
        problems += _token_problems(token_file)
    return NodeReports(url=f"{base}{PATH}" if wanted == AUTO else wanted, token_file=token_file), problems


def with_reports(fetch: FetchConfig, reports: NodeReports | None) -> FetchConfig:
    """`fetch` with the `report` section that `reports` says."""
    return replace(fetch, report=reports.report) if reports else fetch


def token_in(credential: bytes) -> str:
    """The token in a credential that a pack has made; empty if it is another one."""
    text = credential.decode(errors="replace").strip()
    token = text.removeprefix(_HEADER)
    return token if token != text and _TOKEN.fullmatch(token) else ""


def _words(file: Path) -> list[str]:
    return read_input(file, limit=_LONGEST).decode(errors="replace").split()


def _token_problems(file: Path) -> Iterator[Problem]:
    """Why the file has no token. Nothing of its content is shown."""
    hint = "write one with `openssl rand -hex 32`, or remove the file: packing makes another token"
    try:
        words = _words(file)
    except OSError as error:
        yield Problem(reference="report-token", message=f"cannot read {file}: {error.strerror}", hint=hint)
        return
    if len(words) not in (1, 2) or not _TOKEN.fullmatch(words[-1]):
        message = f"{file} has no token: one line `TOKEN` or `NAME TOKEN`, with 16 to 200 letters and digits"
        yield Problem(reference="report-token", message=message, hint=hint)
