"""What `pxe-pack show` prints about an image. The text and the JSON come from the same report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pxe_fetch.contract.url import redact
from pxe_pack.additional_files import AdditionalFiles, find_additional
from pxe_pack.freeze import component_lines, components_document, read_components
from pxe_pack.image import networking, units
from pxe_pack.image.efi import EfiProgram, examined
from pxe_pack.image.grub.efi_image import GrubImage
from pxe_pack.image.grub.netboot import Netboot
from pxe_pack.image.initrd.reader import InitrdFacts
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.pe.certificates import name
from pxe_pack.image.programs import Programs, programs
from pxe_pack.inject.packed_config import packed_config, packed_token, packed_trust
from pxe_pack.inject.previous_payload import PreviousPayload, previous_payloads
from pxe_pack.layout.layout import Layout, find_layout, section_of
from pxe_pack.trust import keys, signed_boot
from pxe_pack.trust.keys import TrustKey

_NETWORK_OF_GRUB = ("efinet", "net", "tftp", "http")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageReport:
    """Everything that `show` prints about an image."""

    image: LiveImage
    programs: Programs
    previous_payloads: tuple[PreviousPayload, ...]
    dhcp: str  # the program that runs DHCP in the root filesystem; empty if none is found
    additional: AdditionalFiles
    signed: tuple[EfiProgram, ...]  # a layout's signed programs, which boot instead of GRUB
    trust: tuple[TrustKey, ...]  # the public keys in it
    report_url: str  # where nodes report to; empty if they do not
    has_token: bool  # for that, put there by packing


def report_on(image: LiveImage) -> ImageReport:
    """Inspect `image`.

    Raises WorkError when its root filesystem is damaged, and InputError if it is a layout that cannot be trusted.
    """
    layout = find_layout(image.path) if image.path.is_dir() else None
    # Of an agent in an initrd, the layout's manifest alone says this.
    listed = read_components(section_of(layout.facts, "agent")) if layout else ()
    machine = layout.fact("agent", "machine") if layout else ""
    config = packed_config(image)
    return ImageReport(
        image=image,
        programs=programs(image, image.loaders),
        previous_payloads=tuple(
            replace(one, machine=one.machine or machine, components=one.components or listed)
            for one in previous_payloads(image)
        ),
        dhcp=networking.dhcp(image.tree, units.enabled(image.tree)) if image.tree else "",
        additional=find_additional(image),
        signed=_signed_programs(layout),
        trust=packed_trust(image),
        report_url=redact(config.report.url) if config and config.report.url else "",
        has_token=bool(packed_token(image)),
    )


def _signed_programs(layout: Layout | None) -> tuple[EfiProgram, ...]:
    names = signed_boot.programs(layout) if layout else ()
    return tuple(examined(path, (layout.root / path).read_bytes()) for path in names if layout)


def document(report: ImageReport) -> dict[str, object]:
    """The report as JSON values (docs/json.md)."""
    image = report.image
    known = image.document()
    return {
        **known,
        "given": image.rootfs_source.form if image.rootfs_source else None,
        "selinux": selinux(image),
        "dhcp": report.dhcp or None,
        "grub_cfg": image.grub_source,
        "kernels": [
            {"path": path, "release": kernel.release or None, **_signed(kernel.program)}
            for path, kernel in report.programs.kernels.items()
        ],
        "initrds": [_initrd_document(path, facts) for path, facts in image.initrds.items()],
        "netboot": _netboot_document(image.loaders.netboot) if image.loaders else None,
        "boot_loaders": [_loader_document(program) for program in report.programs.loaders],
        "signed_boot": [{"path": program.path, **_signed(program)} for program in report.signed],
        "additional_files": [{"path": path, "size": file.size} for path, file in report.additional.files.items()],
        "left_behind": report.additional.left_behind_document(),
        "injected": [
            {
                "how": one.how,
                "where": one.where,
                "agent": one.version or None,
                "machine": one.machine or None,
                "configured": one.configured,
                "components": components_document(one.components),
            }
            for one in report.previous_payloads
        ],
        "trust": [key.document() for key in report.trust],
        "report": {"url": report.report_url, "token": report.has_token} if report.report_url else None,
    }


def selinux(image: LiveImage) -> str:
    """SELinux's mode: enforcing, permissive, disabled, unknown, or none if the image has no SELinux configuration."""
    if image.selinux_enforcing:
        return "enforcing"
    if image.live and image.tree is None:
        return "unknown"
    if not image.facts.selinux:
        return "none"
    return "disabled" if _off(image) else image.facts.selinux.replace("enforcing", "permissive")


def _off(image: LiveImage) -> bool:
    return all("selinux=0" in entry for entry in image.network.arguments)


def _signed(program: EfiProgram) -> dict[str, object]:
    return {
        "signed_by": [one.signer for one in program.signatures],
        "signature_intact": all(one.intact for one in program.signatures) if program.signatures else None,
        "sbat": [str(one) for one in program.sbat],
    }


def _initrd_document(path: str, facts: InitrdFacts) -> dict[str, object]:
    return {
        "path": path,
        "kind": "full-os" if facts.full_os else "bootstrap",
        "compression": facts.compression,
        "readable": facts.readable,
        "unpacked_size": facts.unpacked,
        "kernels": sorted(facts.kernels),
        "livenet": facts.livenet,
        "dmsquash_live": facts.dmsquash_live,
        "url_lib": facts.url_lib,
        "network": list(facts.network),
        "applies_updates": facts.applies_updates,
        "verifies_iso": bool(facts.appended and facts.appended.verifies_iso),
        "curl": facts.curl,
        "ca_bundle": facts.ca_bundle,
        "modules": sorted(facts.modules),
    }


def _netboot_document(netboot: Netboot) -> dict[str, object]:
    return {"config": netboot.config or None, "obstacle": netboot.obstacle or None}


def _loader_document(program: EfiProgram) -> dict[str, object]:
    grub = program.grub
    return {
        "path": program.path,
        "kind": program.kind,
        "machine": program.machine or None,
        **_signed(program),
        "trusts": [name(one) for one in program.trusts],
        "prefix": grub.prefix if grub else None,
        "embedded_config": bool(grub and (grub.config or grub.memdisk_config)),
        "modules": list(grub.modules) if grub else [],
    }


def lines(report: ImageReport) -> Iterator[str]:
    """The report as lines of text."""
    image, facts = report.image, report.image.facts
    volume = f", volume {image.iso.volume_id}" if image.iso else ""
    made = f"a root filesystem ({image.rootfs_source.form}), built into an ISO; " if image.rootfs_source else ""
    yield f"image     {image.path} ({made}{image.kind}{volume})"
    yield f"system    {facts.name or 'unknown'}, {image.machine or 'unknown processor'}"
    glibc = f"glibc {facts.glibc}" if facts.glibc else "glibc unknown"
    systemd = f"systemd {image.systemd}" if image.systemd else "systemd unknown"
    yield f"          {systemd}, {glibc}, SELinux {selinux(image)}, DHCP: {report.dhcp or 'none found'}"
    if live := image.live:
        block = live.superblock
        packed = f", {block.compressor}, {block.block_size >> 10} KiB blocks, {block.inodes:,} inodes" if block else ""
        yield f"root      {live.root.path}: {live.root_format}{packed}, {live.span.size:,} bytes"
    for path, kernel in report.programs.kernels.items():
        yield f"kernel    {path}: {kernel.release or 'release unknown'}, {_signed_words(kernel.program)}"
    for path, initrd in image.initrds.items():
        yield from _initrd_lines(path, initrd)
    yield f"grub.cfg  {image.grub_source}"
    if signed := report.signed:
        yield f"signed    {_signed_program_words(signed)}"
    yield from _loader_lines(report)
    for path, file in report.additional.files.items():
        yield f"file      {path}, {file.size:,} bytes"
    for path, why in report.additional.left_behind.items():
        yield f"left behind  {path}: {why}"
    for one in report.previous_payloads:
        yield f"injected  {_previous_payload_words(one)}"
        yield from (f"          {line}" for line in component_lines(one.components))
    if not report.previous_payloads:
        yield "injected  nothing"
    yield from keys.lines(report.trust)
    if report.report_url:
        yield f"report    {report.report_url}{', with a token in the image' if report.has_token else ''}"


def _loader_lines(report: ImageReport) -> Iterator[str]:
    if not report.programs.loaders and not report.signed:
        yield "loader    none for UEFI"
    for program in report.programs.loaders:
        yield f"loader    {program.path}: {program.kind}, {program.machine}, {_signed_words(program)}"
        if grub := program.grub:
            prefix = repr(grub.prefix) if grub.prefix is not None else "none"
            early = ", has an embedded configuration" if grub.config or grub.memdisk_config else ""
            yield f"          prefix {prefix}{early}, {len(grub.modules)} modules, {_network_words(grub)}"
        if program.trusts:
            yield f"          trusts {', '.join(name(one) for one in program.trusts)}"
    if report.image.loaders:
        over = report.image.loaders.netboot
        yield f"netboot   {over.obstacle or f'GRUB reads {over.config} over TFTP'}"


def _signed_program_words(programs: Sequence[EfiProgram]) -> str:
    names = ", ".join(one.path for one in programs)
    return f"{names} with kernel, initrd and arguments, {_signed_words(programs[0])}"


def _initrd_lines(path: str, facts: InitrdFacts) -> Iterator[str]:
    kind = "full-os: the whole system" if facts.full_os else "bootstrap"
    if not facts.readable:
        yield f"initrd    {path}: cannot be read: {facts.unread_reason}"
        return
    inner = f", with a {facts.squashed} in it" if facts.squashed else ""
    yield f"initrd    {path}: {kind}, {facts.compression}{inner}, {facts.unpacked:,} bytes unpacked"
    if facts.full_os:
        return
    has = {
        "livenet": facts.livenet,
        "dmsquash-live": facts.dmsquash_live,
        "url-lib": facts.url_lib,
        "apply-live-updates": facts.applies_updates,
        "curl": facts.curl,
        "CA bundle": facts.ca_bundle,
    }
    network = list(facts.network)
    yield f"          has {', '.join([name for name, there in has.items() if there] + network) or 'no dracut modules'}"
    if lacking := [name for name, there in has.items() if not there] + ([] if network else ["network"]):
        yield f"          missing {', '.join(lacking)}"
    if facts.appended and facts.appended.verifies_iso:
        yield "          verifies the ISO before mounting it"


def _network_words(grub: GrubImage) -> str:
    able = [module for module in _NETWORK_OF_GRUB if module in grub.modules]
    return f"including {', '.join(able)}" if able else "none for the network"


def _signed_words(program: EfiProgram) -> str:
    if not program.signatures:
        return "not signed"
    broken = "" if all(one.intact for one in program.signatures) else ", signature invalid"
    return f"signed by {', '.join(dict.fromkeys(one.signer for one in program.signatures))}{broken}"


def _previous_payload_words(one: PreviousPayload) -> str:
    agent = f"the agent {one.version}" if one.version else "an agent"
    machine = f" for {one.machine}" if one.machine else ""
    config = "" if one.configured else ", without a configuration"
    return f"with `{one.how}`: {agent}{machine} in {one.where}{config}"
