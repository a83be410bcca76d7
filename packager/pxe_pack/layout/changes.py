"""What differs between two layouts, as their manifests say: for people who choose the version to serve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import Kind

_MOST_NAMED = 5  # files in one change
_DIGITS = 8  # of a digest that is shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that differs: its kind (a stable word), and a text for people."""

    what: str
    text: str


def changes(before: Layout, after: Layout) -> Iterator[Change]:
    """What `after` has that `before` had not, and the reverse. Empty if nodes would notice no difference."""
    for what, old, new in _facts(before, after):
        if old != new:
            yield Change(what=what, text=f"{_LABELS[what]} {old or 'none'} → {new or 'none'}")
    for what, kind in (("artifacts", Kind.ARTIFACT), ("image-files", Kind.ADDITIONAL), ("boot-files", Kind.BOOT)):
        yield from _files(what, _digests(before, kind), _digests(after, kind))


_LABELS = {
    "iso": "ISO",
    "system": "system",
    "agent": "agent",
    "configuration": "packed configuration",
    "pinned": "configuration by URL",
    "trust": "trusted keys",
    "boot-url": "boot_url",
    "artifact-url": "artifact_url",
    "inject": "injected by",
    "artifacts": "artifacts",
    "image-files": "the image's files",
    "boot-files": "boot files",
}


def iso_digest(layout: Layout) -> str:
    """The SHA-256 digest of the layout's ISO; empty if it has none."""
    return layout.files[layout.iso].sha256 if layout.iso else ""


def kernels(layout: Layout) -> dict[str, str]:
    """The SHA-256 digests of the kernels, by path."""
    image = layout.facts.get("image")
    known = image.get("kernels") if isinstance(image, dict) else None
    paths = [path.lstrip("/") for path in known if isinstance(path, str)] if isinstance(known, list) else []
    return {path: layout.files[path].sha256 for path in paths if path in layout.files}


def config_digest(layout: Layout) -> str:
    """The SHA-256 digest of the configuration that was packed; empty if the manifest has none."""
    inputs = layout.facts.get("inputs")
    entries = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
    return next((str(one.get("sha256")) for one in entries if one.get("role") == "config"), "")


def _facts(before: Layout, after: Layout) -> Iterator[tuple[str, str, str]]:
    """What is one value: the word for it, and the value in both. Digests are shortened."""
    yield "iso", iso_digest(before)[:_DIGITS], iso_digest(after)[:_DIGITS]
    yield "system", before.fact("image", "system"), after.fact("image", "system")
    yield "agent", _agent(before), _agent(after)
    yield "configuration", config_digest(before)[:_DIGITS], config_digest(after)[:_DIGITS]
    yield "pinned", _pinned(before), _pinned(after)
    yield "trust", _keys(before), _keys(after)
    yield "boot-url", before.urls.boot_url or "", after.urls.boot_url or ""
    yield "artifact-url", before.urls.artifact_url or "", after.urls.artifact_url or ""
    yield "inject", before.fact("inject", "how"), after.fact("inject", "how")


def _agent(layout: Layout) -> str:
    return f"{layout.fact('agent', 'version')} ({layout.fact('agent', 'digest')[:_DIGITS]})"


def _pinned(layout: Layout) -> str:
    return f"{layout.pinned.url} ({layout.pinned.sha256[:_DIGITS]})" if layout.pinned else ""


def _keys(layout: Layout) -> str:
    """The ids of the keys that nodes trust."""
    listed = layout.facts.get("trust")
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return ", ".join(sorted(str(one.get("key_id")) for one in entries))


def _digests(layout: Layout, kind: Kind) -> dict[str, str]:
    return {path: file.sha256 for path, file in layout.of_kind(kind).items()}


def _files(what: str, before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    """A change for the files that were added, one for those removed, and one for those with another content."""
    found = {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(path for path in after.keys() & before.keys() if after[path] != before[path]),
    }
    for verb, paths in found.items():
        if paths:
            more = f" and {len(paths) - _MOST_NAMED:,} more" if len(paths) > _MOST_NAMED else ""
            yield Change(what=what, text=f"{_LABELS[what]} {verb}: {', '.join(paths[:_MOST_NAMED])}{more}")
