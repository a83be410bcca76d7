"""The configuration as frozen values. Everything here is valid: `validate` is the only way in from text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pxe_fetch.contract.paths import DEFAULT_ROOTS

KiB = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When to try again. Durations in seconds."""

    attempts_without_progress: int = 10  # an attempt that brought new bytes does not count
    base: float = 1.0  # upper bound of the first wait; doubles each time (full jitter)
    max: float = 60.0  # upper bound of any wait
    deadline: float = 1800.0  # of one artifact, on the monotonic clock
    retry_after_max: float = 300.0  # what a server may ask for with Retry-After


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """When an attempt is given up. Durations in seconds."""

    connect: float = 10.0
    read: float = 30.0  # without a single byte
    min_rate: int = 16 * KiB  # bytes a second, on average over the window
    min_rate_window: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """A digest of the bytes on the wire: `algorithm` as hashlib names it, `hex` in lower case."""

    algorithm: str  # "sha256" or "sha512"
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """A file cut into pieces of `size` bytes, each with its SHA-256: in `digests`, or in the list that `urls` name.

    With `source` there is the size alone; pxe-pack makes the list. A size of 0 (NO_CHUNKS): it is to make none.
    """

    size: int  # bytes of each but the last
    digests: bytes = b""  # 32 bytes a chunk, in the order of the file
    urls: tuple[str, ...] = ()  # mirrors of the list, see contract.chunks
    digest: Digest | None = None  # of the list


NO_CHUNKS = Chunks(size=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class When:
    """Which nodes an artifact is for. Each fact maps to shell globs, one of which must match; all facts must."""

    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # arch, mac, serial, uuid, hostname, machine_id
    cmdline: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # kernel argument -> globs


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One file (or tree) a node fetches. `urls` may be relative and hold ${facts}; the agent's plan resolves them."""

    name: str
    urls: tuple[str, ...] = ()  # mirrors of the same bytes; empty exactly when `source` is given
    mirror_order: str = "spread"  # "spread": an order of each node's own; "listed": as in `urls`
    source: str | None = None  # a file or folder on the packing machine; pxe-pack makes urls, digest and size of it
    digest: Digest | None = None
    digest_url: str | None = None  # a SHA256SUMS file that names the url's last part
    size: int | None = None  # bytes on the wire
    chunks: Chunks | None = None  # what pins every byte instead of `digest`, or beside it
    dest: str
    mode: int | None = None
    owner: str | None = None
    group: str | None = None
    extract: str | None = None  # "none", "tar" or "decompress"; None: "tar" of a folder as `source`, else "none"
    when: When = field(default_factory=When)
    required: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    header_credential: str | None = None  # a credential that holds `Name: value` lines: headers that are secret
    start: tuple[str, ...] = ()  # units
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """TLS with a site's own files; paths on the node. None: the node's CA bundle, no client certificate."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """Explicit proxies; the environment's are never used."""

    http: str | None = None
    https: str | None = None
    no_proxy: tuple[str, ...] = ()  # hosts, .domains, networks in CIDR form


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig:
    """What reaches the node: `fetch.yaml` without its `pack` section, defaults already folded into each artifact."""

    version: int = 1
    base_url: str | None = None
    artifact_url: str | None = None  # where pxe-pack exported files to: what pxe-fetch.artifact_url= moves elsewhere
    artifacts: tuple[Artifact, ...] = ()
    parallel: int = 4
    start_jitter: float = 0.0  # seconds; the run starts after a random part of it
    allowed_roots: tuple[str, ...] = DEFAULT_ROOTS
    tls: Tls = field(default_factory=Tls)
    proxy: Proxy = field(default_factory=Proxy)
    on_failure: str = "continue"  # continue, reboot, poweroff or emergency
    report_url: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """The `pack` section: what pxe-pack is to do. Every key is a flag too, and flags win. Paths as written."""

    image: str | None = None
    boot_url: str | None = None
    artifact_url: str | None = None
    output: str | None = None
    inject: str = "auto"  # auto, rootfs, updates, initrd
    boot_loader: str | None = None
    compressor: str | None = None  # gzip, xz, zstd; None: as the image has it
    level: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """The whole of a `fetch.yaml`."""

    fetch: FetchConfig
    pack: Pack = field(default_factory=Pack)
