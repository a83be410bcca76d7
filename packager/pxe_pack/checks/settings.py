"""What options and configuration say: URLs, places, and what of them is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.liveos import LiveImage
from pxe_pack.output import output_problem
from pxe_pack.tarball import tar_problem

# What dracut's url-lib fetches with curl. Of its other schemes, nfs and torrent need more in the initrd.
BOOT_SCHEMES = ("http", "https", "ftp", "tftp")
ARTIFACT_SCHEMES = ("http", "https")
HIGHEST_LEVELS = {"gzip": 9, "xz": 9, "zstd": 22}  # tar2sqfs(1); the lowest that a user would want is 1
ISO_SUFFIX = ".iso"  # dracut's livenetroot: this suffix decides that what was fetched is mounted as an ISO

_HINTS = {
    "image": "give the LiveOS ISO by --image, or as `pack: {image: liveos.iso}`",
    "output": "give the folder to write by --output, or as `pack: {output: pxe/}`",
    "artifact_url": "give the URL of the folder with artifacts by --artifact-url, or as `pack: {artifact_url: …}`",
    "boot_url": "give the ISO's URL by --boot-url, or as `pack: {boot_url: http://10.0.0.1/liveos.iso}`",
}


class Places(Protocol):
    """What `places` looks at; plan.Settings is one."""

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


def missing_setting(name: str) -> Problem:
    """The problem of a setting that is neither in the configuration nor among the flags."""
    return Problem(reference=f"{name.replace('_', '-')}-missing", message=f"no {name} is given", hint=_HINTS[name])


def boot_url(url: str) -> Iterator[Problem]:
    """What keeps dracut from booting an ISO by `url`."""
    parts = urlsplit(url)
    if parts.scheme not in BOOT_SCHEMES or not parts.hostname:
        yield _url_problem(f"the boot_url {url} is not a URL that an initrd can fetch: {', '.join(BOOT_SCHEMES)}")
        return
    name = unquote(parts.path.rsplit("/", 1)[-1])
    if parts.query or parts.fragment or not name.endswith(ISO_SUFFIX) or name == ISO_SUFFIX:
        yield _url_problem(
            f"the boot_url {url} does not end in {ISO_SUFFIX}",
            hint=f"dracut mounts what it fetched as an ISO if the URL ends in `{ISO_SUFFIX}`, with nothing behind it",
        )
    elif "/" in name or not name.isprintable():
        yield _url_problem(f"the last part of the boot_url {url} cannot be the name of a file")
    if any(letter.isspace() or letter in "\"'" for letter in url) or not url.isascii():
        yield _url_problem(f"the boot_url {url!r} has characters that no kernel argument can carry")


def artifact_url(url: str) -> Iterator[Problem]:
    """What keeps the agent from fetching artifacts below `url`."""
    parts = urlsplit(url)
    if parts.scheme not in ARTIFACT_SCHEMES or not parts.hostname or parts.query or parts.fragment:
        yield Problem(
            reference="artifact-url-invalid",
            message=f"the artifact_url {url} is not the URL of a folder: http or https, a host, a path",
            hint="--artifact-url http://10.0.0.1/other-user-artifacts/",
        )


def compression(compressor: str | None, level: int | None) -> Iterator[Problem]:
    """What is wrong with a compressor's level."""
    if level is None:
        return
    if compressor is None:
        yield Problem(
            reference="level-without-compressor",
            message=f"level {level} is given, and no compressor that has it",
            hint="--compressor zstd --level 1",
        )
    elif level > HIGHEST_LEVELS[compressor]:
        yield Problem(
            reference="level-out-of-range",
            message=f"{compressor} has levels from 1 to {HIGHEST_LEVELS[compressor]}, and {level} is asked for",
            hint=f"--level {HIGHEST_LEVELS[compressor]} is the highest",
        )


def _url_problem(message: str, *, hint: str = "--boot-url http://10.0.0.1/liveos.iso") -> Problem:
    return Problem(reference="boot-url-invalid", message=message, hint=hint)


def places(settings: Places) -> Iterator[Problem]:
    """What is wrong with where things lie."""
    if problem := (tar_problem if settings.format == "tar" else output_problem)(settings.output):
        yield problem
    yield from _in_image(settings)
    inputs = [settings.image, settings.config_path, *(file.source for file in settings.files)]
    for path in inputs:
        if path.resolve().is_relative_to(settings.output):
            yield Problem(
                reference="input-in-output",
                message=f"{path} lies in the output folder {settings.output}, which is replaced as a whole",
                hint="choose another folder by --output",
            )
    for file in settings.files:
        if file.source.is_dir() and settings.output.is_relative_to(file.source.resolve()):
            yield Problem(
                reference="output-in-source",
                message=f"the output {settings.output} lies in {file.source}, which is to be packed",
                hint="choose another folder by --output",
            )


def urls(settings: Places, image: LiveImage) -> Iterator[Problem]:
    """The URLs that `image` needs and that are not given."""
    if image.live and not settings.boot_url:
        yield missing_setting("boot_url")
    elif settings.files and not settings.artifact_url:
        yield missing_setting("artifact_url")


def _in_image(settings: Places) -> Iterator[Problem]:
    if settings.image.is_dir() and settings.output.is_relative_to(settings.image.resolve()):
        yield Problem(
            reference="output-in-image",
            message=f"the output {settings.output} lies in the image {settings.image}, which is only read",
            hint="choose another folder by --output",
        )
