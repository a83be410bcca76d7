"""What a pack will do: the settings and the image give the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pxe_fetch.contract import quantity
from pxe_fetch.contract.model import Artifact
from pxe_fetch.contract.problem import Problem, printable
from pxe_fetch.contract.quantity import show_size
from pxe_pack import checks, node_memory
from pxe_pack.additional_files import AdditionalFiles, find_additional
from pxe_pack.artifacts import LocalFile, installed_sizes
from pxe_pack.image.bootloader import BootFile
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.liveroot import LiveOS
from pxe_pack.inject import Choice, choose
from pxe_pack.layout.manifest import Kind
from pxe_pack.layout.urls import Urls, file_name
from pxe_pack.loaders import LoaderChoice, choose_loaders
from pxe_pack.node_memory import NodeMemory
from pxe_pack.node_urls import shown_urls
from pxe_pack.settings import Settings
from pxe_pack.tools import InputError
from pxe_pack.trust import keys
from pxe_pack.trust.iso_hook import Verification, choose_verification
from pxe_pack.trust.signed_boot import SignedBoot, signed_boot

_MOST_SHOWN = 20  # files of the image, in the plan's lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a pack will do."""

    settings: Settings
    choice: Choice
    image: LiveImage
    loaders: LoaderChoice
    memory: NodeMemory
    verification: Verification  # of the ISO
    additional: AdditionalFiles
    signed: SignedBoot | None  # None: GRUB boots the nodes
    warnings: tuple[Problem, ...] = ()  # what may go wrong at boot

    @property
    def boot_url(self) -> str | None:
        """The ISO's URL; None for a full-os image."""
        return self.settings.boot_url if self.image.live else None

    @property
    def iso_name(self) -> str:
        """The ISO's file name in the layout: the last part of its URL; empty for a full-os image."""
        return file_name(self.boot_url or "")

    @property
    def urls(self) -> Urls:
        """Where HTTP will serve the layout."""
        return Urls(boot_url=self.boot_url, artifact_url=self.settings.artifact_url or None)

    def lines(self) -> Iterator[str]:
        """The plan as lines of text."""
        image, settings = self.image, self.settings
        systemd = f"systemd {image.systemd}" if image.systemd else "systemd unknown"
        libc = f"glibc {image.facts.glibc}" if image.facts.glibc else "glibc unknown"
        yield f"image     {settings.image} ({self._kind()})"
        yield f"system    {image.facts.name or 'unknown'}, {image.machine}, {systemd}, {libc}"
        if live := image.live:
            yield f"root      {live.root.path}: {self._format(live)}, {live.span.size:,} bytes"
        for name, facts in image.initrds.items():
            able = [word for word, can in _abilities(facts.livenet, facts.dmsquash_live, facts.applies_updates) if can]
            yield f"initrd    {name}: {facts.compression}, {', '.join(able) or 'cannot boot a LiveOS'}"
        yield f"kernel    {', '.join(image.network.kernels)} ({image.grub_source})"
        chosen = self.loaders
        if self.signed:
            yield self.signed.line()
        else:
            yield from self._loader_lines(chosen)
        yield f"inject    {self.choice.name}: {self.choice.injector.HOW} ({self.choice.why})"
        if self.boot_url:
            yield f"boot      {self.boot_url}"
            yield f"verify    {'the ISO' if self.verification.hook else 'not the ISO'}: {self.verification.why}"
        yield from keys.lines(settings.trust)
        if settings.reports:
            yield settings.reports.line()
        for file in settings.files:
            files = f"{quantity.count(file.folder.files, 'file')}, " if file.folder else ""
            chunks = f", in chunks of {show_size(file.planned_chunk)}" if file.planned_chunk else ""
            what = f"{files}{file.content_size:,} bytes{chunks}"
            yield f"artifact  {file.source} ({what}) as {file.url(settings.artifact_url)}"
        for artifact in self._fetched():
            size = "size unknown" if artifact.size is None else f"{artifact.size:,} bytes"
            first, *others = shown_urls(artifact)
            mirrors = f" and {len(others)} mirror{'s' if len(others) > 1 else ''}" if others else ""
            yield f"artifact  {artifact.name} ({size}) from {first}{mirrors}"
        yield from self._additional_lines()
        yield f"output    {settings.output}{'' if settings.format == 'tar' else '/'}"
        if self.memory.given:
            yield from node_memory.lines(self.memory)

    def _loader_lines(self, chosen: LoaderChoice) -> Iterator[str]:
        yield f"loader    {', '.join(chosen.loaders.files)}: {chosen.loaders.origin} ({chosen.why})"
        for path in chosen.loaders.redirector:
            yield f"          {path} points GRUB to boot/grub2/grub.cfg"

    def _fetched(self) -> Iterator[Artifact]:
        """The artifacts that nodes fetch from servers of their own: not exported with the layout."""
        return (artifact for artifact in self.settings.fetch.artifacts if artifact.urls)

    def _additional_lines(self) -> Iterator[str]:
        files = [*self.additional.files.items()]
        for path, file in files[:_MOST_SHOWN]:
            url = self.urls.of(path, Kind.ADDITIONAL)
            yield f"file      {path} ({file.size:,} bytes){f' as {url}' if url else ''}"
        if rest := files[_MOST_SHOWN:]:
            yield f"          and {len(rest):,} more of the image's files, {sum(file.size for _, file in rest):,} bytes"
        behind = [*self.additional.left_behind.items()]
        for path, why in behind[:_MOST_SHOWN]:
            yield f"left behind  {path}: {why}"
        if len(behind) > _MOST_SHOWN:
            yield f"          and {len(behind) - _MOST_SHOWN:,} more, in the manifest's left_behind"
        if left_out := self.additional.left_out:
            more = f" and {len(left_out) - _MOST_SHOWN:,} more" if len(left_out) > _MOST_SHOWN else ""
            yield f"left out  {', '.join(map(printable, left_out[:_MOST_SHOWN]))}{more}"

    def _kind(self) -> str:
        if given := self.image.rootfs_source:
            return f"a root filesystem ({given.form}), built into an ISO"
        if iso := self.image.iso:
            return f"{self.image.kind}, {iso.size:,} bytes, volume {iso.volume_id}"
        return f"{self.image.kind}: the initrd is the root filesystem"

    def _format(self, live: LiveOS) -> str:
        superblock = live.superblock
        if superblock is None:
            return live.root_format
        options = f" ({', '.join(superblock.options)})" if superblock.options else ""
        block = f"{superblock.block_size >> 10} KiB blocks"
        return f"{live.root_format}, {superblock.compressor}{options}, {block}, {superblock.inodes:,} inodes"

    def boot_files(self) -> dict[str, BootFile]:
        """The files TFTP serves except grub.cfg and the files pointing to it, by path in the layout."""
        return {**({} if self.signed else self.loaders.loaders.files), **self.image.boot_files()}

    def loaders_document(self) -> dict[str, object]:
        """The boot loaders as JSON values."""
        chosen = self.loaders.loaders
        return {
            "files": list(self.signed.files if self.signed else chosen.files),
            "origin": chosen.origin,
            "why": self.loaders.why,
            "config": chosen.netboot.config,
        }

    def document(self) -> dict[str, object]:
        """The plan as JSON values (docs/json.md)."""
        settings, image = self.settings, self.image
        return {
            "image": image.document(),
            "inject": {"how": self.choice.name, "why": self.choice.why},
            "boot_loaders": self.loaders_document(),
            "boot_url": self.boot_url,
            "verify_iso": self.verification.document(),
            "artifact_url": settings.artifact_url,
            "trust": [key.document() for key in settings.trust],
            "report": {"url": settings.reports.url} if settings.reports else None,
            "artifacts": [
                *(_artifact_document(file, base=settings.artifact_url) for file in settings.files),
                *map(_fetched_document, self._fetched()),
            ],
            "additional_files": [
                {"path": path, "size": file.size, "url": self.urls.of(path, Kind.ADDITIONAL)}
                for path, file in self.additional.files.items()
            ],
            "left_behind": self.additional.left_behind_document(),
            "left_out": list(self.additional.left_out),
            "output": str(settings.output),
            "memory": node_memory.document(self.memory),
        }


def _artifact_document(file: LocalFile, *, base: str) -> dict[str, object]:
    chunks = {"size": file.planned_chunk, "url": file.list_url(base)} if file.planned_chunk else None
    files = {"files": file.folder.files} if file.folder else {}
    known = {"names": list(file.artifacts), "size": file.content_size, "url": file.url(base), "chunks": chunks}
    return {"source": str(file.source), **files, **known}


def _fetched_document(artifact: Artifact) -> dict[str, object]:
    """An artifact with URLs of its own, as JSON values; without the URLs' queries, which may have secrets."""
    url, *mirrors = shown_urls(artifact)
    return {"source": None, "names": [artifact.name], "size": artifact.size, "url": url, "mirrors": mirrors}


def _abilities(livenet: bool, live: bool, updates: bool) -> tuple[tuple[str, bool], ...]:  # noqa: FBT001  three facts
    return ("livenet", livenet), ("dmsquash-live", live), ("apply-live-updates", updates)


def make_plan(settings: Settings, image: LiveImage, *, say: Callable[[str], None]) -> Plan:
    """Plan the packing of `image`. If memory is too small, `say` gets its table. Raises InputError with all errors."""
    found = [*checks.urls(settings, image)]
    chosen: LoaderChoice | None = None
    choice: Choice | None = None
    verification: Verification | None = None
    try:
        chosen = choose_loaders(image.loaders, machine=image.machine, given=settings.boot_loader)
    except InputError as error:
        found += error.problems
    try:
        choice = choose(settings.inject, image, rewrite=settings.rewrite)
    except InputError as error:
        found += error.problems
    try:
        verification = choose_verification(settings.verify_iso, image, boot_url=settings.boot_url)
    except InputError as error:
        found += error.problems
    subject = checks.subject(
        image,
        loaders=chosen.loaders if chosen else None,
        boot_url=settings.boot_url,
        artifact_url=settings.artifact_url,
        config=settings.fetch,
        local_sizes=installed_sizes(settings.files),
        node_memory=settings.node_memory,
        injector=choice.name if choice else "",
        verifies_iso=bool(verification and verification.hook),
    )
    found += checks.offline(subject)
    additional = find_additional(image, leave_out=settings.leave_out)
    found += checks.additional_files(
        additional,
        image=image,
        loaders=chosen.loaders if chosen else None,
        files=settings.files,
        urls=Urls(boot_url=settings.boot_url if image.live else None, artifact_url=settings.artifact_url or None),
        report_url=settings.reports.url if settings.reports else "",
    )
    signed: SignedBoot | None = None
    if settings.signer:
        try:
            signed = signed_boot(
                settings.signer,
                chain=settings.chain,
                tree=image.tree,
                machine=image.machine,
                loaders=chosen.loaders if chosen else None,
            )
        except InputError as error:
            found += error.problems
        found += checks.other_entries(subject.menu)
    errors = [problem for problem in found if problem.severity == "error"]
    if any(problem.reference.startswith("node-memory") for problem in errors):
        for line in node_memory.lines(subject.memory):
            say(line)
    if errors or not chosen or not choice or not verification:
        raise InputError(*errors)
    return Plan(
        settings=settings,
        image=image,
        choice=choice,
        loaders=chosen,
        memory=subject.memory,
        verification=verification,
        additional=additional,
        signed=signed,
        warnings=tuple(problem for problem in found if problem.severity == "warning"),
    )
