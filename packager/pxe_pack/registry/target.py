"""A reference on the command line, and the repository behind it."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_fetch.contract.problem import Problem, RuleError
from pxe_fetch.contract.registry import Login, digest_of, manifest_url, repository_name, with_digest, written
from pxe_fetch.contract.url import parse
from pxe_pack import https
from pxe_pack.registry.client import Repository
from pxe_pack.registry.logins import login_for
from pxe_pack.tools import InputError, WorkError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a registry."""
    parser.add_argument(
        "--login", type=Path, metavar="FILE", help="a file with user:password, or with an identity token"
    )
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities to trust, instead of this machine's")
    parser.add_argument("--insecure", action="store_true", help="send the login unencrypted too, by http://")


def reference(text: str) -> str:
    """The URL of the manifest that a reference on the command line names. Raises argparse.ArgumentTypeError."""
    if re.match("oci://https?://", text):
        raise argparse.ArgumentTypeError(f"{text!r} has two schemes: leave out `oci://`")
    if "${" in text:
        raise argparse.ArgumentTypeError(f"{text!r} has a ${{fact}}, which only nodes fill in: name one repository")
    try:
        return manifest_url(text)
    except RuleError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error.message}: {error.label or error.hint}") from error


def pinned(url: str, digest: str) -> str:
    """The reference of the manifest's URL `url`, with `digest` in place of its tag."""
    return written(with_digest(url, digest))


def tagged(text: str) -> str:
    """The same of a reference with a tag, and no digest: where something is put."""
    url = reference(text)
    if digest_of([url]):
        raise argparse.ArgumentTypeError(f"{text!r} has a digest: give a tag, as in registry.lan/site/model:v1")
    return url


def repository(url: str, arguments: argparse.Namespace) -> Repository:
    """The repository of the manifest's URL `url`, with the login that `arguments` have for it. Raises InputError."""
    place, ca_file = parse(url), arguments.ca_file
    login = login_for(place.host_and_port, repository_name(url), file=arguments.login)
    if place.scheme == "http" and login != Login() and not arguments.insecure:
        message = f"the login for {place.host_and_port} would be sent unencrypted"
        hint = f"write {written(url).removeprefix('http://')} if it has https, or allow it with --insecure"
        raise InputError(Problem(reference="credential-unencrypted", message=message, hint=hint))
    session = https.session()
    system = next((path for path in CA_BUNDLES if Path(path).is_file()), None)
    if ca_file and not ca_file.is_file():
        raise InputError(Problem(reference="ca-file-missing", message=f"{ca_file} does not exist or is not a file"))
    if ca_file or not {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} & os.environ.keys():
        session.verify = str(ca_file or system or "") or True
    return Repository(url=url, login=login, session=session)


@contextmanager
def answered(repository: Repository) -> Iterator[None]:
    """Within this context, a registry that does not answer is a WorkError."""
    try:
        yield
    except requests.RequestException as error:
        cause: BaseException = error
        while inner := next((one for one in (*cause.args, cause.__cause__) if isinstance(one, BaseException)), None):
            cause = inner
        reason = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or cause
        message = f"the registry {parse(repository.url).host_and_port} cannot be used: {reason}"
        hint = "a registry without https needs http:// in front of its name"
        if isinstance(error, requests.exceptions.SSLError):
            hint = f"give the authority of its certificate: --ca-file FILE; {hint}"
        raise WorkError(Problem(reference="registry-unreachable", message=message, hint=hint)) from error
