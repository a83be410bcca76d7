"""A pack from start to finish: what `pxe-pack --agent-config fetch.yaml` does."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from pxe_fetch import __version__
from pxe_fetch.contract.document import MAX_CHARACTERS
from pxe_fetch.contract.problem import Problem
from pxe_pack import checks, dump, export, input_digest, liveiso, unit
from pxe_pack.artifacts import Exported, LocalFile, with_urls
from pxe_pack.console import Console, joined
from pxe_pack.freeze import THIS_MACHINE, FrozenAgent, default_cache, frozen_agent, load_agent
from pxe_pack.hashing import hash_file
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.rootfs_source import detect_rootfs
from pxe_pack.inject import PackedIso, Target, original_image
from pxe_pack.inject.append import append_hook
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import Kind
from pxe_pack.node_reports import NO_CREDENTIALS
from pxe_pack.output import Staging, staging, staging_folder
from pxe_pack.pack_result import PackResult
from pxe_pack.payload import Payload, make_payload
from pxe_pack.plan import Plan, make_plan
from pxe_pack.publish import publishing
from pxe_pack.settings import Options, Settings, resolve_settings
from pxe_pack.tarball import tar_staging
from pxe_pack.tools import InputError
from pxe_pack.trust.signed_boot import FACTS


def show_plan(options: Options, *, console: Console) -> None:
    """Print what packing would do, without doing it. Raises InputError as `pack` does."""
    settings = resolve_settings(options)
    with _image(settings, console) as image:
        plan = make_plan(settings, image, say=console.say)
        if plan.warnings:
            console.problems(plan.warnings)
        console.result({"plan": plan.document()}, joined(plan.lines()))


def pack(options: Options, *, console: Console) -> PackResult:
    """Pack the image and export the layout.

    Raises InputError before anything is written (except a frozen agent in the cache, and the token for reports),
    WorkError and OSError later; the output is then absent or unchanged.
    """
    began = time.monotonic()
    settings = resolve_settings(options)
    with _image(settings, console) as image:
        plan = make_plan(settings, image, say=console.say)
        for line in plan.lines():
            console.say(line)
        packed = PackedIso.find(image)
        if problems := checks.needed_tools(plan.choice, packed):
            raise InputError(*problems)
        if plan.warnings:
            console.problems(plan.warnings)
        agent = _agent(plan, console)
        service = unit.checked_service(settings.fetch, systemd=plan.image.systemd, console=console)
        # the final configuration and the manifest are small: the injector's estimate covers them
        payload = make_payload(
            agent=agent.path,
            service=service,
            live_space=unit.live_space_unit(settings.fetch, full_os=image.live is None),
            config=settings.config_text,
            roots=settings.fetch.allowed_roots,
            trust=settings.trust,
            credentials=settings.reports.credentials() if settings.reports else NO_CREDENTIALS,
            tree=image.tree,
        )
        needed = plan.choice.injector.disk_space(image, payload) + (packed.disk_space if packed else 0)
        needed += plan.verification.hook.size if plan.verification.hook else 0
        local = sum(file.disk_space for file in settings.files) + plan.additional.size
        local += sum(file.size for file in plan.boot_files().values()) * (3 if plan.signed else 1)
        layouts = 2 if settings.format == "tar" else 1  # the files, and a copy of them in the archive
        if problems := checks.disk_space(settings.output, needed=layouts * (needed + local)):
            raise InputError(*problems)
        with (
            _staging(settings, image) as made,
            original_image(image, packed, work=made.work, console=console) as original,
        ):
            plan = replace(plan, image=original)
            layout = Layout(root=made.layout, urls=plan.urls)
            files = _copy_artifacts(settings, layout=layout, console=console)
            payload = payload.with_config(_node_config(plan, files))
            inputs = _inject(plan, payload, layout=layout, work=made.work, console=console)
            _copy_additional(plan, layout=layout, console=console)
            with console.step("Exporting the layout") as step:
                digest = layout.files[plan.iso_name].sha256 if plan.verification.hook else None
                loaders = plan.loaders.loaders
                export.export_boot_files(layout, original, loaders, iso_sha256=digest, signed=plan.signed)
                boot = {FACTS: plan.signed.write(layout, work=made.work)} if plan.signed else {}
                layout.finish({**_facts(plan, agent, payload, inputs), **boot})
                step.note(f"{len(layout.files)} files, {layout.size:,} bytes")
    seconds = time.monotonic() - began
    return PackResult(plan=plan, agent=agent, payload=payload, layout=layout, output=made.output, seconds=seconds)


def _staging(settings: Settings, image: LiveImage) -> AbstractContextManager[Staging]:
    """The staging area whose layout becomes the output."""
    if settings.format == "tar":
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        return tar_staging(settings.output, mtime=int(epoch) if epoch.isdecimal() else image.mtime)
    if settings.format == "versions":
        return publishing(settings.output, keep=settings.keep)
    return staging(settings.output)


def _image(settings: Settings, console: Console) -> AbstractContextManager[LiveImage]:
    """Open the image; of a root filesystem, the ISO is built first. Temporary files go next to the output."""
    if not settings.boot_url and detect_rootfs(settings.image):  # fail before building the ISO, which needs one
        raise InputError(checks.missing_setting("boot_url"))
    return liveiso.opened(
        settings.image,
        boot_url=settings.boot_url,
        staging=lambda: staging_folder(settings.output),
        boot_loader=settings.boot_loader,
        step=console.step,
    )


def _agent(plan: Plan, console: Console) -> FrozenAgent:
    """The frozen agent. Raises InputError if it cannot run in the image."""
    given = plan.settings.agent
    machine = plan.image.machine or THIS_MACHINE
    agent = load_agent(given) if given else frozen_agent(cache=default_cache(), console=console, machine=machine)
    findings = checks.agent_fits(agent, plan.image)
    if any(problem.severity == "error" for problem in findings):
        raise InputError(*findings)
    if findings:
        console.problems(findings)
    return agent


def _inject(plan: Plan, payload: Payload, *, layout: Layout, work: Path, console: Console) -> list[dict[str, object]]:
    """Write the files with the payload, and the ISO, into the layout. Returns the image's files for the manifest."""
    image, name = plan.image, plan.iso_name
    hook = plan.verification.hook.entries if plan.verification.hook else {}
    target = Target(place=layout.place, iso=name, hook=hook)
    injected = plan.choice.injector.inject(image, payload, target=target, work=work, console=console)
    injected = append_hook(image, injected, target=target, console=console)
    for path, counted in injected.files.items():
        layout.record(path, counted, kind=Kind.ISO if path == name else Kind.BOOT)
    return input_digest.image_inputs(plan.image, plan.settings, hashed=injected.inputs, console=console)


def _copy_artifacts(settings: Settings, *, layout: Layout, console: Console) -> Mapping[LocalFile, Exported]:
    """Copy the local artifacts into the layout."""
    files, base = settings.files, settings.artifact_url
    if not files:
        return {}
    with console.step("Copying and hashing local artifacts", total=sum(file.content_size for file in files)) as step:
        return export.export_artifacts(layout, files, base=base, advance=step.advance)


def _copy_additional(plan: Plan, *, layout: Layout, console: Console) -> None:
    """Copy the image's additional files into the layout."""
    if plan.additional.files:
        with console.step("Copying and hashing the image's files", total=plan.additional.size) as step:
            export.export_additional(layout, plan.additional, advance=step.advance)


def _node_config(plan: Plan, files: Mapping[LocalFile, Exported]) -> str:
    """The configuration for the node: without `pack`, with local files as URLs and digests. Raises InputError."""
    config, problems = with_urls(plan.settings.fetch, files, base=plan.settings.artifact_url)
    if problems:
        raise InputError(*problems)
    text = dump.dump(config)
    if (size := len(text.encode())) > MAX_CHARACTERS:  # the agent reads no more bytes
        message = f"the configuration for nodes would have {size:,} bytes; no node reads more than {MAX_CHARACTERS:,}"
        hint = "each artifact gets a copy of `defaults`: shorten them, or give a folder as `source` for many files"
        raise InputError(Problem(reference="config-too-large", message=message, hint=hint))
    return text


def _facts(
    plan: Plan, agent: FrozenAgent, payload: Payload, inputs: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """The manifest's content except for the list of output files."""
    settings = plan.settings
    given = plan.image.rootfs_source
    read = [("config", settings.config_path)]
    if given and given.form != "directory":
        read.insert(0, ("image", settings.image))
    if settings.lock_path:
        read.append(("lock", settings.lock_path))
    files = [(role, path.name, hash_file(path)) for role, path in read]
    return {
        "pxe_pack": __version__,
        "inputs": [
            *inputs,
            *({"role": role, "name": name, "size": file.size, "sha256": file.sha256} for role, name, file in files),
        ],
        "image": {**plan.image.document(), "name": input_digest.image_name(plan.image)},
        "agent": agent.document(),
        "inject": {
            "how": plan.choice.name,
            "why": plan.choice.why,
            "size": payload.size,
            "payload": export.payload_document(payload),
            "artifact_url": f"{settings.artifact_url.rstrip('/')}/" if settings.files else None,
        },
        "trust": [key.document() for key in settings.trust],
        "report": {"url": settings.reports.url} if settings.reports else None,
        "verify_iso": plan.verification.document(),
        "boot_loaders": plan.loaders_document(),
        "left_behind": plan.additional.left_behind_document(),
    }
