"""Everything found about an image or a layout at once: what `pxe-pack check` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem, show
from pxe_pack import checks, unit
from pxe_pack.artifacts import local_files
from pxe_pack.checks.reach import urls_answer
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
# What is wrong with something that is an image all the same: a finding, and no bad input.
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
    """What is to be checked."""

    image: Path  # or a layout
    config: Path | None = None
    agent: Path | None = None  # a folder with a frozen agent; None: the one in the cache, if there is one
    node_memory: int | None = None  # bytes
    offline: bool = False  # no server is asked


def check(request: Request, *, console: Console) -> list[Problem]:
    """All that is found, errors first. Raises InputError when there is nothing to check."""
    layout = _layout(request.image)
    config, found = _config(request)
    try:
        with liveos.opened(
            request.image, boot_url=config.boot_url, boot_loader=config.boot_loader, told=console.step
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
            found += [] if request.offline else urls_answer(subject)
    except InputError as error:
        if not all(problem.reference in IN_IMAGE for problem in error.problems):
            raise
        found += error.problems
    return sorted(found, key=lambda problem: SEVERITIES.index(problem.severity))


def _layout(path: Path) -> Layout | None:
    """The layout in `path`; None where that is something else. Raises InputError for one that cannot be read."""
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
    """What the configuration says, and what is wrong with it. Raises InputError when it is none."""
    if request.config is None:
        return _Config(local_sizes={}), []
    _, document = read_config(request.config)
    beside, pack = request.config.absolute().parent, document.pack
    files, found = local_files(document.fetch, beside=beside)
    found += checks.boot_url(pack.boot_url) if pack.boot_url else []
    found += checks.artifact_url(pack.artifact_url) if pack.artifact_url else []
    wrong = [*checks.compression(pack.compressor, pack.level)]
    config = _Config(
        fetch=document.fetch,
        boot_url=pack.boot_url or "",
        boot_loader=beside / pack.boot_loader if pack.boot_loader else None,
        inject=pack.inject,
        rewrite=Rewrite(compressor=pack.compressor, level=pack.level) if pack.compressor and not wrong else None,
        local_sizes={name: file.content_size for file in files for name in file.artifacts},
    )
    return config, found + wrong


def _loaders(
    image: LiveImage, layout: Layout | None, *, given: Path | None
) -> tuple[BootLoaders | None, list[Problem]]:
    """The boot loaders that nodes get, and what is to be said of the choice."""
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
        message=f"{chosen.why}: packing takes {chosen.loaders.origin}",
        hint="nothing; --boot-loader gives others",
        severity="note",
    )
    return chosen.loaders, [note]


def _payload(subject: Subject, config: _Config, request: Request, *, console: Console) -> Iterator[Problem]:
    """What is wrong with what packing will put in: a layout has it already."""
    if subject.layout:
        return
    try:
        choose(config.inject, subject.image, rewrite=config.rewrite)
    except InputError as error:
        yield from error.problems
    agent = load_agent(request.agent) if request.agent else cached_agent(cache=default_cache(), console=console)
    if agent:
        yield from checks.agent_fits(agent, subject.image)
    else:
        yield Problem(
            reference="agent-not-frozen",
            message="no agent has been frozen here yet, so which C library it needs is not known",
            hint="give one by --agent, or pack once: then it is kept",
            severity="note",
        )
    service = unit.service_for(subject.config or FetchConfig(), systemd=subject.image.systemd)
    yield from unit.unit_problems(service)


def fails(found: Sequence[Problem]) -> bool:
    """Whether something will fail."""
    return any(problem.severity == "error" for problem in found)


def document(request: Request, found: Sequence[Problem]) -> dict[str, object]:
    """What was found, for a machine."""
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
                "where": asdict(problem.where) if problem.where else None,
            }
            for problem in found
        ],
    }


def text(request: Request, found: Sequence[Problem]) -> str:
    """What was found, for a person."""
    count = Counter(problem.severity for problem in found)
    told = [f"{count[one]} {one}{'s' if count[one] > 1 else ''}" for one in SEVERITIES if count[one]]
    return "\n\n".join([*map(show, found), f"{request.image}: {', '.join(told) or 'nothing found'}"])
