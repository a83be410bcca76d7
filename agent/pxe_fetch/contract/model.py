"""The configuration as frozen values, and each key of `fetch.yaml` on the field that holds its value.

A key is declared here and nowhere else (see keys.py), but for those of `pack`, which pxe_pack.config has. Everything
here is valid: reader.read is the one way in from text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pxe_fetch.contract import keys, quantity, registry, validators
from pxe_fetch.contract.chunks import chunk_size
from pxe_fetch.contract.facts import FACTS, argument
from pxe_fetch.contract.keys import Duration, Flag, Group, Key, Mirrors, Size, Text, Texts, Whole, key, spelled
from pxe_fetch.contract.paths import DEFAULT_ROOTS
from pxe_fetch.contract.record import record
from pxe_fetch.contract.url import Tiers, Url, flat, is_exempt

VERSION = 1
MAX_SERIAL = 2**53  # what JSON has exactly
STALL = 1800.0  # seconds without a new byte after which an artifact without `retry.deadline` is given up
NO_CHUNKS_WORD = "none"  # instead of the section `chunks`
SHARED = ("artifacts", "defaults")  # where keys stand that each artifact may have from `defaults`

ACCOUNT, CREDENTIAL, NODE_PATH = Text(validators.account), Text(validators.credential), Text(validators.node_path)
HEADER_CREDENTIAL = Key(CREDENTIAL, "A credential that holds secret headers, as `Name: value` lines.")
REGISTRY_CREDENTIAL = Key(CREDENTIAL, "A credential for `oci`: `user:password`, or an identity token.")
QUERY_CREDENTIAL = Key(CREDENTIAL, "A credential with the secret part of the url's query, as `sv=…&sig=…`.")
INSECURE = Key(Flag(), "`true`: the credentials may be sent unencrypted, by http.")
POSITIVE = Duration(quantity.positive_duration)


@record
class RetryPolicy:
    """When to try again. Durations in seconds."""

    attempts_without_progress: int = key(10, Whole(1, 1_000_000), "Attempts without a new byte before giving up.")
    base: float = key(1.0, Duration(), "Upper bound of the first wait; it doubles each time (full jitter).")
    max: float = key(60.0, Duration(), "Upper bound of any wait.")
    # On the monotonic clock; None: STALL without a new byte.
    deadline: float | None = key(None, POSITIVE, "Time for the artifact, over all attempts.")
    retry_after_max: float = key(300.0, Duration(), "The longest wait that a server may ask for with Retry-After.")


@record
class Timeouts:
    """When an attempt is given up. Durations in seconds."""

    connect: float = key(10.0, POSITIVE, "Time to connect; 5s at most if there is another mirror.")
    read: float = key(30.0, POSITIVE, "Time without a single byte; 5s at most if its tier has another mirror.")
    min_rate: int = key(
        16 * 1024, Size(quantity.rate), "A mirror that sends fewer bytes per second is left if there is another one."
    )
    min_rate_window: float = key(
        60.0, POSITIVE, "Its window; 7.5s at most if another mirror of its tier has not failed."
    )


class Digest(NamedTuple):
    """A digest of the bytes on the wire: `algorithm` as hashlib names it, `hex` in lower case."""

    algorithm: str  # "sha256" or "sha512"
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def _digest_key(algorithm: str, digits: int) -> Key:
    rule = validators.DigestOf(algorithm, digits)
    kind = Text(rule, load=lambda text: Digest(algorithm=algorithm, hex=text))
    return Key(kind, "Digest of the bytes on the wire.", name=algorithm)


# A field of mirrors, where there is one of them, and where there are several.
ONE_URL = Text(validators.url, load=lambda url: ((url,),))
URLS = Mirrors(validators.url)
REFERENCES = Mirrors(registry.manifest_url, or_one=True)


@record
class Chunks:
    """A file cut into chunks of `size` bytes, each with its SHA-256: in `digests`, or in the list at `mirrors`.

    With `source` there is the size alone, and pxe-pack makes the list; NO_CHUNKS: it makes none.
    """

    size: int = key(
        0,
        Size(chunk_size),
        "Bytes of each chunk but the last.",
        missing="chunk-size-missing",
        hint="of each but the last, as in `size: 4MiB`",
    )
    digests: bytes = key(  # 32 bytes a chunk, in the order of the file; with `mirrors`, those of the list's own digest
        b"",
        Texts(validators.DigestOf("sha256", 64), or_one=True, load=lambda texts: bytes.fromhex("".join(texts))),
        "The digests, in the order of the file; with `url`, that of the list itself.",
        name="sha256",
    )
    mirrors: Tiers = spelled(  # of the list, see contract.chunks
        Key(ONE_URL, "Where the list of digests is: absolute, or relative to `base_url`.", name="url"),
        Key(URLS, "Mirrors of the list.", name="urls"),
        default=(),
    )


NO_CHUNKS = Chunks()


@record
class When:
    """Which nodes an artifact is for. Each fact maps to shell globs, one of which must match; all facts must."""

    facts: Mapping[str, tuple[str, ...]] = keys.mapping(
        *(
            Key(Texts(validators.any_text, or_one=True), f"From {source}.", name=name, item=True)
            for name, source in FACTS.items()
        )
    )
    cmdline: Mapping[str, tuple[str, ...]] = keys.mapping(
        Key(
            keys.Table(validators.any_text, Texts(validators.any_text, or_one=True), rename=argument),
            "Kernel arguments, and the globs for their values.",
        )
    )


@record
class Artifact:
    """One file (or tree) a node fetches. URLs may be relative and hold ${facts}; the agent's plan resolves them."""

    name: str = key(
        "", Text(validators.name), "Its name in the journal, the state and the report; unique.", missing="name-missing"
    )
    mirrors: Tiers = spelled(  # of the same bytes; empty exactly when `source` is given
        Key(ONE_URL, "Absolute, or relative to `base_url`; ${facts} are filled in.", name="url"),
        Key(URLS, "Instead of `url`: mirrors of the same bytes, perhaps in tiers.", name="urls"),
        Key(REFERENCES, "Instead of `url`: HOST/NAME@sha256:… in a registry, or a list of them.", name="oci"),
        default=(),
    )
    title: str | None = key(  # exactly with `oci`, whose urls are those of the manifest until the layer is known
        None, Text(validators.any_text), "With `oci`: the file's name there, which is the title of a layer."
    )
    source: str | None = key(
        None, Text(validators.file_name), "Instead of `url`: a file or folder on the packing machine."
    )
    mirror_order: str = key(
        "spread",
        Text(validators.OneOf("spread", "listed")),
        "Mirrors of a tier are tried in each node's order (`spread`), or as listed.",
        sections=SHARED,
    )
    tiers: Mapping[str, Tiers] = keys.mapping(  # by base: those in front of the mirrors below it, see contract.mirrors
        Key(
            keys.Table(validators.base_url, Mirrors(validators.base_url)),
            "Caches in front of servers: for urls below a base, those to ask first.",
            sections=SHARED,
        )
    )
    digest: Digest | None = spelled(_digest_key("sha256", 64), _digest_key("sha512", 128), default=None)
    digest_url: str | None = key(
        None, Text(validators.url), "Instead of `sha256`: the URL of a SHA256SUMS file with it.", name="sha256_url"
    )
    size: int | None = key(None, Size(), "Bytes on the wire.")
    chunks: Chunks | None = key(  # what pins every byte instead of `digest`, or beside it
        None,
        Group("chunks", word=NO_CHUNKS_WORD, meant=NO_CHUNKS),
        "Digests of its chunks, which nodes then fetch in parallel.",
    )
    dest: str = key(
        "",
        Text(validators.absolute_path),
        "Absolute path below one of `allowed_roots`; ${facts} are filled in.",
        missing="dest-missing",
        hint="the absolute path to place it at",
    )
    mode: int | None = key(
        None,
        Text(validators.mode),
        "Permission bits in octal, 0644 if not given; set-id bits are refused.",
        sections=SHARED,
    )
    owner: str | None = key(None, ACCOUNT, "User, by name or number; root if not given.", sections=SHARED)
    group: str | None = key(None, ACCOUNT, "Group, by name or number; root if not given.", sections=SHARED)
    extract: str | None = key(
        None,
        Text(validators.OneOf("none", "tar", "decompress")),
        "`tar`: unpacked into the directory `dest`; `decompress`: decompressed.",
    )
    when: When = key(When(), Group("when"), "Only for nodes on which all of these facts match.")
    required: bool = key(
        True, Flag(), "`false`: its failure degrades the run (exit code 2) instead of failing it.", sections=SHARED
    )
    headers: Mapping[str, str] = keys.mapping(
        Key(
            keys.Table(validators.header_name, Text(validators.header_value)),
            "HTTP headers, sent to the url's own host alone; no secrets.",
            sections=SHARED,
        )
    )
    header_credential: str | None = spelled(HEADER_CREDENTIAL._replace(sections=SHARED), default=None)
    query_credential: str | None = spelled(QUERY_CREDENTIAL._replace(sections=SHARED), default=None)
    registry_credential: str | None = spelled(REGISTRY_CREDENTIAL._replace(sections=SHARED), default=None)
    insecure: bool = spelled(INSECURE._replace(sections=SHARED), default=False)
    start: tuple[str, ...] = key(
        (), Texts(validators.unit, or_one=True), "Units to start once the artifact is in place."
    )
    start_required: bool = key(False, Flag(), "`true`: a unit of `start` that fails makes the run fail.")
    retry: RetryPolicy = key(RetryPolicy(), Group("retry"), "When to try again.", sections=SHARED)
    timeouts: Timeouts = key(Timeouts(), Group("timeouts"), "When an attempt is given up.", sections=SHARED)

    @property
    def urls(self) -> tuple[str, ...]:
        """Its mirrors in the order of their tiers."""
        return flat(self.mirrors)

    @property
    def credentials(self) -> tuple[str, ...]:
        """The names of those that its servers are sent."""
        login = None if self.title is None else self.registry_credential
        return tuple(filter(None, (self.header_credential, self.query_credential, login)))


@record
class Tls:
    """TLS with a site's own files; paths on the node. None: the node's CA bundle, no client certificate."""

    ca_file: str | None = key(None, NODE_PATH, "Authorities to trust, instead of the node's own bundle; PEM.")
    client_cert: str | None = key(None, NODE_PATH, "The node's own certificate; PEM.")
    client_key: str | None = key(None, NODE_PATH, "The key of `client_cert`, unless that file has both.")


@record
class Proxy:
    """Explicit proxies; the environment's are never used."""

    http: str | None = key(None, Text(validators.proxy), "Proxy for http.")
    https: str | None = key(None, Text(validators.proxy), "Proxy for https.")
    no_proxy: tuple[str, ...] = key(  # hosts, .domains, networks in CIDR form
        (), Texts(validators.exemption, or_one=True), "Hosts, .domains and networks that are reached directly."
    )
    credential: str | None = key(None, CREDENTIAL, "A credential that holds `user:password`, for proxies that want it.")
    fallback: str = key(
        "none", Text(validators.OneOf("none", "direct")), "`direct`: servers are asked directly while a proxy fails."
    )

    def of(self, url: Url) -> str | None:
        """The proxy for `url`; None for a direct connection."""
        chosen = {"http": self.http, "https": self.https}.get(url.scheme)
        return None if chosen is None or is_exempt(url, self.no_proxy) else chosen


@record
class Report:
    """Where the result of the run goes, and the credentials for it."""

    url: str | None = key(
        None, Text(validators.http_url), "Where the state of the run is POSTed as JSON; ${facts} are filled in."
    )
    header_credential: str | None = spelled(HEADER_CREDENTIAL, default=None)
    query_credential: str | None = spelled(QUERY_CREDENTIAL, default=None)
    insecure: bool = spelled(INSECURE, default=False)

    @property
    def credentials(self) -> tuple[str, ...]:
        """The names of those that the collector is sent."""
        return tuple(filter(None, (self.header_credential, self.query_credential)))


@record
class FetchConfig:
    """What reaches the node: `fetch.yaml` without its `pack` section, defaults already folded into each artifact."""

    version: int = key(
        VERSION,
        Whole(VERSION, VERSION),
        "The version of this format.",
        missing="version-missing",
        hint=f"begin the file with `version: {VERSION}`",
    )
    min_agent: str | None = key(
        None, Text(validators.version, types=(str, int, float)), "The oldest agent that knows all keys of this file."
    )
    serial: int | None = key(
        None, Whole(0, MAX_SERIAL), "A number that each new configuration raises; nodes refuse lower ones by URL."
    )
    expires: int | None = key(  # in seconds since 1970
        None, Text(quantity.moment), "The last day or moment (UTC) at which nodes accept it by URL."
    )
    base_url: str | None = key(  # an artifact's own is joined to its urls when they are read
        None, Text(validators.base_url), "What relative urls are joined to.", sections=("defaults", "artifacts")
    )
    artifact_url: str | None = key(
        None, Text(validators.base_url), "Written by pxe-pack: where it exported `source:` files to."
    )
    parallel: int = key(4, Whole(1, 64), "Streams at once.")
    start_jitter: float = key(0.0, Duration(), "The run starts after a random part of this time, to spare the servers.")
    allowed_roots: tuple[str, ...] = key(
        DEFAULT_ROOTS,
        Texts(validators.root),
        "Artifacts go below these; the sandbox lets nothing else be written.",
        always=True,
    )
    live_space: str | None = key(  # as tmpfs's option `size` has it: "60%", or bytes
        None, Text(quantity.live_space), "How much of the memory a live system's files may take."
    )
    tls: Tls = key(Tls(), Group("tls"), "Files on the node, for https with a site's own certificates.")
    proxy: Proxy = key(Proxy(), Group("proxy"), "Explicit proxies; the environment's are never used.")
    on_failure: str = key(
        "continue",
        Text(validators.OneOf("continue", "reboot", "poweroff", "emergency")),
        "What a node does when a required artifact has finally failed.",
    )
    report: Report = key(Report(), Group("report"), "Where the result of the run goes.")
    artifacts: tuple[Artifact, ...] = key((), Group("artifacts", many=True), "What a node fetches.", always=True)


ORIGINS = ("url", "urls", "oci", "source")  # an artifact has exactly one of them
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
        "report": Report,
    },
    groups={
        "defaults": Key(Group("defaults", inline=True), "What every artifact has unless it says otherwise."),
        # Its keys are declared in pxe_pack.config, and the agent passes over them.
        "pack": Key(Group("pack"), "For pxe-pack only, never on a node. Every key is also a flag, and flags win."),
    },
)
