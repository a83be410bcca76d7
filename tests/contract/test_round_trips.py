"""What the packager writes, the agent reads back: configurations, kernel arguments, durations, sizes.

And no input, however odd, ends in anything but a value or a problem.
"""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pxe_fetch.contract import chunks, facts, quantity, reader, registry
from pxe_fetch.contract.model import (
    NO_CHUNKS,
    Artifact,
    Chunks,
    Digest,
    FetchConfig,
    Proxy,
    Report,
    RetryPolicy,
    Timeouts,
    Tls,
    When,
)
from pxe_fetch.contract.problem import ProblemError, show_all
from pxe_fetch.contract.url import Tiers
from pxe_pack import dump

milliseconds = st.integers(1, 10**9).map(lambda count: count / 1000)
words = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=12)
names = words.filter(lambda word: word[0].isalnum())
printable = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.isprintable)
paths = st.lists(words.filter(lambda word: word not in {".", ".."}), min_size=1, max_size=3).map("/".join)
urls = st.one_of(paths.map("http://h/{}".format), paths, paths.map("https://[::1]:8443/${{arch}}/{}?q=1".format))
bases = paths.map("http://h/{}/".format)


def tiers(mirrors: st.SearchStrategy[str]) -> st.SearchStrategy[Tiers]:
    """One to four different mirrors in tiers."""

    def cut(several: list[str], at: int) -> Tiers:
        return tuple(filter(None, (tuple(several[:at]), tuple(several[at:-1]), tuple(several[at:][-1:]))))

    return st.builds(cut, st.lists(mirrors, min_size=1, max_size=4, unique=True), st.integers(0, 4))


digests = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda raw: Digest(algorithm="sha256", hex=raw.hex())),
    st.binary(min_size=64, max_size=64).map(lambda raw: Digest(algorithm="sha512", hex=raw.hex())),
)
retries = st.builds(
    RetryPolicy,
    attempts_without_progress=st.integers(1, 1000),
    base=milliseconds,
    max=milliseconds,
    deadline=st.none() | milliseconds,
    retry_after_max=milliseconds,
)
timeouts = st.builds(
    Timeouts, connect=milliseconds, read=milliseconds, min_rate=st.integers(0, 10**9), min_rate_window=milliseconds
)
globs = st.lists(printable, min_size=1, max_size=3).map(tuple)
whens = st.builds(
    When,
    facts=st.dictionaries(st.sampled_from(["arch", "mac", "serial", "hostname"]), globs, max_size=2),
    cmdline=st.dictionaries(words.map(lambda word: word.replace("-", "_")), globs, max_size=2),
)
artifacts = st.builds(
    Artifact,
    name=names,
    mirrors=tiers(urls),
    tiers=st.dictionaries(bases, tiers(bases) | st.just(()), max_size=2),
    mirror_order=st.sampled_from(["spread", "listed"]),
    digest=digests,
    size=st.none() | st.integers(0, 2**50),
    dest=paths.map("/srv/{}".format),
    mode=st.none() | st.integers(0, 0o1777),
    owner=st.none() | st.sampled_from(["root", "app", "1000", "0"]),
    group=st.none() | st.sampled_from(["root", "_ssh", "0"]),
    extract=st.sampled_from(["none", "tar"]),
    when=whens,
    required=st.booleans(),
    headers=st.dictionaries(st.sampled_from(["X-A", "Authorization"]), st.sampled_from(["1", "on", "a: b", "${mac}"])),
    header_credential=st.none() | st.just("pxe-fetch.token"),
    query_credential=st.none() | st.just("pxe-fetch.sas"),
    insecure=st.just(True),
    start_required=st.just(False),
    start=st.lists(st.sampled_from(["a.service", "b@x.target"]), max_size=2).map(tuple),
    retry=retries,
    timeouts=timeouts,
).map(lambda artifact: replace(artifact, start_required=len(artifact.start) > 1))


@st.composite
def chunked(draw: st.DrawFn) -> Artifact:
    """An artifact with chunks: a list in the configuration or a file of one, with or without a digest of the whole."""
    artifact = draw(artifacts)
    chunk = draw(st.integers(16, 2**18).map(lambda pages: pages * 4096))
    size = draw(st.integers(1, 5 * chunk))
    pieces = draw(
        st.builds(
            Chunks,
            size=st.just(chunk),
            mirrors=tiers(urls),
            digests=st.binary(min_size=32, max_size=32),
        )
        | st.binary(min_size=size_of_list(size, chunk), max_size=size_of_list(size, chunk)).map(
            lambda digests: Chunks(size=chunk, digests=digests)
        )
    )
    return replace(artifact, size=size, chunks=pieces, digest=draw(st.none() | digests))


@st.composite
def local(draw: st.DrawFn) -> Artifact:
    """An artifact that pxe-pack has yet to export."""
    pieces = st.none() | st.just(NO_CHUNKS) | st.just(Chunks(size=1 << 20))
    return replace(
        draw(artifacts), mirrors=(), source=draw(paths), chunks=draw(pieces), digest=draw(st.none() | digests)
    )


references = st.builds(
    "{}{}/{}".format,
    st.sampled_from(["", "http://", "https://", "oci://"]),
    st.sampled_from(["registry.lan", "registry:5000", "${cmdline.cache}", "[::1]:5000", "docker.io"]),
    st.sampled_from(["model", "site/my_model", "site-${arch}/a__b/c.d"]),
)


@st.composite
def in_registry(draw: st.DrawFn) -> Artifact:
    """An artifact that is a layer in a registry."""
    digest = f"sha256:{draw(st.binary(min_size=32, max_size=32)).hex()}"
    place = references.map(lambda reference: registry.manifest_url(f"{reference}@{digest}"))
    several = draw(st.lists(place, min_size=1, max_size=4, unique=True))
    first = draw(st.integers(0, len(several)))
    tiers = tuple(filter(None, (tuple(several[:first]), tuple(several[first:]))))
    title, login = draw(printable), draw(st.none() | st.just("pxe-fetch.registry"))
    return replace(draw(artifacts), mirrors=tiers, title=title, digest=None, registry_credential=login)


def size_of_list(size: int, chunk: int) -> int:
    return chunks.DIGEST * chunks.count(size, chunk=chunk)


configs = st.builds(
    FetchConfig,
    min_agent=st.none() | st.sampled_from(["0", "0.0.10", "0.1"]),
    serial=st.none() | st.integers(0, 2**53),
    expires=st.none() | st.integers(946_684_800, 253_402_300_799),
    base_url=st.none() | st.just("http://10.0.0.1/x/"),
    artifact_url=st.none() | st.just("http://10.0.0.1/other-user-artifacts/"),
    artifacts=st.lists(
        artifacts | chunked() | local() | in_registry(),
        max_size=3,
        unique_by=(lambda artifact: artifact.name, lambda artifact: artifact.dest),
    ).map(tuple),
    parallel=st.integers(1, 64),
    start_jitter=milliseconds,
    allowed_roots=st.just(("/srv", "/var/lib")),
    tls=st.builds(Tls, ca_file=st.none() | st.just("/etc/pki/site.pem")),
    proxy=st.builds(
        Proxy,
        http=st.none() | st.just("http://cache:3128"),
        no_proxy=st.just(("10.0.0.0/8", ".lan")),
        credential=st.none() | st.just("pxe-fetch.proxy"),
        fallback=st.sampled_from(["none", "direct"]),
    ),
    on_failure=st.sampled_from(["continue", "reboot", "poweroff", "emergency"]),
    report=st.builds(
        Report,
        url=st.none() | st.just("https://10.0.0.1/report"),
        header_credential=st.none() | st.just("pxe-fetch.token"),
        query_credential=st.none() | st.just("pxe-fetch.sas"),
        insecure=st.booleans(),
    ),
)


@given(configs)
def test_a_dumped_configuration_reads_back_the_same(config: FetchConfig) -> None:
    try:
        again = reader.read(dump.dump(config), name="fetch.yaml")
    except ProblemError as error:
        pytest.fail(show_all(error.problems))
    assert again == config


@given(milliseconds)
def test_a_duration_reads_back(seconds: float) -> None:
    assert quantity.duration(dump.show_duration(seconds)) == seconds


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40))
def test_a_list_of_chunk_digests_reads_back(each: list[bytes]) -> None:
    text = chunks.listed(b"".join(each))
    assert chunks.unlisted(text.encode(), number=len(each)) == b"".join(each)


@given(st.binary(max_size=200), st.integers(1, 3))
def test_no_list_of_chunk_digests_brings_anything_but_a_value_error(text: bytes, number: int) -> None:
    try:
        found = chunks.unlisted(text, number=number)
    except ValueError:
        return
    assert len(found) == number * chunks.DIGEST


@given(st.integers(0, 2**60))
def test_a_size_reads_back(count: int) -> None:
    assert quantity.size(quantity.show_size(count)) == count


@given(st.text() | st.text("[]{}:,-#&*!|>'\"% \n\taA01", max_size=60))
@example("? [a]\n: b")
@example("{{a: b}: c}")
@example("=: 1")
@example("<<: 1")
@example("a: 1_000:30")
@example("a: 0b1\nb: 2001-01-01\nc: .nan\nd: 0o7")
@example("a: &x\n  *x : 1")
@example("\ud800")
def test_no_text_brings_anything_but_problems(text: str) -> None:
    try:
        reader.read(text, name="fetch.yaml")
    except ProblemError as error:
        show_all(error.problems)


@given(st.text())
def test_no_command_line_brings_anything_but_an_argument_error(text: str) -> None:
    try:
        facts.parse(text + ' pxe-fetch.deadline="' + text)
    except ProblemError as error:
        str(error)
