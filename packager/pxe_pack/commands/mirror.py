"""`pxe-pack mirror FILE -o DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract import validators
from pxe_fetch.contract.problem import Problem, RuleError
from pxe_fetch.contract.registry import written
from pxe_pack.console import Console
from pxe_pack.registry import target
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirror`."""
    parser.description = (
        "Download everything that a configuration fetches into a folder or a container registry, for sites without "
        "internet access, and write a configuration that fetches from there. Each file is verified by its digest. "
        "Files that are already there and right are kept, and interrupted runs are resumed."
    )
    parser.add_argument(
        "config", type=Path, metavar="FILE", help="the fetch.yaml; also that of a mirror's folder, for a registry"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=_folder,
        required=True,
        metavar="DIR",
        help="the folder, to serve by HTTP; with --registry, only for the configuration",
    )
    parser.add_argument("--base-url", metavar="URL", help="where nodes will find the folder (default: relative URLs)")
    parser.add_argument(
        "--registry",
        type=target.tagged,
        metavar="REFERENCE",
        help="put the files into a container registry: as oci://registry.lan/repo:tag",
    )
    parser.add_argument(
        "--registry-credential", metavar="NAME", help="the credential with which nodes log in to the registry"
    )
    target.add_arguments(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Mirror the configuration. Raises InputError, WorkError and OSError."""
    for_registry = ("registry_credential", "login", "ca_file", "insecure")
    useless = ("base_url",) if arguments.registry else for_registry
    if given := next((name for name in useless if getattr(arguments, name)), None):
        message = f"--{given.replace('_', '-')} is {'not ' if arguments.registry else ''}for a mirror in a registry"
        hint = "leave it out" if arguments.registry else "leave it out, or give --registry REFERENCE"
        raise InputError(Problem(reference="mirror-option", message=message, hint=hint))
    if arguments.registry:
        _in_registry(arguments, console)
    else:
        _in_folder(arguments, console)
    return 0


def _in_folder(arguments: argparse.Namespace, console: Console) -> None:
    from pxe_pack.mirror.folder import document, mirror, summary

    done = mirror(arguments.config, output=arguments.output, base_url=arguments.base_url, console=console)
    console.result(document(done), summary(done))


def _in_registry(arguments: argparse.Namespace, console: Console) -> None:
    from pxe_pack.mirror.registry import document, mirror, summary

    credential = _credential(arguments.registry_credential)
    if credential and arguments.registry.startswith("http:") and not arguments.insecure:
        message = f"nodes would send the credential {credential} to {written(arguments.registry)} unencrypted"
        hint = "use a registry with https, or allow it with --insecure"
        raise InputError(Problem(reference="credential-unencrypted", message=message, hint=hint))
    repository = target.repository(arguments.registry, arguments)
    with target.answered(repository):
        done = mirror(
            arguments.config,
            output=arguments.output,
            repository=repository,
            credential=credential,
            insecure=arguments.insecure and credential is not None,
            console=console,
        )
    console.result(document(done), summary(done))


def _credential(name: str | None) -> str | None:
    """The name of a credential, checked. Raises InputError."""
    try:
        return name and validators.credential(name)
    except RuleError as error:
        message = f"--registry-credential {name} {error.message}"
        raise InputError(Problem(reference=error.reference, message=message, hint=error.hint or error.label)) from error


def _folder(text: str) -> Path:
    """A path on the command line. Raises argparse.ArgumentTypeError if it is a URL."""
    if "://" in text:
        place = text if text.startswith("oci://") else "oci://…"
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a folder: for a registry, give --registry {place} and a folder"
        )
    return Path(text)
