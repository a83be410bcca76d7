"""The configuration as frozen values, and each key of `fetch.yaml` on the field that holds its value.

A key is declared here and nowhere else (see keys.py), but for those of `pack`, which pxe_pack.config has. Everything
here is valid: reader.read is the one way in from text.
"""

from __future__ import annotations

from collections.abc import Mapping

from pxe_fetch.contract import keys, validators
from pxe_fetch.contract.facts import FACTS, argument
from pxe_fetch.contract.keys import Duration, Flag, Group, Key, OneOrMore, Size, Table, Text, Texts, Whole, spelled
from pxe_fetch.contract.paths import DEFAULT_ROOTS
from pxe_fetch.contract.record import record

VERSION = 1
STALL = 1800.0  # seconds without a new byte after which an artifact without `retry.deadline` is given up
NO_CHUNKS_WORD = "none"  # instead of the section `chunks`
SHARED = ("artifacts", "defaults")  # where keys stand that each artifact may have from `defaults`

ACCOUNT, CREDENTIAL, NODE_PATH = Text(validators.account), Text(validators.credential), Text(validators.node_path)
POSITIVE = Duration(validators.positive_duration)


@record
class RetryPolicy:
    """When to try again. Durations in seconds."""

    attempts_without_progress: int = Key(
        Whole(1, 1_000_000), "Attempts without a new byte before it is given up."
    ).default(10)
    base: float = Key(Duration(), "Upper bound of the first wait; it doubles each time (full jitter).").default(1.0)
    max: float = Key(Duration(), "Upper bound of any wait.").default(60.0)
    deadline: float | None = Key(  # on the monotonic clock; None: STALL without a new byte
        POSITIVE, "Time for the artifact, over all attempts."
    ).default(None)
    retry_after_max: float = Key(Duration(), "The longest wait that a server may ask for with Retry-After.").default(
        300.0
    )


@record
class Timeouts:
    """When an attempt is given up. Durations in seconds."""

    connect: float = Key(POSITIVE, "Time to connect; 5s at most if there is another mirror.").default(10.0)
    read: float = Key(POSITIVE, "Time without a single byte; 5s at most if there is another mirror.").default(30.0)
    min_rate: int = Key(Size(), "A mirror that sends fewer bytes a second is left, if there is another one.").default(
        16 * 1024
    )
    min_rate_window: float = Key(POSITIVE, "The window of `min_rate`.").default(60.0)


@record
class Digest:
    """A digest of the bytes on the wire: `algorithm` as hashlib names it, `hex` in lower case."""

    algorithm: str  # "sha256" or "sha512"
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def _digest_key(algorithm: str, digits: int) -> Key:
    """The key that spells a digest by `algorithm`."""
    rule = validators.DigestOf(algorithm, digits)
    kind = Text(rule, load=lambda text: Digest(algorithm=algorithm, hex=text))
    return Key(kind, "Digest of the bytes on the wire.", name=algorithm)


# A field of mirrors, where there is one of them, and where there are several.
ONE_URL = Text(validators.url, load=lambda url: (url,))
URLS = Texts(validators.url)


@record
class Chunks:
    """A file cut into chunks of `size` bytes, each with its SHA-256: in `digests`, or in the list at `urls`.

    With `source` there is the size alone, and pxe-pack makes the list. A size of 0 (NO_CHUNKS): it makes none.
    """

    size: int = Key(  # bytes of each but the last
        Size(validators.chunk_size),
        "Bytes of each chunk but the last.",
        missing="chunk-size-missing",
        hint="of each but the last, as in `size: 4MiB`",
    ).required()
    digests: bytes = Key(  # 32 bytes a chunk, in the order of the file
        OneOrMore(validators.DigestOf("sha256", 64)),
        "The digests, in the order of the file; with `url`, that of the list itself.",
        name="sha256",
    ).default(b"")
    urls: tuple[str, ...] = spelled(  # mirrors of the list, see contract.chunks
        Key(ONE_URL, "Where the list of digests is: absolute, or relative to `base_url`.", name="url"),
        Key(URLS, "Mirrors of the list.", name="urls"),
        default=(),
    )
    digest: Digest | None = None  # of the list; spelled `sha256` too


NO_CHUNKS = Chunks(size=0)


@record
class When:
    """Which nodes an artifact is for. Each fact maps to shell globs, one of which must match; all facts must."""

    facts: Mapping[str, tuple[str, ...]] = keys.mapping(
        *(
            Key(OneOrMore(validators.any_text), f"From {source}.", name=name, item=True)
            for name, source in FACTS.items()
        )
    )
    cmdline: Mapping[str, tuple[str, ...]] = keys.mapping(
        Key(
            Table(validators.any_text, OneOrMore(validators.any_text), rename=argument),
            "Kernel arguments, and the globs for their values.",
        )
    )


@record
class Artifact:
    """One file (or tree) a node fetches. `urls` may be relative and hold ${facts}; the agent's plan resolves them."""

    name: str = Key(
        Text(validators.name), "Its name in the journal, the state and the report; unique.", missing="name-missing"
    ).required()
    urls: tuple[str, ...] = spelled(  # mirrors of the same bytes; empty exactly when `source` is given
        Key(ONE_URL, "Absolute, or relative to `base_url`; ${facts} are filled in.", name="url"),
        Key(URLS, "Instead of `url`: mirrors of the same bytes.", name="urls"),
        default=(),
    )
    source: str | None = Key(
        Text(validators.file_name), "Instead of `url`: a file or folder on the packing machine."
    ).default(None)
    mirror_order: str = Key(
        Text(validators.OneOf("spread", "listed")),
        "Each node tries mirrors in an order of its own (`spread`), or as listed.",
        sections=SHARED,
    ).default("spread")
    digest: Digest | None = spelled(_digest_key("sha256", 64), _digest_key("sha512", 128), default=None)
    digest_url: str | None = Key(
        Text(validators.url), "Instead of `sha256`: a SHA256SUMS file with it.", name="sha256_url"
    ).default(None)
    size: int | None = Key(Size(), "Bytes on the wire.").default(None)
    chunks: Chunks | None = Key(  # what pins every byte instead of `digest`, or beside it
        Group("chunks", word=NO_CHUNKS_WORD, checked=True), "Digests of its chunks, which then come in parallel."
    ).default(None)
    dest: str = Key(
        Text(validators.absolute_path),
        "Absolute path below one of `allowed_roots`; ${facts} are filled in.",
        missing="dest-missing",
        hint="the absolute path to place it at",
    ).required()
    mode: int | None = Key(
        Text(validators.mode), "Permission bits in octal, 0644 if not given; set-id bits are refused.", sections=SHARED
    ).default(None)
    owner: str | None = Key(ACCOUNT, "User, by name or number; root if not given.", sections=SHARED).default(None)
    group: str | None = Key(ACCOUNT, "Group, by name or number; root if not given.", sections=SHARED).default(None)
    extract: str | None = Key(
        Text(validators.OneOf("none", "tar", "decompress")),
        "`tar`: unpacked into the directory `dest`; `decompress`: decompressed.",
    ).default(None)
    when: When = Key(Group("when"), "Only for nodes on which all of these facts match.").default(When())
    required: bool = Key(
        Flag(), "`false`: its failure degrades the run (exit code 2) instead of failing it.", sections=SHARED
    ).default(True)
    headers: Mapping[str, str] = keys.mapping(
        Key(
            Table(validators.header_name, Text(validators.header_value)),
            "HTTP headers, sent to the url's own host alone; no secrets.",
            sections=SHARED,
        )
    )
    header_credential: str | None = Key(
        CREDENTIAL, "A credential that holds `Name: value` lines: headers that are secret.", sections=SHARED
    ).default(None)
    insecure: bool = Key(
        Flag(), "`true`: `header_credential` may be sent unencrypted, by http.", sections=SHARED
    ).default(False)
    start: tuple[str, ...] = Key(OneOrMore(validators.unit), "Units to start once it is in place.").default(())
    start_required: bool = Key(Flag(), "`true`: a unit of `start` that fails makes the run fail.").default(False)
    retry: RetryPolicy = Key(Group("retry"), "When to try again.", sections=SHARED).default(RetryPolicy())
    timeouts: Timeouts = Key(Group("timeouts"), "When an attempt is given up.", sections=SHARED).default(Timeouts())


@record
class Tls:
    """TLS with a site's own files; paths on the node. None: the node's CA bundle, no client certificate."""

    ca_file: str | None = Key(NODE_PATH, "Authorities to trust, instead of the node's own bundle; PEM.").default(None)
    client_cert: str | None = Key(NODE_PATH, "The node's own certificate; PEM.").default(None)
    client_key: str | None = Key(NODE_PATH, "Its key, unless `client_cert` has both.").default(None)


@record
class Proxy:
    """Explicit proxies; the environment's are never used."""

    http: str | None = Key(Text(validators.proxy), "Proxy for http.").default(None)
    https: str | None = Key(Text(validators.proxy), "Proxy for https.").default(None)
    no_proxy: tuple[str, ...] = Key(  # hosts, .domains, networks in CIDR form
        OneOrMore(validators.exemption), "Hosts, .domains and networks that are reached directly."
    ).default(())
    credential: str | None = Key(
        CREDENTIAL, "A credential that holds `user:password`, for proxies that want it."
    ).default(None)


@record
class FetchConfig:
    """What reaches the node: `fetch.yaml` without its `pack` section, defaults already folded into each artifact."""

    version: int = Key(
        Whole(VERSION, VERSION),
        "The version of this format.",
        missing="version-missing",
        hint=f"begin the file with `version: {VERSION}`",
    ).default(VERSION)
    base_url: str | None = Key(  # an artifact's own is joined to its urls when they are read
        Text(validators.base_url), "What relative urls are joined to.", sections=("defaults", "artifacts")
    ).default(None)
    artifact_url: str | None = Key(
        Text(validators.base_url), "Written by pxe-pack: where it exported `source:` files to."
    ).default(None)
    parallel: int = Key(Whole(1, 64), "Streams at once.").default(4)
    start_jitter: float = Key(  # seconds
        Duration(), "The run starts after a random part of this, to spare the servers."
    ).default(0.0)
    allowed_roots: tuple[str, ...] = Key(
        Texts(validators.root), "Artifacts go below these; the sandbox lets nothing else be written.", always=True
    ).default(DEFAULT_ROOTS)
    tls: Tls = Key(Group("tls"), "Files on the node, for https with a site's own certificates.").default(Tls())
    proxy: Proxy = Key(Group("proxy"), "Explicit proxies; the environment's are never used.").default(Proxy())
    on_failure: str = Key(
        Text(validators.OneOf("continue", "reboot", "poweroff", "emergency")),
        "What a node does when a required artifact has finally failed.",
    ).default("continue")
    report_url: str | None = Key(
        Text(validators.http_url),
        "Where the state of the run is POSTed as JSON; ${facts} are filled in.",
        name="url",
        sections=("report",),
    ).default(None)
    artifacts: tuple[Artifact, ...] = Key(Group("artifacts", many=True), "What a node fetches.", always=True).default(
        ()
    )


ORIGINS = ("url", "urls", "source")  # an artifact has exactly one of them
DIGESTS = ("sha256", "sha512", "sha256_url")  # and at most one of them, which is needed
PINNED_BY = ("source", "chunks")  # where none of these pins the bytes

SECTIONS = keys.sections(
    {
        "artifacts": Artifact,
        "": FetchConfig,
        "chunks": Chunks,
        "retry": RetryPolicy,
        "timeouts": Timeouts,
        "when": When,
        "tls": Tls,
        "proxy": Proxy,
    },
    groups={
        "defaults": Key(Group("defaults", inline=True), "What every artifact has unless it says otherwise."),
        "report": Key(Group("report", inline=True), "Where the result of the run goes."),
        # Its keys are declared in pxe_pack.config, and the agent passes over them.
        "pack": Key(Group("pack"), "For pxe-pack alone, never on a node. Every key is also a flag, and flags win."),
    },
)
