"""Names a configuration that the nodes of a layout fetch by URL, pinned by its digest or by a signature.

The kernel arguments in grub.cfg and boot.ipxe, the manifest and the checksums are written beside the layout, and then
renamed into it. A killed run leaves the layout as it was, or one that the next run completes: nothing is read from
those files but what comes before the arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract import facts
from pxe_fetch.contract.document import MAX_CHARACTERS
from pxe_fetch.contract.minisign import MAX_SIZE, signature_url
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem, ProblemError, is_shown, printable
from pxe_fetch.contract.quantity import show_moment
from pxe_fetch.contract.url import redact
from pxe_pack import checks, config
from pxe_pack.config_file import read_text
from pxe_pack.console import Console, joined
from pxe_pack.image import liveos
from pxe_pack.layout.entries import Menu
from pxe_pack.layout.ipxe import quoted
from pxe_pack.layout.kernel_arguments import CONFIG, CONFIG_SHA256, PIN
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.new_entries import NewEntries
from pxe_pack.layout.pinned import PINNED_SERIAL, Pinned, url_reason
from pxe_pack.output import new_staging, parent_problem, published_problem, staging_folder
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, command_line
from pxe_pack.trust.keys import TrustKey
from pxe_pack.trust.signature import SignatureError, sign, signature_file, signer_of
from pxe_pack.trust.signing import Signer

_DRY_RUN = "Nothing was written."


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to pin."""

    layout: Path
    config: Path
    url: str | None  # None: where the one pinned before is
    sign: Path | None  # a file with a secret key of minisign
    dry_run: bool
    signer: Signer | None = None  # of a signed boot


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What has been pinned, or what would be."""

    root: Path
    pinned: Pinned | None  # None: there is none any more
    changed: tuple[str, ...]  # paths of files in the layout
    is_bootable_here: bool = False  # by `pxe-pack boot`
    config: Path | None = None
    signature: Path | None = None  # of the configuration, to be served with it
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Config:
    """The configuration to pin."""

    path: Path
    content: bytes
    fetch: FetchConfig


def pin(request: Request, *, console: Console) -> Result:
    """Pin the configuration, and sign it if a key is given.

    Raises InputError before anything is written, WorkError and OSError later; the layout is then unchanged.
    """
    layout = _layout(request.layout)
    url = request.url or (layout.pinned.url if layout.pinned else None)
    given = _read(request.config)
    if problem := _url_problem(url):
        raise InputError(problem)
    trust = _checked(given, layout, url=url or "", console=console)
    if request.sign and not trust:
        message = f"{layout.root} has no public keys in its image, so no node would look at a signature"
        hint = "pack the image again with `pack: {trust: [site.pub]}`, or pin without --sign"
        raise InputError(Problem(reference="sign-untrusted", message=message, hint=hint))
    with staging_folder(layout.root) as folder:
        made = new_staging(folder, output=layout.root)
        signature, signer, notes = _signature(given, request, trust=trust, work=made.work)
        pinned = Pinned(
            name=given.path.name,
            url=url or "",
            size=len(given.content),
            sha256=hashlib.sha256(given.content).hexdigest(),
            serial=given.fetch.serial,
            expires=given.fetch.expires,
            signed_by=signer.id if signer else None,
        )
        entries = NewEntries.of(layout, pinned.arguments, replaces=PIN)
        _check_entries(entries.menu(), pinned)
        changed = entries.write(made.layout, facts=_facts(layout, pinned), work=made.work, signer=request.signer)
        beside = signature_file(given.path)
        if not request.dry_run:
            if signature:  # first: a signature that nothing asks for yet does no harm
                _place_signature(signature, beside)
            entries.commit(made.layout)
    return Result(
        root=layout.root,
        pinned=pinned,
        changed=changed,
        is_bootable_here=layout.is_bootable_here,
        config=given.path,
        signature=beside if signer else None,
        notes=(*notes, *([_DRY_RUN] if request.dry_run else [])),
    )


def unpin(root: Path, *, dry_run: bool, signer: Signer | None = None) -> Result:
    """Have the nodes use the packed configuration again. Raises as `pin` does."""
    layout = _layout(root)
    with staging_folder(layout.root) as folder:
        made = new_staging(folder, output=layout.root)
        entries = NewEntries.of(layout, {}, replaces=PIN)
        changed = entries.write(made.layout, facts=_facts(layout, None), work=made.work, signer=signer)
        if not dry_run:
            entries.commit(made.layout)
    return Result(root=layout.root, pinned=None, changed=changed, notes=(_DRY_RUN,) if dry_run else ())


def _layout(root: Path) -> Layout:
    layout = Layout.read(real_path(root))
    problems = [one for one in (parent_problem(layout.root), published_problem(layout.root)) if one]
    if not layout.is_ours:
        hint = "give the output folder of pxe-pack"
        problems.append(
            Problem(reference="layout-unreadable", message=f"{root} was not written by pxe-pack", hint=hint)
        )
    problems += [one for one in layout.differing() if "does not exist" in one.message]
    if problems:
        raise InputError(*problems)
    return layout


def _read(path: Path) -> _Config:
    """The configuration as a node reads it: without a lock file, and without what `pack` has."""
    message, hint = "", "give the file that your server will serve"
    if not is_shown(path.name):  # a surrogate is not: in its place was a byte that is no UTF-8
        message = f"the name of the file {printable(str(path))} is not UTF-8, or has characters that are not printable"
        hint = "rename it: the manifest has its name"
    elif path.exists() and not path.is_file():  # a pipe may never end
        message = f"the configuration {path} is not a regular file"
    elif signature_file(path).exists() and not signature_file(path).is_file():
        message, hint = f"{signature_file(path)} is not a regular file", "move it away: the signature has its name"
    if message:
        raise InputError(Problem(reference="config-unreadable", message=message, hint=hint))
    text = read_text(path)
    content = text.encode()
    if len(content) > MAX_CHARACTERS:
        message = f"{path} has {len(content):,} bytes; no node reads more than {MAX_CHARACTERS:,}"
        hint = "shorten it, or give a folder as one artifact for many files"
        raise InputError(Problem(reference="config-too-large", message=message, hint=hint))
    try:
        return _Config(path=path, content=content, fetch=config.read(text, name=str(path)).fetch)
    except ProblemError as error:
        raise InputError(*error.problems) from error


def _url_problem(url: str | None) -> Problem | None:
    if url is None:
        message, hint = "no URL of the configuration is given", "--url http://10.0.0.1/fleet.yaml"
        return Problem(reference="pin-url", message=message, hint=hint)
    if reason := url_reason(url):
        message, hint = f"the URL {redact(url)} {reason}", "for example --url http://10.0.0.1/fleet.yaml"
        return Problem(reference="pin-url", message=message, hint=hint)
    return None


def _checked(given: _Config, layout: Layout, *, url: str, console: Console) -> tuple[TrustKey, ...]:
    """The public keys in the layout's image. Raises InputError if its nodes would refuse the configuration at `url`."""
    pinning = {CONFIG: url, CONFIG_SHA256: hashlib.sha256(given.content).hexdigest()}
    with liveos.opened(layout.root, boot_url=layout.urls.boot_url or "") as image:
        subject = checks.subject(image, layout=layout, loaders=image.loaders, config=given.fetch)
        subject = replace(subject, menu=NewEntries.of(layout, pinning, replaces=PIN).menu())
        found = [*_unresolved(given, subject), *checks.configuration(subject)]
    found += checks.acceptable(
        given.fetch.serial,
        given.fetch.expires,
        packed=subject.packed.serial if subject.packed else None,
        before=layout.pinned_serial,
        trusted=bool(subject.trust),
    )
    if errors := [problem for problem in found if problem.severity == "error"]:
        raise InputError(*errors)
    if warnings := [problem for problem in found if problem.severity == "warning"]:
        console.problems(warnings)
    return subject.trust


def _unresolved(given: _Config, subject: checks.Subject) -> Iterator[Problem]:
    """Problems with local files that are in the layout, but without URLs here: the agent refuses them (pxe_fetch.plan).

    A check tells of those that are not in the layout.
    """
    packed = {artifact.name for artifact in subject.packed.artifacts if artifact.urls} if subject.packed else None
    for artifact in given.fetch.artifacts:
        if artifact.source and not artifact.mirrors and (packed is None or artifact.name in packed):
            yield Problem(
                reference="source-unresolved",
                message=f"artifact {artifact.name}: `source: {artifact.source}` is on the packing machine, "
                "where no node can read it",
                hint="pin what `pxe-pack show DIR --config` prints: it has URLs and digests",
            )


def _signature(
    given: _Config, request: Request, *, trust: Sequence[TrustKey], work: Path
) -> tuple[bytes | None, TrustKey | None, list[str]]:
    """The new signature, or None; the key that has made it or the one beside the file; and what to tell of it.

    Without a key, the configuration is pinned by its digest.
    """
    beside = signature_file(given.path)
    if request.sign:
        signature = sign(given.content, name=given.path.name, secret=request.sign, work=work)
        try:
            return signature, signer_of(signature, given.content, keys=trust, work=work), []
        except SignatureError as error:
            message = f"the signature by {request.sign} {error}"
            hint = "sign with the secret key of a public key in the image; `pxe-pack show` lists those"
            raise InputError(Problem(reference="sign-untrusted", message=message, hint=hint)) from error
    if not trust:
        return None, None, []
    by_digest = "The image has public keys, but the configuration is pinned by its digest:"
    if not beside.is_file():
        return None, None, [f"{by_digest} there is no {beside.name}. Sign it with --sign KEY."]
    try:
        with beside.open("rb") as file:
            signature = file.read(MAX_SIZE + 1)
        return None, signer_of(signature, given.content, keys=trust, work=work), []
    except SignatureError as error:
        return None, None, [f"{by_digest} {beside.name} {error}. Sign it again with --sign KEY."]


def _facts(layout: Layout, pinned: Pinned | None) -> dict[str, object]:
    """What the manifest says but for its list of files."""
    facts = {key: value for key, value in layout.facts.items() if key != "pinned"}
    if pinned:
        facts["pinned"] = pinned.document()
    new = pinned.serial if pinned else None
    serials = [one for one in (layout.pinned_serial, new) if one is not None]
    return {**facts, **({PINNED_SERIAL: max(serials)} if serials else {})}


def _check_entries(entries: Menu, pinned: Pinned) -> None:
    """Raise InputError unless each entry names the configuration, and its command line is short enough."""
    problems = [*checks.command_lines(entries)]
    expected = (pinned.url, None if pinned.signed_by else pinned.sha256)
    for entry in entries.entries:
        try:
            found = facts.parse(" ".join(map(quoted, entry.arguments)))
        except ProblemError as error:
            problems += error.problems
            continue
        if (found.config, found.config_sha256) != expected:
            message = f"the entry {entry.title!r} gets another configuration or digest, from a variable or after `--`"
            hint = f"remove {' and '.join(PIN)} from the variables in grub.cfg"
            problems.append(Problem(reference="pin-overridden", message=message, hint=hint))
    if problems:
        raise InputError(*problems)


def _place_signature(signature: bytes, target: Path) -> None:
    made = target.with_name(f".{target.name}.new")
    made.write_bytes(signature)
    made.replace(target)


def document(result: Result) -> dict[str, object]:
    """The result as JSON values (docs/json.md)."""
    return {
        "output": str(result.root),
        "pinned": result.pinned.document() if result.pinned else None,
        "signature": str(result.signature) if result.signature else None,
        "changed": list(result.changed),
    }


def summary(result: Result) -> str:
    """The result as text."""
    pinned = result.pinned
    changed = [*(f"  {path}" for path in result.changed), *(line for note in result.notes for line in ("", note))]
    if pinned is None:
        return joined([f"{result.root}: nodes use the packed configuration", *changed])
    how = f"signed by the key {pinned.signed_by}" if pinned.signed_by else "pinned by its digest"
    serial = "" if pinned.serial is None else f", serial {pinned.serial}"
    expires = "" if pinned.expires is None else f", expires at {show_moment(pinned.expires)}"
    served = {pinned.name: pinned.url}
    if result.signature:
        served[result.signature.name] = signature_url(pinned.url)
    width = max(map(len, served))
    test = command_line("pxe-pack", "boot", result.root, "--serve", result.config or pinned.name)
    return joined(
        [
            f"{result.root}: nodes fetch {pinned.name}, {how}{serial}{expires}",
            *changed,
            "",
            "Serve",
            *(f"  {name:{width}} at {redact(url)}" for name, url in served.items()),
            *(["", f"Test:  {test}"] if result.is_bootable_here else []),
        ]
    )
