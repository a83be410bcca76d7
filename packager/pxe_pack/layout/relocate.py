"""Changes the URLs of a layout without repacking: `root=live:`, the manifest and the checksums, but not the image.

The configuration in the image names the artifacts' base URL. If it changes, grub.cfg gets the kernel argument
`pxe-fetch.artifact_url=` (docs/decisions/0007). The new layout is built next to the old one, with hard links to
unchanged files, and then both are exchanged in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract.paths import parents
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack import checks
from pxe_pack.console import joined
from pxe_pack.image.grub.arguments import for_address
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.grub.script import parse
from pxe_pack.image.grub.words import quoted, unquoted
from pxe_pack.image.liveos import opened
from pxe_pack.layout import kernel_arguments
from pxe_pack.layout.entries import menu
from pxe_pack.layout.files import what_is
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.kernel_arguments import ARTIFACT_URL, BASE_URL, ISO_SHA256, unsuitable
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import MANIFEST, SUMS, Kind, url_problem
from pxe_pack.layout.urls import Urls, default_artifact_url, file_name, is_nfs, same_urls, server
from pxe_pack.output import output_problem, staging
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, command_line
from pxe_pack.trust import sign_again, signed_boot
from pxe_pack.trust.signing import Signer


@dataclass(frozen=True, kw_only=True, slots=True)
class Relocated:
    """The result of a relocation."""

    root: Path
    urls: Urls
    changed: tuple[str, ...]  # paths of files with a new content or a new name
    warnings: tuple[Problem, ...]  # what nodes may lack for the new URLs, and what may be unintended


def relocate(
    root: Path,
    *,
    boot_url: str | None,
    artifact_url: str | None,
    base_url: str | None = None,
    signer: Signer | None = None,
) -> Relocated:
    """Change the URLs of the layout in `root`; None keeps a URL. A signed boot is signed again by `signer`.

    `base_url` replaces `defaults.base_url` of the nodes' configuration.

    Raises InputError before anything is written, WorkError and OSError later; the layout is then unchanged.
    """
    layout = Layout.read(real_path(root))
    problems = _problems(layout, boot_url=boot_url, artifact_url=artifact_url, base_url=base_url)
    if problems := [*problems, *signed_boot.key_problems(layout, signer)]:
        raise InputError(*problems)
    signed = signed_boot.programs(layout)
    urls = Urls(
        boot_url=boot_url or layout.urls.boot_url,
        artifact_url=_folder(artifact_url) if artifact_url else layout.urls.artifact_url,
    )
    names = {layout.iso: file_name(urls.boot_url)} if layout.iso and urls.boot_url else {}
    if problems := _clashes(layout, names, urls):
        raise InputError(*problems)
    edit = _edit(layout, urls, base_url=_folder(base_url) if base_url else "")
    moved = _rewritten(layout.text(GRUB_CFG), layout, urls, edit=edit)
    try:
        too_long = [*checks.command_lines(menu(moved, read=layout.text))]
    except GrubSyntaxError as error:
        raise unsuitable(layout.root / GRUB_CFG, error) from error
    if too_long:
        raise InputError(*too_long)
    warnings = _unreachable(layout, urls)
    with staging(layout.root, of=layout) as made:
        new = Layout(root=made.layout, urls=urls)
        for path in layout.files:
            if path not in (GRUB_CFG, IPXE_SCRIPT, *signed):
                new.take_over(path, layout, name=names.get(path, path))
        new.write_scripts(moved, program=signed[0] if signed else "")
        facts = sign_again.write_again(new, layout, signer, edit=edit, artifact_url=artifact_url, work=made.work)
        changed = [name for path, name in names.items() if path != name]
        changed += [path for path in (GRUB_CFG, IPXE_SCRIPT) if new.text(path) != layout.text(path)]
        changed += [path for path in signed if new.files[path] != layout.files[path]]
        new.finish({**layout.facts, **facts})
    warnings = (*warnings, *_left_behind(new, layout.urls), *_reports_stay(new, layout.urls))
    return Relocated(root=layout.root, urls=urls, changed=tuple(sorted(changed)), warnings=warnings)


def _left_behind(layout: Layout, before: Urls) -> Iterator[Problem]:
    """A warning if the ISO went to another server, and artifacts that were beside it did not."""
    old, new, base = before.boot_url, layout.urls.boot_url, layout.urls.artifact_url
    if not old or not new or not base or server(base) != server(old) or server(new) == server(old):
        return
    if left := [path for path, file in layout.files.items() if (file.url or "").startswith(base)]:
        more = f" and {len(left) - 1:,} more" if len(left) > 1 else ""
        yield Problem(
            reference="relocate-artifacts-stay",
            message=f"nodes still fetch {left[0]}{more} from the old server, at {base}",
            hint=f"if they move too: pxe-pack relocate DIR --artifact-url {default_artifact_url(new) or 'URL'}",
            severity="warning",
        )


def _reports_stay(layout: Layout, before: Urls) -> Iterator[Problem]:
    """A warning if nodes report to a server that the layout has left: the URL and the token are in the image."""
    url = layout.report_url
    old, new = ({server(one) for one in (urls.boot_url, urls.artifact_url) if one} for urls in (before, layout.urls))
    if url and server(url) in old - new:
        yield Problem(
            reference="relocate-report-stays",
            message=f"nodes still report to the old server, at {url}",
            hint="pack again to make them report to the new one: the URL is in the image",
            severity="warning",
        )


def _problems(layout: Layout, *, boot_url: str | None, artifact_url: str | None, base_url: str | None) -> list[Problem]:
    found: list[Problem] = []
    if boot_url is None and artifact_url is None and base_url is None:
        message = "nothing to change: give --boot-url, --artifact-url or --base-url"
        found.append(
            Problem(reference="relocate-nothing", message=message, hint="pxe-pack relocate DIR --boot-url URL")
        )
    if boot_url:
        found += checks.boot_url(boot_url)
        if not layout.urls.boot_url:
            message = f"{layout.root} boots without an ISO, so it has no boot_url"
            found.append(Problem(reference="relocate-no-iso", message=message, hint="leave --boot-url out"))
    found += checks.artifact_url(artifact_url) if artifact_url else []
    if base_url and (reason := url_problem(base_url)):
        message, hint = f"the base URL {redact(base_url)} {reason}", "for example --base-url http://10.0.0.1/mirror/"
        found.append(Problem(reference="base-url-invalid", message=message, hint=hint))
    found += [replaced for replaced in layout.differing() if "does not exist" in replaced.message]
    if unlisted := layout.unlisted():
        message = f"{layout.root} contains {what_is(unlisted[0])} that pxe-pack did not write: {unlisted[0]}"
        found.append(Problem(reference="output-foreign", message=message, hint="move it away, or it would be lost"))
    elif problem := output_problem(layout.root):
        found.append(problem)
    return found


def _unreachable(layout: Layout, urls: Urls) -> tuple[Problem, ...]:
    """What nodes lack for the new URLs, and did not lack before: warnings. Raises InputError for errors."""
    with opened(layout.root, boot_url=layout.urls.boot_url or "") as image:
        before = checks.subject(image, layout=layout, loaders=image.loaders)
        after = replace(before, boot_url=urls.boot_url or "", artifact_url=urls.artifact_url or "")
        known = [*checks.for_urls(before)]
        found = [problem for problem in checks.for_urls(after) if problem not in known]
    if errors := [problem for problem in found if problem.severity == "error"]:
        raise InputError(*errors)
    return tuple(problem for problem in found if problem.severity == "warning")


def _clashes(layout: Layout, names: Mapping[str, str], urls: Urls) -> list[Problem]:
    """Problems with files that would get the path or the URL of another. `names` has those that get a new path."""
    taken = {MANIFEST, SUMS, *layout.files, *(folder for path in layout.files for folder in parents(path))}
    found = [
        f"the ISO would be named {name}, but the layout has another file or a folder of that name"
        for path, name in names.items()
        if name != path and name in taken
    ]
    kinds = {names.get(path, path): file.kind for path, file in layout.files.items()}
    found += [f"{path} and {other} would both be served at {url}" for path, other, url in same_urls(kinds, urls)]
    hint = "choose another --boot-url or --artifact-url"
    return [Problem(reference="relocate-name-taken", message=message, hint=hint) for message in found]


def _folder(url: str) -> str:
    return url.rstrip("/") + "/"


def _rewritten(cfg: str, layout: Layout, urls: Urls, *, edit: sign_again.Edit) -> str:
    """grub.cfg with the new URLs. Raises InputError if it does not contain the old boot_url."""
    try:
        nodes = parse(cfg)
    except GrubSyntaxError as error:
        raise unsuitable(layout.root / GRUB_CFG, error) from error
    before = layout.urls.boot_url
    found = False
    for command in kernel_arguments.kernels(nodes):
        found |= f"root=live:{before}" in map(unquoted, command.words)
        kernel_arguments.replace_words(command, edit(command.words))
    if before and urls.boot_url != before and not found:
        message = f"{layout.root / GRUB_CFG} does not contain root=live:{before}, so it cannot be replaced"
        hint = "someone has edited the file; restore that argument, or pack again"
        raise InputError(Problem(reference="relocate-no-root", message=message, hint=hint))
    return "".join(map(str, nodes))


def _edit(layout: Layout, urls: Urls, *, base_url: str) -> sign_again.Edit:
    """What replaces the URLs in the words of an entry's kernel, and adds or removes the arguments that tell them."""
    packed, before, after = layout.packed_artifact_url, layout.urls.boot_url, urls.boot_url
    own, added = [ARTIFACT_URL], dict[str, str]()
    if is_nfs(after or ""):  # a share is mounted, not downloaded
        own.append(ISO_SHA256)
    elif layout.verifies_iso and layout.iso:
        own.append(ISO_SHA256)
        added[ISO_SHA256] = layout.files[layout.iso].sha256
    if urls.artifact_url and packed and urls.artifact_url != _folder(packed) and layout.of_kind(Kind.ARTIFACT):
        added[ARTIFACT_URL] = urls.artifact_url
    if base_url:
        own.append(BASE_URL)
        added[BASE_URL] = base_url

    def edit(given: Sequence[str]) -> list[str]:
        words = kernel_arguments.without(given, own)
        live = [number for number, word in enumerate(words) if unquoted(word) == f"root=live:{before}"]
        for number in live:
            words[number] = quoted(f"root=live:{after}")
        if live and after:
            words = for_address(words, after)
        for name, value in added.items():
            if live or name != ISO_SHA256:
                words = kernel_arguments.with_argument(words, name, value)
        return words

    return edit


def document(relocated: Relocated) -> dict[str, object]:
    """The result as JSON values (docs/json.md)."""
    return {
        "output": str(relocated.root),
        "boot_url": relocated.urls.boot_url,
        "artifact_url": relocated.urls.artifact_url,
        "changed": list(relocated.changed),
    }


def summary(relocated: Relocated) -> str:
    """The result as text."""
    lines = [f"Serve {relocated.root}/ at"]
    lines += [f"  {relocated.urls.boot_url}"] if relocated.urls.boot_url else []
    lines += [f"  {relocated.urls.artifact_url}"] if relocated.urls.artifact_url else []
    return joined([*lines, "", f"Verify:  {command_line('pxe-pack', 'check', relocated.root)}"])
