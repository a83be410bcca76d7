"""All checks of an image or a layout: what `pxe-pack check` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem, show
from pxe_pack import checks, unit
from pxe_pack.artifacts import local_files
from pxe_pack.checks.check_urls import check_urls
from pxe_pack.checks.subject import Subject
from pxe_pack.console import Console
from pxe_pack.freeze import cached_agent, default_cache, load_agent
from pxe_pack.image import liveos
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import choose
from pxe_pack.inject.rewrite import Rewrite
from pxe_pack.layout.read import Layout
from pxe_pack.layout.read import read as read_layout
from pxe_pack.loaders import choose_loaders
from pxe_pack.output import MANIFEST
from pxe_pack.plan import read_config
from pxe_pack.tools import InputError

SEVERITIES = ("error", "warning", "note")
# Problems inside a valid image: findings (exit code 3), not invalid input (exit code 2).
IN_IMAGE = frozenset(
    {
        "boot-loader-unfit",
        "grub-unsuitable",
        "image-no-boot-loader",
        "image-no-iso",
        "image-no-liveos",
        "image-scattered",
        "image-two-isos",
        "initrd-damaged",
        "root-no-initrd",
        "root-no-kernel",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to check."""

    image: Path  # or a layout
    config: Path | None = None
    agent: Path | None = None  # a folder with a frozen agent; None: the cached one, if any
    node_memory: int | None = None  # bytes
    offline: bool = False  # do not contact servers


def check(request: Request, *, console: Console) -> list[Problem]:
    """All findings, errors first. Raises InputError when `request.image` is not an image or a layout."""
    layout = _layout(request.image)
    config, found = _config(request)
    try:
        with liveos.opened(
            request.image, boot_url=config.boot_url, boot_loader=config.boot_loader, step=console.step
        ) as image:
            loaders, wrong = _loaders(image, layout, given=config.boot_loader)
            found += wrong
            subject = checks.subject(
                image,
                layout=layout,
                loaders=loaders,
                boot_url=config.boot_url,
                config=config.fetch,
                local_sizes=config.local_sizes,
                node_memory=request.node_memory,
            )
            found += checks.offline(subject)
            found += _payload(subject, config, request, console=console)
            found += [] if request.offline else check_urls(subject)
    except InputError as error:
        if not all(problem.reference in IN_IMAGE for problem in error.problems):
            raise
        found += error.problems
    return sorted(found, key=lambda problem: SEVERITIES.index(problem.severity))


def _layout(path: Path) -> Layout | None:
    """The layout in `path`; None if `path` is something else. Raises InputError for an unreadable layout."""
    try:
        ours = b'"pxe_pack"' in (path / MANIFEST).read_bytes()
    except OSError:
        return None
    return read_layout(path) if ours else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Config:
    fetch: FetchConfig | None = None
    boot_url: str = ""
    boot_loader: Path | None = None  # a folder
    inject: str = "auto"
    rewrite: Rewrite | None = None
    local_sizes: dict[str, int]


def _config(request: Request) -> tuple[_Config, list[Problem]]:
    """The configuration and its problems. Raises InputError if it is invalid."""
    if request.config is None:
        return _Config(local_sizes={}), []
    _, document = read_config(request.config)
    base_dir, pack = request.config.absolute().parent, document.pack
    files, found = local_files(document.fetch, base_dir=base_dir)
    found += checks.boot_url(pack.boot_url) if pack.boot_url else []
    found += checks.artifact_url(pack.artifact_url) if pack.artifact_url else []
    found += checks.credentials(document.fetch, pack.artifact_url or pack.boot_url or "")
    wrong = [*checks.compression(pack.compressor, pack.level)]
    config = _Config(
        fetch=document.fetch,
        boot_url=pack.boot_url or "",
        boot_loader=base_dir / pack.boot_loader if pack.boot_loader else None,
        inject=pack.inject,
        rewrite=Rewrite(compressor=pack.compressor, level=pack.level) if pack.compressor and not wrong else None,
        local_sizes={name: file.content_size for file in files for name in file.artifacts},
    )
    return config, found + wrong


def _loaders(
    image: LiveImage, layout: Layout | None, *, given: Path | None
) -> tuple[BootLoaders | None, list[Problem]]:
    """The boot loaders for the nodes, and findings about that choice."""
    if layout:
        return image.loaders, []
    try:
        chosen = choose_loaders(image.loaders, machine=image.machine, given=given)
    except InputError as error:
        return None, list(error.problems)
    if chosen.loaders is image.loaders or given:
        return chosen.loaders, []
    note = Problem(
        reference="boot-loader-replaced",
        message=f"{chosen.why}; packing uses {chosen.loaders.origin}",
        hint="no action needed; use --boot-loader to choose others",
        severity="note",
    )
    return chosen.loaders, [note]


def _payload(subject: Subject, config: _Config, request: Request, *, console: Console) -> Iterator[Problem]:
    """Problems with what packing would add. A layout already contains it."""
    if subject.layout:
        return
    try:
        choose(config.inject, subject.image, rewrite=config.rewrite)
    except InputError as error:
        yield from error.problems
    yield from _agent(subject, request, console=console)
    service = unit.service_for(subject.config or FetchConfig(), systemd=subject.image.systemd)
    yield from unit.unit_problems(service)


def _agent(subject: Subject, request: Request, *, console: Console) -> Iterator[Problem]:
    try:
        agent = load_agent(request.agent) if request.agent else cached_agent(cache=default_cache(), console=console)
    except InputError as error:
        yield from error.problems
        return
    if agent:
        yield from checks.agent_fits(agent, subject.image)
    else:
        yield Problem(
            reference="agent-not-frozen",
            message="no frozen agent is cached, so the C library it needs is unknown",
            hint="pass one with --agent, or pack once to build one",
            severity="note",
        )


def fails(found: Sequence[Problem]) -> bool:
    """True if any finding is an error."""
    return any(problem.severity == "error" for problem in found)


def document(request: Request, found: Sequence[Problem]) -> dict[str, object]:
    """The findings as JSON values (docs/json.md)."""
    count = Counter(problem.severity for problem in found)
    return {
        "image": str(request.image),
        **{f"{severity}s": count[severity] for severity in SEVERITIES},
        "findings": [
            {
                "severity": problem.severity,
                "reference": problem.reference,
                "message": problem.message,
                "remedy": problem.hint,
                "where": problem.where._asdict() if problem.where else None,
            }
            for problem in found
        ],
    }


def text(request: Request, found: Sequence[Problem]) -> str:
    """The findings as text."""
    count = Counter(problem.severity for problem in found)
    counts = [f"{count[one]} {one}{'s' if count[one] > 1 else ''}" for one in SEVERITIES if count[one]]
    return "\n\n".join([*map(show, found), f"{request.image}: {', '.join(counts) or 'no problems found'}"])
