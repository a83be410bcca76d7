"""An exported layout as `boot` serves it: the files for TFTP, and the files for HTTP by URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract.minisign import signature_url
from pxe_fetch.contract.problem import Problem
from pxe_pack.layout.layout import TEST_BOOT_LOADER, Layout
from pxe_pack.layout.manifest import Kind, LayoutFile
from pxe_pack.tools import InputError, command_line
from pxe_pack.trust import signed_boot
from pxe_pack.trust.signature import signature_file


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedLayout:
    """A layout on disk. Paths are relative to `root`, or absolute outside of it; URLs are those the node uses."""

    root: Path
    tftp: tuple[str, ...]
    http: Mapping[str, str]  # URL -> path
    iso: str | None  # the URL in `root=live:`; None for a full-os image, which needs no ISO
    findings: tuple[Problem, ...]  # differences from the manifest; warnings only, since a node would boot it anyway
    program: str = ""  # the path of the signed program that boots the node; empty if GRUB does
    command_line: str = ""  # of the signed program
    additional: frozenset[str] = frozenset()  # paths of the image's files: served, though nothing fetches them unasked
    pinned: str | None = None  # the URL of the configuration that nodes fetch; None: they use the packed one

    def size(self, path: str) -> int:
        """Size of a file of the layout in bytes; 0 if it is missing."""
        file = self.root / path
        return file.stat().st_size if file.is_file() else 0


def _is_playable(file: LayoutFile) -> bool:
    """False for a file that cannot be served here, and that a node hardly fetches: an additional one, not by http."""
    return file.kind is not Kind.ADDITIONAL or (file.url or "").startswith("http:")


def read_served_layout(root: Path) -> ServedLayout:
    """The layout in `root`. Raises InputError if it is not pxe-pack's, or not for x86_64."""
    layout = Layout.read(root)
    tftp = tuple(layout.of_kind(Kind.BOOT))
    http = {file.url: path for path, file in layout.files.items() if file.url and _is_playable(file)}
    if not layout.is_bootable_here:
        raise InputError(
            Problem(
                reference="layout-architecture",
                message=f"{root} is not a layout for x86_64 machines: it has no {TEST_BOOT_LOADER}",
                hint="`pxe-pack boot` emulates x86_64 only; test other layouts on real hardware",
            )
        )
    program = next(iter(signed_boot.programs(layout)), "")
    return ServedLayout(
        root=root,
        program=program,
        command_line=signed_boot.command_line(layout) if program else "",
        tftp=tftp,
        http=http,
        iso=layout.urls.boot_url,
        findings=tuple(layout.differing()),
        additional=frozenset(layout.of_kind(Kind.ADDITIONAL)),
        pinned=layout.pinned.url if layout.pinned else None,
    )


def with_files(layout: ServedLayout, files: Sequence[tuple[Path, str]]) -> ServedLayout:
    """`layout` with further files to serve, each at its URL, or at the pinned configuration's if that is empty.

    The signature beside a file is served with it. Raises InputError if a file or its URL is missing.
    """
    served = dict(layout.http)
    for file, given in files:
        url = given or layout.pinned
        if not file.is_file():
            raise _refused(f"{file}, which --serve names, is not a file", "give a file with --serve FILE=URL")
        if url is None:
            message = f"{layout.root} has no pinned configuration, so {file} has no URL to be served at"
            pin = command_line("pxe-pack", "pin", layout.root, file, "--url", "URL")
            raise _refused(message, f"{command_line('--serve', f'{file}=URL')}, or pin it first: {pin}")
        served[url] = str(file.absolute())
        if (signature := signature_file(file)).is_file():
            served[signature_url(url)] = str(signature.absolute())
    return replace(layout, http=served)


def _refused(message: str, hint: str) -> InputError:
    return InputError(Problem(reference="boot-serve", message=message, hint=hint))
