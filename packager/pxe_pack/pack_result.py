"""What a pack gives, as text and as JSON: the files and where to serve them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pxe_pack.console import joined
from pxe_pack.freeze import FrozenAgent
from pxe_pack.layout.layout import CURRENT, Layout
from pxe_pack.layout.manifest import Kind
from pxe_pack.payload import Payload
from pxe_pack.plan import Plan
from pxe_pack.tools import command_line


@dataclass(frozen=True, kw_only=True, slots=True)
class PackResult:
    """The result of a pack."""

    plan: Plan
    agent: FrozenAgent
    payload: Payload
    layout: Layout
    output: Path  # the layout on disk, or the archive
    seconds: float


def summary(packed: PackResult) -> str:
    """The result as text."""
    settings, layout = packed.plan.settings, packed.layout
    width = max(len(path) for path in layout.files)
    lines = [f"  {path:{width}}  {counted.size:>15,}" for path, counted in sorted(layout.files.items())]
    loaders = ", ".join(_loaders(packed.plan))
    added = f"{len(packed.payload.entries)} files, {packed.payload.size:,} bytes"
    what = f"the agent {packed.agent.version}, its unit, and the configuration"
    return joined(
        [
            f"{packed.output}{'' if settings.format == 'tar' else '/'}",
            *lines,
            "",
            f"Added to the image with `{packed.plan.choice.name}`: {what} ({added}).",
            *(
                [f"Trusted, for configurations by URL: {', '.join(map(str, settings.trust))}."]
                if settings.trust
                else []
            ),
            *([f"Nodes report to {settings.reports.url}."] if settings.reports else []),
            *(["Nodes verify the ISO before they mount it."] if packed.plan.verification.hook else []),
            f"Packed in {packed.seconds:.1f} s.",
            "",
            f"Serve by TFTP:  {loaders}, boot/",
            *(f"{_served_by(url)}{path} as {url}" for path, url in _served(layout)),
            "",
            *_next(packed),
        ]
    )


def _loaders(plan: Plan) -> list[str]:
    """The boot loaders and the files that point them to grub.cfg; of folders, their names."""
    if plan.signed:
        return list(plan.signed.files)
    loaders = plan.loaders.loaders
    tops = {path.partition("/")[0] + ("/" if "/" in path else "") for path in loaders.redirector}
    return [*sorted(loaders.files), *sorted(tops - {"boot/"})]


def _served(layout: Layout) -> Iterator[tuple[str, str]]:
    """Path and URL of what HTTP serves; of additional files, the folder at the top."""
    tops: dict[str, str] = {}
    for path, file in layout.files.items():
        if file.url:
            below = len(quote(path.partition("/")[2])) if file.kind is Kind.ADDITIONAL and "/" in path else 0
            tops[path.partition("/")[0] + "/" if below else path] = file.url[: len(file.url) - below]
    yield from tops.items()


def _served_by(url: str) -> str:
    """How a file is served, aligned with the line before it."""
    return f"Serve by {url.partition(':')[0].upper()}:".ljust(len("Serve by TFTP:  "))


def _next(packed: PackResult) -> list[str]:
    form, output = packed.plan.settings.format, packed.output
    if form == "tar":
        return [f"Unpack:  {command_line('tar', '-C', '/srv/pxe', '-xf', output)}"]
    root = output.parent.parent
    versions = [f"Serve:   {root / CURRENT}", f"Go back: {command_line('pxe-pack', 'rollback', root)}"]
    return [
        f"Verify:  {command_line('cd', output)} && sha256sum -c SHA256SUMS",
        *([f"Test:    {command_line('pxe-pack', 'boot', output)}"] if packed.layout.is_bootable_here else []),
        *(versions if form == "versions" else []),
    ]


def result_document(packed: PackResult) -> dict[str, object]:
    """The result as JSON values (docs/json.md)."""
    outputs = [
        {"path": path, "size": file.size, "sha256": file.sha256, "url": file.url, "kind": file.kind.value}
        for path, file in sorted(packed.layout.files.items())
    ]
    return {
        "output": str(packed.output),
        "inject": {"how": packed.plan.choice.name, "why": packed.plan.choice.why},
        "payload": {"files": len(packed.payload.entries), "size": packed.payload.size},
        "verify_iso": packed.plan.verification.document(),
        "outputs": outputs,
        "seconds": round(packed.seconds, 3),
    }
