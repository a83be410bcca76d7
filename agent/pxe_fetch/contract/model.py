"""The configuration as frozen values, and each key of `fetch.yaml` on the field that holds its value.

A key is declared here and nowhere else: see keys.py. Everything here is valid: reader.read is the one way in from text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from pxe_fetch.contract import keys, template, validators
from pxe_fetch.contract.keys import (
    Duration,
    Flag,
    Group,
    Key,
    OneOrMore,
    Size,
    Table,
    Text,
    Texts,
    Whole,
    key,
    metadata,
    spelled,
)
from pxe_fetch.contract.paths import DEFAULT_ROOTS

KiB = 1024
VERSION = 1
STALL = 1800.0  # seconds without a new byte after which an artifact without `retry.deadline` is given up
INJECTORS = ("auto", "rootfs", "updates", "initrd")
COMPRESSORS = ("gzip", "xz", "zstd")  # that a root filesystem can be given
NO_CHUNKS_WORD = "none"  # instead of the section `chunks`
SHARED = ("artifacts", "defaults")  # where keys stand that each artifact may have from `defaults`


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When to try again. Durations in seconds."""

    attempts_without_progress: int = key(
        Whole(1, 1_000_000), "Attempts without a new byte before it is given up.", default=10
    )
    base: float = key(Duration(), "Upper bound of the first wait; it doubles each time (full jitter).", default=1.0)
    max: float = key(Duration(), "Upper bound of any wait.", default=60.0)
    deadline: float | None = key(  # on the monotonic clock; None: STALL without a new byte
        Duration(least=0.001),
        "Time for the artifact, over all attempts.",
        details="If not given, an artifact takes as long as it needs, and is given up after 30 minutes without a byte.",
        example="2h",
        default=None,
    )
    retry_after_max: float = key(
        Duration(), "The longest wait that a server may ask for with Retry-After.", default=300.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """When an attempt is given up. Durations in seconds."""

    connect: float = key(Duration(least=0.001), "Time to connect.", default=10.0)
    read: float = key(Duration(least=0.001), "Time without a single byte.", default=30.0)
    min_rate: int = key(
        Size(), "Bytes a second below which it is given up, on average over the window.", default=16 * KiB
    )
    min_rate_window: float = key(Duration(least=0.001), "The window of `min_rate`.", default=60.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """A digest of the bytes on the wire: `algorithm` as hashlib names it, `hex` in lower case."""

    algorithm: str  # "sha256" or "sha512"
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def _digest(algorithm: str, text: str) -> Digest:
    return Digest(algorithm=algorithm, hex=text)


def _hex_of(algorithm: str, digest: Digest) -> str | None:
    return digest.hex if digest.algorithm == algorithm else None


def _digest_key(algorithm: str, digits: int, *, details: str = "") -> Key:
    """The key that spells a digest by `algorithm`."""
    rule = validators.DigestOf(algorithm, digits)
    return Key(
        Text(rule, load=partial(_digest, algorithm), show=partial(_hex_of, algorithm)),
        "Digest of the bytes on the wire.",
        name=algorithm,
        details=details,
        example="5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03" if digits == 64 else "",  # noqa: PLR2004
    )


def _alone(text: str) -> tuple[str, ...]:
    return (text,)


def _only(texts: tuple[str, ...]) -> str | None:
    return texts[0] if len(texts) == 1 else None


def _unless_one(texts: tuple[str, ...]) -> list[str] | None:
    return None if len(texts) == 1 else list(texts)


ONE_URL = Text(validators.url, load=_alone, show=_only)  # a field of mirrors, where there is one of them
URLS = Texts(validators.url, show=_unless_one)  # where there are several


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """A file cut into chunks of `size` bytes, each with its SHA-256: in `digests`, or in the list at `urls`.

    With `source` there is the size alone, and pxe-pack makes the list. A size of 0 (NO_CHUNKS): it makes none.
    """

    size: int = field(  # bytes of each but the last
        metadata=metadata(
            Key(
                Size(check=validators.chunk_size),
                "Bytes of each chunk but the last.",
                details="A multiple of 4 KiB, from 64 KiB to 1 GiB; 4MiB suits most files. At most 131072 chunks.",
                missing="chunk-size-missing",
                hint="of each but the last, as in `size: 4MiB`",
            )
        )
    )
    digests: bytes = key(  # 32 bytes a chunk, in the order of the file
        OneOrMore(validators.DigestOf("sha256", 64)),
        "The digests, in the order of the file; with `url`, that of the list itself.",
        name="sha256",
        default=b"",
    )
    urls: tuple[str, ...] = spelled(  # mirrors of the list, see contract.chunks
        Key(
            ONE_URL,
            "Where the list of digests is: absolute, or relative to `base_url`.",
            name="url",
            details="One SHA-256 a line in hexadecimal, in the order of the file. "
            r"`split -b 4M --filter=sha256sum m.bin \| cut -c-64 > m.bin.chunks` makes one.",
        ),
        Key(URLS, "Mirrors of the list.", name="urls"),
        default=(),
    )
    digest: Digest | None = None  # of the list; spelled `sha256` too


NO_CHUNKS = Chunks(size=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class When:
    """Which nodes an artifact is for. Each fact maps to shell globs, one of which must match; all facts must."""

    facts: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata=metadata(
            *(
                Key(
                    OneOrMore(validators.any_text),
                    f"From {source}.",
                    name=name,
                    item=True,
                    example={"arch": "x86_64", "mac": '["52:54:*"]'}.get(name, ""),
                )
                for name, source in template.FACTS.items()
            )
        ),
    )
    cmdline: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata=metadata(
            Key(
                Table(validators.any_text, OneOrMore(validators.any_text), rename=template.argument),
                "Kernel arguments, and the globs for their values.",
                example="{role: gpu}",
            )
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One file (or tree) a node fetches. `urls` may be relative and hold ${facts}; the agent's plan resolves them."""

    name: str = field(
        metadata=metadata(
            Key(
                Text(validators.name),
                "Its name in the journal, the state and the report; unique.",
                example="model",
                missing="name-missing",
            )
        )
    )
    urls: tuple[str, ...] = spelled(  # mirrors of the same bytes; empty exactly when `source` is given
        Key(
            ONE_URL,
            "Absolute, or relative to `base_url`; ${facts} are filled in.",
            name="url",
            details="Schemes: `http`, `https`, `ftp`, `tftp`, `file`; see [below](#schemes). Host names are ASCII: "
            "write `xn--…` for others. Secrets do not belong in a URL.",
            example="http://mirror.lan/models/${arch}/model.bin",
        ),
        Key(
            URLS,
            "Instead of `url`: mirrors of the same bytes.",
            name="urls",
            details="See [below](#mirrors).",
            example="[http://a.lan/model.bin, https://b.lan/model.bin]",
        ),
        default=(),
    )
    source: str | None = key(
        Text(validators.file_name),
        "Instead of `url`: a file or folder on the packing machine.",
        details="Relative to `fetch.yaml`. pxe-pack hashes it, exports it under `artifact_url`, and fills in url, "
        "size and digest (or [chunks](#chunks)). A folder becomes one archive: see [below](#folders).",
        example="files/model.bin",
        default=None,
    )
    mirror_order: str = key(
        Text(validators.OneOf("spread", "listed")),
        "Each node tries mirrors in an order of its own (`spread`), or as listed.",
        details="See [below](#mirrors).",
        sections=SHARED,
        default="spread",
    )
    digest: Digest | None = spelled(
        _digest_key(
            "sha256",
            64,
            details="One of `sha256`, `sha512` and `sha256_url` is needed, except with `source` or `chunks`.",
        ),
        _digest_key("sha512", 128),
        default=None,
    )
    digest_url: str | None = key(
        Text(validators.url),
        "Instead of `sha256`: a SHA256SUMS file with it.",
        name="sha256_url",
        details="It lists the last part of the url. It reveals damage; tampering only if it comes by https.",
        example="http://mirror.lan/models/SHA256SUMS",
        default=None,
    )
    size: int | None = key(
        Size(),
        "Bytes on the wire.",
        details="Required with `chunks`. If given, the free [disk space](node.md#space) is checked first.",
        example="1GiB",
        default=None,
    )
    chunks: Chunks | None = key(  # what pins every byte instead of `digest`, or beside it
        Group("chunks", word=NO_CHUNKS_WORD),
        "Digests of its chunks, which then come in parallel.",
        details="See [below](#chunks). `none`: pxe-pack makes no chunk digests of this `source`.",
        example="{size: 8MiB}",
        default=None,
    )
    dest: str = field(
        metadata=metadata(
            Key(
                Text(validators.absolute_path),
                "Absolute path below one of `allowed_roots`; ${facts} are filled in.",
                details="A directory with `extract: tar`, or if `source` is a folder.",
                example="/srv/models/model.bin",
                missing="dest-missing",
                hint="the absolute path to place it at",
            )
        )
    )
    mode: int | None = key(
        Text(validators.mode, show="{:04o}".format),
        "Permission bits in octal, 0644 if not given; set-id bits are refused.",
        example='"0640"',
        sections=SHARED,
        default=None,
    )
    owner: str | None = key(
        Text(validators.account),
        "User, by name or number; root if not given.",
        example="root",
        sections=SHARED,
        default=None,
    )
    group: str | None = key(
        Text(validators.account),
        "Group, by name or number; root if not given.",
        example="app",
        sections=SHARED,
        default=None,
    )
    extract: str | None = key(
        Text(validators.OneOf("none", "tar", "decompress")),
        "`tar`: unpacked into the directory `dest`; `decompress`: decompressed.",
        details="`tar` replaces `dest` as a whole; it is the default, and the only choice, if `source` is a folder. "
        "See [below](#compressed-files-and-archives).",
        default=None,
    )
    when: When = key(
        Group("when"),
        "Only for nodes on which all of these facts match.",
        details="Every node if not given. See [below](#facts).",
        default=When(),
    )
    required: bool = key(
        Flag(),
        "`false`: its failure degrades the run (exit code 2) instead of failing it.",
        example="false",
        sections=SHARED,
        default=True,
    )
    headers: Mapping[str, str] = field(
        default_factory=dict,
        metadata=metadata(
            Key(
                Table(validators.header_name, Text(validators.header_value)),
                "HTTP headers, sent to the url's own host alone; no secrets.",
                details="A redirect to another host does not get them.",
                example="{X-Site: lab}",
                sections=SHARED,
            )
        ),
    )
    header_credential: str | None = key(
        Text(validators.credential),
        "A credential that holds `Name: value` lines: headers that are secret.",
        details="Its name begins with `pxe-fetch.`. Images with systemd older than 254 get only the credentials "
        "that are named when they are packed.",
        example="pxe-fetch.token",
        sections=SHARED,
        default=None,
    )
    insecure: bool = key(
        Flag(),
        "`true`: `header_credential` may be sent unencrypted, by http and ftp.",
        details="Anybody on the network can read it there.",
        example="true",
        sections=SHARED,
        default=False,
    )
    start: tuple[str, ...] = key(
        OneOrMore(validators.unit),
        "Units to start once it is in place.",
        details="Also when it was in place already; a unit that runs is left alone. A unit that cannot be started, "
        "or has failed by the end of the run, is reported, and changes nothing else without `start_required`. A "
        "`oneshot` unit without `RemainAfterExit=yes` does its work again when the agent is started again. Units may "
        "be artifacts themselves: [examples/containers](../examples/containers/).",
        example="[app.service]",
        default=(),
    )
    start_required: bool = key(
        Flag(), "`true`: a unit of `start` that fails makes the run fail.", example="true", default=False
    )
    retry: RetryPolicy = key(Group("retry"), "When to try again.", sections=SHARED, default=RetryPolicy())
    timeouts: Timeouts = key(Group("timeouts"), "When an attempt is given up.", sections=SHARED, default=Timeouts())


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """TLS with a site's own files; paths on the node. None: the node's CA bundle, no client certificate."""

    ca_file: str | None = key(
        Text(validators.node_path),
        "Authorities to trust, instead of the node's own bundle; PEM.",
        example="/etc/pki/site.pem",
        default=None,
    )
    client_cert: str | None = key(
        Text(validators.node_path), "The node's own certificate; PEM.", example="/etc/pki/node.pem", default=None
    )
    client_key: str | None = key(
        Text(validators.node_path),
        "Its key, unless `client_cert` has both.",
        details="A key need not be in the image: [examples/site-tls](../examples/site-tls/).",
        example="/etc/pki/node.key",
        default=None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """Explicit proxies; the environment's are never used."""

    http: str | None = key(Text(validators.proxy), "Proxy for http.", example="http://cache.lan:3128", default=None)
    https: str | None = key(Text(validators.proxy), "Proxy for https.", example="http://cache.lan:3128", default=None)
    no_proxy: tuple[str, ...] = key(  # hosts, .domains, networks in CIDR form
        OneOrMore(validators.exemption),
        "Hosts, .domains and networks that are reached directly.",
        details="`:PORT` after a host means that port alone.",
        example="[10.0.0.0/8, .lan]",
        default=(),
    )
    credential: str | None = key(
        Text(validators.credential),
        "A credential that holds `user:password`, for proxies that want it.",
        details="Nobody but the proxies is sent it. Its name begins with `pxe-fetch.`, as that of `header_credential`.",
        example="pxe-fetch.proxy",
        default=None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig:
    """What reaches the node: `fetch.yaml` without its `pack` section, defaults already folded into each artifact."""

    version: int = key(
        Whole(VERSION, VERSION),
        "The version of this format.",
        missing="version-missing",
        hint=f"begin the file with `version: {VERSION}`",
        default=VERSION,
    )
    base_url: str | None = key(  # an artifact's own is joined to its urls when they are read
        Text(validators.base_url),
        "What relative urls are joined to.",
        example="http://10.0.0.1/",
        sections=("defaults", "artifacts"),
        default=None,
    )
    artifact_url: str | None = key(
        Text(validators.base_url),
        "Written by pxe-pack: where it exported `source:` files to.",
        details="The kernel argument `pxe-fetch.artifact_url=` moves every url below it elsewhere.",
        default=None,
    )
    parallel: int = key(
        Whole(1, 64),
        "Streams at once.",
        details="An artifact has one; when fewer artifacts are left, ranges of those with `chunks` use the others.",
        default=4,
    )
    start_jitter: float = key(  # seconds
        Duration(), "The run starts after a random part of this, to spare the servers.", default=0.0
    )
    allowed_roots: tuple[str, ...] = key(
        Texts(validators.root),
        "Artifacts go below these; the sandbox lets nothing else be written.",
        details="pxe-pack makes them the unit's `ReadWritePaths=`, so the sandbox holds even for a configuration "
        "that comes by URL.",
        always=True,
        default=DEFAULT_ROOTS,
    )
    tls: Tls = key(
        Group("tls"),
        "Files on the node, for https with a site's own certificates.",
        details="Without: the node's CA bundle.",
        default=Tls(),
    )
    proxy: Proxy = key(Group("proxy"), "Explicit proxies; the environment's are never used.", default=Proxy())
    on_failure: str = key(
        Text(validators.OneOf("continue", "reboot", "poweroff", "emergency")),
        "What a node does when a required artifact has finally failed.",
        default="continue",
    )
    report_url: str | None = key(
        Text(validators.http_url),
        "Where the state of the run is POSTed as JSON; ${facts} are filled in.",
        name="url",
        details="At each change of phase and at the end, best effort; see [the report](node.md#the-report).",
        example="http://10.0.0.1/report",
        sections=("report",),
        default=None,
    )
    artifacts: tuple[Artifact, ...] = key(
        Group("artifacts", many=True),
        "What a node fetches.",
        details="See [below](#an-artifact).",
        always=True,
        default=(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """The `pack` section: what pxe-pack does. Every key is a flag too, and flags win. Paths as written."""

    image: str | None = key(
        Text(validators.file_name),
        "The LiveOS to pack; it is only read.",
        details="An ISO, a pxe-dir or pxe-tar of Image Customizer, or a root filesystem. See [images](images.md).",
        example="liveos.iso",
        default=None,
    )
    output: str | None = key(
        Text(validators.file_name),
        "The folder of the layout, for the TFTP and HTTP servers.",
        example="pxe/",
        default=None,
    )
    boot_url: str | None = key(
        Text(validators.url),
        "Where nodes will find the ISO: what `root=live:` says.",
        details="It ends in the exported file's name, `.iso`.",
        example="http://10.0.0.1/liveos.iso",
        default=None,
    )
    artifact_url: str | None = key(
        Text(validators.base_url),
        "Where nodes will find the files given by `source`.",
        details="`other-user-artifacts/` is served there; beside the ISO if not given.",
        example="http://10.0.0.1/other-user-artifacts/",
        default=None,
    )
    inject: str = key(
        Text(validators.OneOf(*INJECTORS)),
        "How the agent gets into the image; `auto`: pxe-pack chooses.",
        details="`rootfs`: into the squashfs; `updates`: beside it, on the ISO; `initrd`: behind the initrd. See "
        "[injection methods](layout.md#injection-methods).",
        default="auto",
    )
    boot_loader: str | None = key(
        Text(validators.file_name),
        "A folder with shim and GRUB, if the image's own cannot netboot.",
        details="See [the layout](layout.md#boot-loaders).",
        example="boot-loader/",
        default=None,
    )
    compressor: str | None = key(  # None: as the image has it
        Text(validators.OneOf(*COMPRESSORS)),
        "Compress the whole root filesystem anew with this (`rootfs`).",
        details="That takes minutes; without it the payload is grafted onto the squashfs, in the time of a copy.",
        example="zstd",
        default=None,
    )
    level: int | None = key(
        Whole(1, 22), "The level of `compressor`.", details="zstd has 22, the others 9.", example="1", default=None
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """The whole of a `fetch.yaml`."""

    fetch: FetchConfig
    pack: Pack = key(
        Group("pack"),
        "For pxe-pack alone, never on a node. Every key is also a flag, and flags win.",
        details="See [below](#pack).",
        default=Pack(),
    )


ORIGINS = ("url", "urls", "source")  # an artifact has exactly one of them
DIGESTS = ("sha256", "sha512", "sha256_url")  # and at most one of them, which is needed
PINNED_BY = ("source", "chunks")  # where none of these pins the bytes

SECTIONS = keys.sections(
    ("artifacts", Artifact),
    ("", FetchConfig),
    ("", Document),
    ("pack", Pack),
    ("chunks", Chunks),
    ("retry", RetryPolicy),
    ("timeouts", Timeouts),
    ("when", When),
    ("tls", Tls),
    ("proxy", Proxy),
    whole=frozenset(("pack", "retry", "timeouts", "when", "tls", "proxy")),
    groups={
        "defaults": Key(Group("defaults", inline=True), "What every artifact has unless it says otherwise."),
        "report": Key(Group("report", inline=True), "Where the result of the run goes."),
    },
)
