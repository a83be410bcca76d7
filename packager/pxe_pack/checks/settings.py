"""Checks of options and configuration: missing settings, URLs, compression, and paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pxe_fetch.contract.checks import sent_unencrypted
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.image.liveos import LiveImage
from pxe_pack.layout.manifest import url_problem
from pxe_pack.output import output_problem
from pxe_pack.publish import publish_problem
from pxe_pack.real_path import real_path
from pxe_pack.tarball import tar_problem

# Schemes that dracut's url-lib fetches with curl, and nfs, which takes dracut's nfs module (checks/initrd.py).
BOOT_SCHEMES = ("http", "https", "ftp", "tftp", "nfs")
ARTIFACT_SCHEMES = ("http", "https")
HIGHEST_LEVELS = {"gzip": 9, "xz": 9, "zstd": 22}  # tar2sqfs(1); we allow levels from 1
# A host that programs take for an address (WHATWG URL, "ends in a number"); no top-level domain has digits only
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
ISO_SUFFIX = ".iso"  # dracut's livenetroot mounts a download as an ISO only if its URL has this suffix

_HINTS = {
    "image": "set the LiveOS ISO with --image or `pack: {image: liveos.iso}`",
    "output": "set the folder to write with --output or `pack: {output: pxe/}`",
    "artifact_url": "set the base URL of the artifacts with --artifact-url or `pack: {artifact_url: …}`",
    "boot_url": "set the ISO's URL with --boot-url or `pack: {boot_url: http://10.0.0.1/liveos.iso}`",
}


class Places(Protocol):
    """The settings that `places` and `urls` need; implemented by settings.Settings."""

    @property
    def image(self) -> Path: ...
    @property
    def output(self) -> Path: ...

    @property
    def format(self) -> str: ...
    @property
    def config_path(self) -> Path: ...
    @property
    def files(self) -> tuple[HasSource, ...]: ...
    @property
    def boot_url(self) -> str: ...
    @property
    def artifact_url(self) -> str: ...


class HasSource(Protocol):
    """A local file."""

    @property
    def source(self) -> Path: ...


def missing_setting(name: str, *, hint: str = "") -> Problem:
    """The problem for a setting that is given neither in the configuration nor as a flag; `hint` if not packing's."""
    reference = f"{name.replace('_', '-')}-missing"
    return Problem(reference=reference, message=f"no {name} is given", hint=hint or _HINTS[name])


def boot_url(url: str) -> Iterator[Problem]:
    """Reasons why dracut cannot boot an ISO from `url`. They do not show what may be secret in it."""
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # an invalid address in brackets
        yield _url_problem(f"the boot_url {shown} {url_problem(url)}")
        return
    if parts.scheme not in BOOT_SCHEMES or not parts.hostname:
        yield _url_problem(f"the boot_url {shown} is not a URL that an initrd can fetch: {', '.join(BOOT_SCHEMES)}")
        return
    name = unquote(parts.path.rsplit("/", 1)[-1])
    if parts.query or parts.fragment or not name.endswith(ISO_SUFFIX) or name == ISO_SUFFIX:
        what = "a query" if parts.query else "a fragment"
        yield _url_problem(
            f"the boot_url {shown} has {what}, so it does not end in {ISO_SUFFIX}"
            if parts.query or parts.fragment
            else f"the boot_url {shown} does not end in {ISO_SUFFIX}",
            hint=f"dracut only mounts a download as an ISO if its URL ends in `{ISO_SUFFIX}`, without a query",
        )
    elif "/" in name or not name.isprintable():
        yield _url_problem(f"the last part of the boot_url {shown} is not a valid file name")
    if any(letter.isspace() or letter in "\"'" for letter in url) or not url.isascii():
        yield _url_problem(f"the boot_url {shown!r} has characters that are not allowed in a kernel argument")
    elif not parts.query and (reason := url_problem(url) or _ambiguity(url)):
        yield _url_problem(f"the boot_url {shown} {reason}")


def artifact_url(url: str) -> Iterator[Problem]:
    """Reasons why `url` cannot be the base URL of artifacts."""
    reason = url_problem(url) or _ambiguity(url)
    if not reason and urlsplit(url).scheme not in ARTIFACT_SCHEMES:
        reason = "is not an http or https URL with a host and without a query"
    if reason:
        yield Problem(
            reference="artifact-url-invalid",
            message=f"the artifact_url {redact(url)} {reason}",
            hint="for example --artifact-url http://10.0.0.1/other-user-artifacts/",
        )


def compression(compressor: str | None, level: int | None) -> Iterator[Problem]:
    """Problems with the compression level."""
    if level is None:
        return
    if compressor is None:
        yield Problem(
            reference="level-without-compressor",
            message=f"level {level} is given without a compressor",
            hint="for example --compressor zstd --level 1",
        )
    elif level > HIGHEST_LEVELS[compressor]:
        yield Problem(
            reference="level-out-of-range",
            message=f"{compressor} has levels from 1 to {HIGHEST_LEVELS[compressor]}, not {level}",
            hint=f"use --level {HIGHEST_LEVELS[compressor]} for the highest compression",
        )


def _ambiguity(url: str) -> str | None:
    """Why clients and servers would understand the valid `url` differently; None if they would not."""
    parts = urlsplit(url)
    if any(unquote(part) in (".", "..") for part in parts.path.split("/")):  # RFC 3986, 5.2.4
        return "has `.` or `..` in its path, which some clients remove before they ask and others do not"
    host = parts.hostname or ""
    try:
        if _NUMBER.fullmatch(host):
            IPv4Address(host)
    except AddressValueError:
        return f"has the host {host}, which is neither a name nor an address of four numbers from 0 to 255"
    return None


def _url_problem(message: str, *, hint: str = "for example --boot-url http://10.0.0.1/liveos.iso") -> Problem:
    return Problem(reference="boot-url-invalid", message=message, hint=hint)


def publishing(*, output: Path | None, form: str) -> Iterator[Problem]:
    """Problems with --publish and other flags that say what is written."""
    given = [flag for flag, is_given in {"--output": output, "--format tar": form == "tar"}.items() if is_given]
    if given:
        yield Problem(
            reference="publish-and-output",
            message=f"--publish and {given[0]} both say where the layout goes",
            hint="leave one of them out; --publish takes precedence over the configuration's output only",
        )


def keep_without_publish() -> Problem:
    """--keep is given, and nothing is published."""
    message = "--keep says how many versions stay, but nothing is published"
    return Problem(reference="keep-without-publish", message=message, hint="add --publish DIR, or leave --keep out")


def places(settings: Places) -> Iterator[Problem]:
    """Problems with the output and the paths of the inputs."""
    of_form = {"dir": output_problem, "tar": tar_problem, "versions": publish_problem}
    if problem := of_form[settings.format](settings.output):
        yield problem
    yield from _in_image(settings)
    inputs = [settings.image, settings.config_path, *(file.source for file in settings.files)]
    for path in inputs:
        if real_path(path).is_relative_to(settings.output):
            yield Problem(
                reference="input-in-output",
                message=f"{path} is inside the output folder {settings.output}, which packing replaces as a whole",
                hint="choose another folder with --output",
            )
    for file in settings.files:
        if file.source.is_dir() and settings.output.is_relative_to(real_path(file.source)):
            yield Problem(
                reference="output-in-source",
                message=f"the output {settings.output} is inside the source folder {file.source}",
                hint="choose another folder with --output",
            )


def urls(settings: Places, image: LiveImage) -> Iterator[Problem]:
    """A problem for each URL that `image` needs but that is not set."""
    if image.live and not settings.boot_url:
        yield missing_setting("boot_url")
    elif settings.files and not settings.artifact_url:
        yield missing_setting("artifact_url")


def credentials(fetch: FetchConfig, artifact_url: str) -> Iterator[Problem]:
    """A problem for each artifact with a `source` whose credential nodes would send unencrypted to `artifact_url`."""
    for artifact in fetch.artifacts:
        if artifact.source and (credential := sent_unencrypted(artifact, artifact_url)):
            yield Problem(
                reference="credential-unencrypted",
                message=f"{artifact.name} would send the credential {credential} unencrypted to {artifact_url}",
                hint="use an artifact_url by https, or allow it with `insecure: true`",
            )


def _in_image(settings: Places) -> Iterator[Problem]:
    if settings.image.is_dir() and settings.output.is_relative_to(real_path(settings.image)):
        yield Problem(
            reference="output-in-image",
            message=f"the output {settings.output} is inside the image {settings.image}, which is never modified",
            hint="choose another folder with --output",
        )
