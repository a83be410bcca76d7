"""The settings of a pack: the flags merged with the configuration, which they take precedence over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_pack import checks
from pxe_pack.artifacts import LocalFile, local_files
from pxe_pack.config_file import read_config
from pxe_pack.inject import Rewrite
from pxe_pack.layout.layout import VERSIONS
from pxe_pack.layout.urls import default_artifact_url
from pxe_pack.lock.lockfile import read_lock
from pxe_pack.node_reports import NodeReports, node_reports, with_reports
from pxe_pack.publish import KEEP
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError
from pxe_pack.trust.keys import TrustKey, read_keys
from pxe_pack.trust.signing import Signer, configured_signer


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The flags from the command line; None if a flag was not given."""

    config: Path
    image: Path | None = None
    output: Path | None = None
    format: str = "dir"  # or "tar"
    publish: Path | None = None  # put the layout below this folder as its next version
    keep: int | None = None  # versions that are kept there
    boot_url: str | None = None
    artifact_url: str | None = None
    inject: str | None = None
    compressor: str | None = None
    level: int | None = None
    verify_iso: str | None = None
    node_memory: int | None = None  # bytes
    agent: Path | None = None  # a folder with a frozen agent
    boot_loader: Path | None = None  # a folder with shim and GRUB
    leave_out: tuple[str, ...] | None = None
    trust: tuple[Path, ...] | None = None  # files with public keys of minisign
    report: str | None = None  # `auto`, or a URL
    input_digest: bool = False  # compute the image's digest for the manifest
    secure_boot_key: Path | None = None
    secure_boot_cert: Path | None = None
    secure_boot_passphrase: Path | None = None
    secure_boot_chain: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Options merged with the configuration, checked as far as possible without the image."""

    config_path: Path
    lock_path: Path | None  # None if there is no lock file
    config_text: str
    fetch: FetchConfig
    image: Path
    output: Path
    format: str  # "dir", "tar", or "versions": `output` is the folder of the versions
    keep: int  # versions
    boot_url: str  # empty if none is given; a full-os image needs none
    artifact_url: str  # empty if neither it nor boot_url is given
    inject: str
    rewrite: Rewrite | None  # recompress the root filesystem
    verify_iso: str  # auto, true or false
    node_memory: int | None  # bytes; None if it is not given
    agent: Path | None
    boot_loader: Path | None
    input_digest: bool
    files: tuple[LocalFile, ...]
    leave_out: tuple[str, ...]  # patterns of the image's files that are not served
    signer: Signer | None  # None: the boot is not signed
    chain: str  # of a signed boot
    trust: tuple[TrustKey, ...]
    reports: NodeReports | None  # where nodes report to, if that is put into the image


def resolve_settings(options: Options) -> Settings:
    """Merge options and configuration. Raises InputError and ProblemError with all problems found."""
    lock = read_lock(options.config)
    text, document = read_config(options.config, lock=lock)
    base_dir = options.config.absolute().parent
    pack = document.pack
    problems: list[Problem] = []

    def given(what: str, flag: Path | None, value: str | None) -> Path:
        """A path: a flag is relative to the working directory, a key to the configuration's folder."""
        if flag is None and value is None:
            problems.append(checks.missing_setting(what))
        return (flag if flag is not None else base_dir / (value or "")).absolute()

    image = given("image", options.image, pack.image)
    no_image = bool(problems)
    if options.publish:
        output = options.publish.absolute() / VERSIONS
        problems += checks.publishing(output=options.output, form=options.format)
    else:
        output = given("output", options.output, pack.output)
        if options.keep is not None:
            problems.append(checks.keep_without_publish())
    boot_url = options.boot_url or pack.boot_url or ""
    if boot_url:
        problems += checks.boot_url(boot_url)
    elif no_image:  # with an image, its kind decides whether a boot_url is needed
        problems.append(checks.missing_setting("boot_url"))
    base = options.artifact_url or pack.artifact_url or ""
    problems += checks.artifact_url(base) if base else []
    compressor, level = options.compressor or pack.compressor, options.level or pack.level
    problems += checks.compression(compressor, level)
    files, wrong = local_files(document.fetch, base_dir=base_dir)
    problems += wrong
    signer, wrong = configured_signer(
        pack.secure_boot,
        base_dir=base_dir,
        key=options.secure_boot_key,
        certificate=options.secure_boot_cert,
        passphrase=options.secure_boot_passphrase,
    )
    problems += wrong
    given_keys = options.trust if options.trust is not None else [base_dir / name for name in pack.trust]
    trust, wrong = read_keys(given_keys)
    problems += wrong
    artifact_url = base or (default_artifact_url(boot_url) if boot_url else "")
    reports, wrong = node_reports(
        options.report or pack.report,
        document.fetch,
        config=options.config,
        boot_url=boot_url,
        artifact_url=artifact_url,
    )
    problems += wrong
    settings = Settings(
        config_path=options.config,
        lock_path=lock.path if lock.exists else None,
        config_text=text,
        fetch=with_reports(document.fetch, reports),
        image=image,
        output=_real(output),
        format="versions" if options.publish else options.format,
        keep=KEEP if options.keep is None else options.keep,
        boot_url=boot_url,
        artifact_url=artifact_url,
        inject=options.inject or pack.inject,
        rewrite=Rewrite(compressor=compressor, level=level) if compressor else None,
        verify_iso=options.verify_iso or pack.verify_iso,
        node_memory=options.node_memory or pack.node_memory,
        agent=options.agent,
        boot_loader=options.boot_loader or (base_dir / pack.boot_loader if pack.boot_loader else None),
        input_digest=options.input_digest,
        files=tuple(files),
        leave_out=pack.leave_out if options.leave_out is None else options.leave_out,
        signer=signer,
        chain=options.secure_boot_chain or pack.secure_boot.chain,
        trust=trust,
        reports=reports,
    )
    problems += checks.credentials(settings.fetch, settings.artifact_url)
    if options.publish or options.output or pack.output:
        problems += checks.places(settings)
    if problems:
        raise InputError(*problems)
    return settings


def _real(output: Path) -> Path:
    """`output` with symbolic links resolved: the rename into place must replace the folder, not a link to it."""
    return real_path(output) if output.is_symlink() else real_path(output.parent) / output.name
