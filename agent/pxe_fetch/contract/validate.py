"""Values -> model, collecting every problem. `read` is the one way from text to a configuration."""

from __future__ import annotations

from dataclasses import replace

from pxe_fetch.contract import chunks, document, rules, when
from pxe_fetch.contract.model import (
    Artifact,
    Digest,
    Document,
    FetchConfig,
    Pack,
    Proxy,
    RetryPolicy,
    Timeouts,
    Tls,
    When,
)
from pxe_fetch.contract.paths import DEFAULT_ROOTS
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_fetch.contract.section import Section

VERSION = 1
INJECTORS = ("auto", "rootfs", "updates", "initrd")
COMPRESSORS = ("gzip", "xz", "zstd")  # that a root filesystem can be given
ON_FAILURE = ("continue", "reboot", "poweroff", "emergency")
EXTRACT = ("none", "tar", "decompress")
MIRROR_ORDER = ("spread", "listed")


def read(text: str, *, name: str) -> Document:
    """The configuration that the YAML `text` says; `name` is what positions call the file.

    Raises ProblemError with every problem found, each with its position, in the order of the text.
    """
    problems: list[Problem] = []
    root = document.load(text, name=name, problems=problems)
    if not isinstance(root, document.Mapping):
        message = f"{name} has to be a mapping (`key: value` lines)"
        raise ProblemError(Problem(reference="wrong-type", message=message, where=root.at))
    found = from_section(Section(root, path="", problems=problems))
    if problems:
        raise ProblemError(*sorted(problems, key=lambda p: (p.where.line, p.where.column) if p.where else (0, 0)))
    return found


def from_section(root: Section) -> Document:
    """The configuration in the document's outermost mapping; what is wrong with it is added to its problems."""
    version = root.whole("version", 0, least=VERSION, most=VERSION)
    if not root.has("version"):
        root.add("version-missing", "the key `version` is missing", hint=f"begin the file with `version: {VERSION}`")
    pack = _pack(root.section("pack"))
    roots = root.texts("allowed_roots", rules.root)
    defaults = root.section("defaults")
    base_url, model = _defaults(defaults)
    allowed_roots = DEFAULT_ROOTS if roots is None else roots
    sections = root.sections("artifacts")
    artifacts = [_artifact(section, model=model, roots=allowed_roots) for section in sections]
    _distinct(sections, artifacts)
    report = root.section("report")
    fetch = FetchConfig(
        version=version,
        base_url=base_url,
        artifact_url=root.text("artifact_url", rules.base_url),
        artifacts=tuple(artifacts),
        parallel=root.whole("parallel", FetchConfig().parallel, least=1, most=64),
        start_jitter=root.duration("start_jitter", 0.0),
        allowed_roots=allowed_roots,
        tls=_tls(root.section("tls")),
        proxy=_proxy(root.section("proxy")),
        on_failure=root.text("on_failure", rules.one_of(*ON_FAILURE)) or "continue",
        report_url=report.text("url", rules.http_url) if report else None,
    )
    if report:
        report.close()
    root.close()
    return Document(fetch=fetch, pack=pack)


def _pack(section: Section | None) -> Pack:
    if section is None:
        return Pack()
    pack = Pack(
        image=section.text("image", rules.file_name),
        boot_url=section.text("boot_url", rules.url),
        artifact_url=section.text("artifact_url", rules.base_url),
        output=section.text("output", rules.file_name),
        inject=section.text("inject", rules.one_of(*INJECTORS)) or "auto",
        boot_loader=section.text("boot_loader", rules.file_name),
        compressor=section.text("compressor", rules.one_of(*COMPRESSORS)),
        level=section.whole("level", 0, least=1, most=22) or None,
    )
    section.close()
    return pack


_NO_ARTIFACT = Artifact(name="", dest="")
# Keys of `defaults` and of an artifact, in the order in which they are asked for.
_SHARED = ("mode", "owner", "group", "required", "mirror_order", "headers", "header_credential", "retry", "timeouts")


def _defaults(section: Section | None) -> tuple[str | None, Artifact]:
    """The base of relative urls, and an artifact that has the defaults of every other."""
    if section is None:
        return None, _NO_ARTIFACT
    base_url = section.text("base_url", rules.base_url)
    model = _shared(section, _NO_ARTIFACT)
    section.close()
    return base_url, model


def _shared(section: Section, model: Artifact) -> Artifact:
    """`model` with what `section` says of the keys that `defaults` and an artifact both have."""
    if section.lacks(*_SHARED):
        return model
    mode = section.text("mode", rules.mode)
    return replace(
        model,
        mode=model.mode if mode is None else mode,
        owner=section.text("owner", rules.account) or model.owner,
        group=section.text("group", rules.account) or model.group,
        required=section.flag("required", model.required),
        mirror_order=section.text("mirror_order", rules.one_of(*MIRROR_ORDER)) or model.mirror_order,
        headers={**model.headers, **_headers(section.section("headers"))},
        header_credential=section.text("header_credential", rules.credential) or model.header_credential,
        retry=_retry(section.section("retry"), model.retry),
        timeouts=_timeouts(section.section("timeouts"), model.timeouts),
    )


def _artifact(section: Section, *, model: Artifact, roots: tuple[str, ...]) -> Artifact:
    name = section.text("name", rules.name)
    if not section.has("name"):
        section.add("name-missing", f"{section.path} has no `name`")
    source = section.text("source", rules.file_name)
    base_url = section.text("base_url", rules.base_url)
    urls = _urls(section, base_url)
    size = section.size("size", None)
    pieces = chunks.read(section, size=size, base_url=base_url)
    digest, digest_url = _digest(section, base_url, is_pinned=section.has("source") or section.has("chunks"))
    dest = section.text("dest", rules.absolute_path)
    if not section.has("dest"):
        section.add("dest-missing", f"{section.path} has no `dest`", hint="the absolute path to place it at")
    elif dest is not None:
        _check_dest(section, dest, roots)
    artifact = replace(
        _shared(section, model),
        name=name or section.path,
        urls=urls,
        source=source,
        digest=digest,
        digest_url=digest_url,
        size=size,
        chunks=pieces,
        dest=dest or "",
        extract=section.text("extract", rules.one_of(*EXTRACT)),
        when=when.read(section.section("when")),
        start=section.one_or_more("start", rules.unit) or (),
    )
    section.close()
    return artifact


def _urls(section: Section, base_url: str | None) -> tuple[str, ...]:
    url = section.text("url", rules.url)
    urls = section.texts("urls", rules.url) or ()
    given = [key for key in ("url", "urls", "source") if section.has(key)]
    if len(given) != 1:
        said = "has none" if not given else f"has {' and '.join(given)}"
        section.add(
            "source-unclear",
            f"{section.path} needs exactly one of url, urls and source, and {said}",
            where=section.where(given[-1]) if given else None,
        )
    elif section.is_empty_list("urls"):
        section.add("source-unclear", f"{section.path}.urls is empty", where=section.where("urls"))
    return rules.joined((url,) if url else urls, base_url)


def _digest(section: Section, base_url: str | None, *, is_pinned: bool) -> tuple[Digest | None, str | None]:
    sha256 = section.text("sha256", rules.digest("sha256", 64))
    sha512 = section.text("sha512", rules.digest("sha512", 128))
    url = section.text("sha256_url", rules.url)
    given = [key for key in ("sha256", "sha512", "sha256_url") if section.has(key)]
    if len(given) > 1:
        message = f"{section.path} has {' and '.join(given)}; one digest says it all"
        section.add("checksum-unclear", message, where=section.where(given[-1]))
    elif section.has("source") and section.has("sha256_url"):
        message = f"{section.path}.sha256_url is given for a `source`"
        hint = "leave it out: pxe-pack makes the digests of a source"
        section.add("checksum-of-source", message, where=section.where("sha256_url"), hint=hint)
    if not given and not is_pinned:
        section.add(
            "checksum-missing",
            f"{section.path} has no digest, so nobody could tell whether the right bytes came",
            hint="give sha256 (`sha256sum FILE` prints it), or `source:` and pxe-pack computes it",
        )
    return sha256 or sha512, rules.joined((url,), base_url)[0] if url else None


def _check_dest(section: Section, dest: str, roots: tuple[str, ...]) -> None:
    """The destination's part before any ${fact} has to lie below an allowed root; the agent checks the whole."""
    fixed, _, _ = dest.partition("${")
    if not any(fixed.startswith(root + "/") for root in roots):
        section.add(
            "dest-outside-roots",
            f"{section.path}.dest is not below any of allowed_roots",
            where=section.where("dest"),
            label=f"expected below {', '.join(roots) or 'none: allowed_roots is empty'}",
            hint="allowed_roots: […] widens what the agent (and its unit's sandbox) may write to",
        )


def _distinct(sections: list[Section], artifacts: list[Artifact]) -> None:
    names: dict[str, int] = {}
    dests: dict[str, int] = {}
    for index, (section, artifact) in enumerate(zip(sections, artifacts, strict=True)):
        first = names.setdefault(artifact.name, index)
        if first != index and section.has("name"):
            message = f"the name `{artifact.name}` is taken by artifacts[{first}]"
            section.add("name-taken", message, where=section.where("name"))
        if artifact.when != When() or not artifact.dest:
            continue  # of several for one place, `when` may choose
        first = dests.setdefault(artifact.dest, index)
        if first != index:
            message = f"{artifact.dest} is the destination of artifacts[{first}] too"
            section.add("dest-taken", message, where=section.where("dest"))


def _headers(section: Section | None) -> dict[str, str]:
    if section is None:
        return {}
    headers: dict[str, str] = {}
    for key in section.own_keys(rules.header_name):
        value = section.text(key, rules.header_value)
        if value is not None:
            headers[key] = value
    return headers


def _retry(section: Section | None, default: RetryPolicy) -> RetryPolicy:
    if section is None:
        return default
    policy = RetryPolicy(
        attempts_without_progress=section.whole(
            "attempts_without_progress", default.attempts_without_progress, least=1, most=1_000_000
        ),
        base=section.duration("base", default.base),
        max=section.duration("max", default.max),
        deadline=section.duration("deadline", default.deadline, least=0.001),
        retry_after_max=section.duration("retry_after_max", default.retry_after_max),
    )
    section.close()
    return policy


def _timeouts(section: Section | None, default: Timeouts) -> Timeouts:
    if section is None:
        return default
    timeouts = Timeouts(
        connect=section.duration("connect", default.connect, least=0.001),
        read=section.duration("read", default.read, least=0.001),
        min_rate=section.size("min_rate", default.min_rate) or 0,
        min_rate_window=section.duration("min_rate_window", default.min_rate_window, least=0.001),
    )
    section.close()
    return timeouts


def _tls(section: Section | None) -> Tls:
    if section is None:
        return Tls()
    tls = Tls(
        ca_file=section.text("ca_file", rules.node_path),
        client_cert=section.text("client_cert", rules.node_path),
        client_key=section.text("client_key", rules.node_path),
    )
    if tls.client_key and not section.has("client_cert"):
        section.add("tls-incomplete", "tls.client_key is given without tls.client_cert")
    section.close()
    return tls


def _proxy(section: Section | None) -> Proxy:
    if section is None:
        return Proxy()
    proxy = Proxy(
        http=section.text("http", rules.proxy),
        https=section.text("https", rules.proxy),
        no_proxy=section.one_or_more("no_proxy", rules.exemption) or (),
    )
    section.close()
    return proxy
