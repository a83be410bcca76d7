"""All checks of an image or a layout: what `pxe-pack check` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem, show
from pxe_pack import checks, liveiso, node_memory, unit
from pxe_pack.additional_files import find_additional
from pxe_pack.artifacts import LocalFile, installed_sizes, local_files
from pxe_pack.checks.check_urls import check_urls
from pxe_pack.checks.served_config import served_config
from pxe_pack.checks.subject import Subject
from pxe_pack.config_file import read_config
from pxe_pack.console import Console
from pxe_pack.freeze import THIS_MACHINE, FrozenAgent, cached_agent, default_cache, load_agent
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import choose
from pxe_pack.inject.rewrite import Rewrite
from pxe_pack.layout.layout import Layout, find_layout
from pxe_pack.layout.urls import Urls, default_artifact_url
from pxe_pack.loaders import choose_loaders
from pxe_pack.lock.lockfile import read_lock
from pxe_pack.node_memory import NodeMemory
from pxe_pack.node_reports import node_reports, with_reports
from pxe_pack.tools import InputError
from pxe_pack.trust import chain, signed_boot
from pxe_pack.trust.chain import Link
from pxe_pack.trust.iso_hook import choose_verification
from pxe_pack.trust.keys import read_keys
from pxe_pack.trust.signing import Signer, configured_signer

_NO_IMAGE = "pxe-pack check IMAGE, or --agent-config with a configuration that has `pack: {image: liveos.iso}`"
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

    image: Path | None = None  # or a layout; None: the image that the configuration names
    config: Path | None = None
    agent: Path | None = None  # a folder with a frozen agent; None: the cached one, if any
    node_memory: int | None = None  # bytes
    offline: bool = False  # do not contact servers


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a check found."""

    image: Path  # what was checked
    problems: Sequence[Problem]  # errors first
    memory: NodeMemory | None  # None if the image is not one that can be booted
    links: Sequence[Link]  # of a layout's boot, and what protects each


def check(request: Request, *, console: Console) -> Findings:
    """Check everything. Raises InputError when there is no image to check, or it is not an image or a layout."""
    config, found = _config(request)
    path = request.image or config.image
    if path is None:
        raise InputError(checks.missing_setting("image", hint=_NO_IMAGE))
    layout = find_layout(path)
    memory: NodeMemory | None = None
    links: Sequence[Link] = ()
    try:
        with liveiso.opened(path, boot_url=config.boot_url, boot_loader=config.boot_loader, step=console.step) as image:
            loaders, wrong = _loaders(image, layout, given=config.boot_loader)
            found += wrong
            injector, unsuitable = _injector(image, layout, config)
            found += unsuitable
            verifies_iso, unsuitable = _verification(image, layout, config)
            found += unsuitable
            subject = checks.subject(
                image,
                layout=layout,
                loaders=loaders,
                boot_url=config.boot_url,
                artifact_url=config.urls.artifact_url or config.urls.boot_url or "",
                injector=injector,
                verifies_iso=verifies_iso,
                config=config.fetch,
                local_sizes=installed_sizes(config.files),
                node_memory=request.node_memory or config.node_memory,
            )
            memory, links = subject.memory, chain.chain(subject)
            found += checks.offline(subject)
            found += _signing(subject, config)
            found += _payload(subject, request, console=console)
            found += _additional(subject, config)
            found += [] if request.offline else [*check_urls(subject), *served_config(subject)]
    except InputError as error:
        if not all(problem.reference in IN_IMAGE for problem in error.problems):
            raise
        found += error.problems
    found.sort(key=lambda problem: SEVERITIES.index(problem.severity))
    return Findings(image=path, problems=found, memory=memory, links=links)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Config:
    image: Path | None = None
    fetch: FetchConfig | None = None
    boot_url: str = ""
    boot_loader: Path | None = None  # a folder
    inject: str = "auto"
    verify_iso: str = "auto"
    node_memory: int | None = None  # bytes
    rewrite: Rewrite | None = None
    files: tuple[LocalFile, ...] = ()
    urls: Urls
    leave_out: tuple[str, ...] = ()
    signer: Signer | None = None
    chain: str = signed_boot.DB


def _config(request: Request) -> tuple[_Config, list[Problem]]:
    """The configuration and its problems. Raises InputError if it is invalid."""
    if request.config is None:
        return _Config(urls=Urls(boot_url=None, artifact_url=None)), []
    _, document = read_config(request.config, lock=read_lock(request.config))
    base_dir, pack = request.config.absolute().parent, document.pack
    files, found = local_files(document.fetch, base_dir=base_dir)
    found += checks.boot_url(pack.boot_url) if pack.boot_url else []
    found += checks.artifact_url(pack.artifact_url) if pack.artifact_url else []
    found += checks.credentials(document.fetch, pack.artifact_url or pack.boot_url or "")
    base = pack.artifact_url or (default_artifact_url(pack.boot_url) if pack.boot_url else None)
    signer, unsigned = configured_signer(pack.secure_boot, base_dir=base_dir)
    found += read_keys([base_dir / name for name in pack.trust])[1]
    reports, unreported = node_reports(
        pack.report, document.fetch, config=request.config, boot_url=pack.boot_url or "", artifact_url=base or ""
    )
    wrong = [*checks.compression(pack.compressor, pack.level)]
    config = _Config(
        image=base_dir / pack.image if pack.image else None,
        fetch=with_reports(document.fetch, reports),
        boot_url=pack.boot_url or "",
        boot_loader=base_dir / pack.boot_loader if pack.boot_loader else None,
        inject=pack.inject,
        verify_iso=pack.verify_iso,
        node_memory=pack.node_memory,
        rewrite=Rewrite(compressor=pack.compressor, level=pack.level) if pack.compressor and not wrong else None,
        files=tuple(files),
        urls=Urls(boot_url=pack.boot_url, artifact_url=base),
        leave_out=pack.leave_out,
        signer=signer,
        chain=pack.secure_boot.chain,
    )
    return config, found + unsigned + unreported + wrong


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


def _injector(image: LiveImage, layout: Layout | None, config: _Config) -> tuple[str, list[Problem]]:
    """The name of the injector that packing would use, and why there is none. A layout has been packed."""
    if layout:
        return "", []
    try:
        return choose(config.inject, image, rewrite=config.rewrite).name, []
    except InputError as error:
        return "", list(error.problems)


def _signing(subject: Subject, config: _Config) -> list[Problem]:
    """Why packing could not sign the boot, or problems with a layout whose boot the configuration's key signed."""
    if config.signer is None:
        return []
    try:
        if subject.layout:
            return list(checks.signed_by(subject.layout, config.signer.certificate))
        signed_boot.signed_boot(
            config.signer,
            chain=config.chain,
            tree=subject.image.tree,
            machine=subject.image.machine,
            loaders=subject.loaders,
        )
    except InputError as error:
        return list(error.problems)
    return list(checks.other_entries(subject.menu))


def _verification(image: LiveImage, layout: Layout | None, config: _Config) -> tuple[bool, list[Problem]]:
    """Whether packing would have nodes verify the ISO, and why they cannot although they have to."""
    if layout:
        return False, []
    try:
        return bool(choose_verification(config.verify_iso, image, boot_url=config.boot_url).hook), []
    except InputError as error:
        return False, list(error.problems)


def _payload(subject: Subject, request: Request, *, console: Console) -> Iterator[Problem]:
    """Problems with what packing would add. A layout already contains it."""
    if subject.layout:
        return
    yield from _agent(subject, request, console=console)
    service = unit.service_for(subject.config or FetchConfig(), systemd=subject.image.systemd)
    yield from unit.unit_problems(service)


def _agent(subject: Subject, request: Request, *, console: Console) -> Iterator[Problem]:
    machine = subject.image.machine or THIS_MACHINE
    try:
        if request.agent:
            agent: FrozenAgent | None = load_agent(request.agent)
        else:
            agent = cached_agent(cache=default_cache(), console=console, machine=machine)
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


def _additional(subject: Subject, config: _Config) -> Iterator[Problem]:
    """Problems with the image's additional files. A layout already contains them."""
    if subject.layout:
        return
    yield from checks.additional_files(
        find_additional(subject.image, leave_out=config.leave_out),
        image=subject.image,
        loaders=subject.loaders,
        files=config.files,
        urls=config.urls if subject.image.live else replace(config.urls, boot_url=None),
    )


def fails(found: Findings) -> bool:
    """True if any finding is an error."""
    return any(problem.severity == "error" for problem in found.problems)


def document(found: Findings) -> dict[str, object]:
    """The findings as JSON values (docs/json.md)."""
    count = Counter(problem.severity for problem in found.problems)
    return {
        "image": str(found.image),
        **{f"{severity}s": count[severity] for severity in SEVERITIES},
        "findings": [
            {
                "severity": problem.severity,
                "reference": problem.reference,
                "message": problem.message,
                "remedy": problem.hint,
                "where": problem.where._asdict() if problem.where else None,
            }
            for problem in found.problems
        ],
        "memory": node_memory.document(found.memory) if found.memory else None,
        "chain": chain.document(found.links),
    }


def text(found: Findings) -> str:
    """The findings as text; with the table of a node's memory, if that was given, and that of a layout's chain."""
    count = Counter(problem.severity for problem in found.problems)
    counts = [f"{count[one]} {one}{'s' if count[one] > 1 else ''}" for one in SEVERITIES if count[one]]
    table = ["\n".join(node_memory.lines(found.memory))] if found.memory and found.memory.given else []
    table += ["\n".join(chain.lines(found.links))] if found.links else []
    return "\n\n".join(
        [*map(show, found.problems), *table, f"{found.image}: {', '.join(counts) or 'no problems found'}"]
    )
