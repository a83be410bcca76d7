"""Against a real nginx: http and https, ranges, kept connections, trust, client certificates."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.certs import FUTURE, PAST, Authority
from fakes.nginx import Nginx, nginx
from fakes.transfers import Bench, QuickClock
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import RetryPolicy, Tls
from pxe_fetch.errors import DeadlineError, NetworkError, RefusedError, TrustError
from pxe_fetch.transport import Transports

BODY = random.Random(5).randbytes(9_000_000)
FEW = RetryPolicy(attempts_without_progress=3)
LOCALHOST = "DNS:localhost,IP:127.0.0.1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    folder.chmod(0o755)
    (folder / "m.bin").write_bytes(BODY)
    (folder / "text.json").write_bytes(BODY[:1000].hex().encode())
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path, authority: Authority) -> Iterator[Nginx]:
    certificate = authority.issue("localhost", alternative=LOCALHOST)
    with nginx(tmp_path_factory.mktemp("nginx") / "run", root=root, certificate=certificate) as running:
        yield running


@pytest.fixture
def tls(authority: Authority) -> Tls:
    return Tls(ca_file=str(authority.certificate))


def test_fetches_by_http(server: Nginx, tmp_path: Path) -> None:
    received = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")], size=len(BODY)).download()
    assert (received.attempts, received.bytes_received) == (1, len(BODY))


def test_fetches_by_https(server: Nginx, tls: Tls, tmp_path: Path) -> None:
    received = Bench(body=BODY, folder=tmp_path, urls=[server.secure_url("/m.bin")], tls=tls).download()
    assert (received.attempts, received.bytes_received) == (1, len(BODY))


def test_is_never_sent_compressed(server: Nginx, root: Path, tmp_path: Path) -> None:
    body = (root / "text.json").read_bytes()
    received = Bench(body=body, folder=tmp_path, urls=[server.url("/text.json")]).download()
    assert received.bytes_received == len(body)


@pytest.mark.parametrize("secure", [False, True])
def test_resumes_to_the_byte(server: Nginx, tls: Tls, secure: bool, tmp_path: Path) -> None:  # noqa: FBT001
    url = server.secure_url("/m.bin") if secure else server.url("/m.bin")
    bench = Bench(body=BODY, folder=tmp_path, urls=[url], tls=tls)
    bench.part.write_bytes(BODY[:1_234_567])
    assert bench.download().bytes_received == len(BODY) - 1_234_567
    assert server.asked()[-1][4:6] == ['"bytes=1234567-"', "206"]


def test_a_part_with_a_byte_too_many_is_fetched_anew(server: Nginx, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")])
    bench.part.write_bytes(BODY + b"x")
    bench.download()
    assert [asked[5] for asked in server.asked()[-2:]] == ["416", "200"]


@pytest.mark.parametrize("secure", [False, True])
def test_files_one_after_the_other_share_a_connection(
    server: Nginx,
    tls: Tls,
    secure: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    url = server.secure_url("/m.bin") if secure else server.url("/m.bin")
    transports = Transports(tls=tls)
    before = len(server.asked())
    for number in range(5):
        Bench(body=BODY, folder=tmp_path, urls=[url], name=f"m{number}", transports=transports).download()
    transports.close()
    asked = server.asked()[before:]
    assert len({connection for connection, *_ in asked}) == 1
    assert [number for _, number, *_ in asked] == ["1", "2", "3", "4", "5"]


def test_a_connection_is_kept_after_a_404(server: Nginx, tmp_path: Path) -> None:
    before = len(server.asked())
    Bench(body=BODY, folder=tmp_path, urls=[server.url("/absent"), server.url("/m.bin")]).download()
    asked = server.asked()[before:]
    assert [(number, status) for _, number, _, _, _, status, _ in asked] == [("1", "404"), ("2", "200")]


def test_a_certificate_of_an_unknown_authority_is_final(server: Nginx, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    tls = Tls(ca_file=str(stranger.certificate))
    # An unset clock is no excuse: no time of day makes this authority known.
    bench = Bench(body=BODY, folder=tmp_path / "to", urls=[server.secure_url("/m.bin")], tls=tls)
    bench.clock.is_set = False
    with pytest.raises(TrustError, match=r"the certificate of localhost:[0-9]+ is not trusted") as caught:
        bench.download()
    assert caught.value.exit_code == Exit.TRUST
    assert bench.clock.waits == []


def test_a_certificate_of_another_host_is_final(root: Path, authority: Authority, tls: Tls, tmp_path: Path) -> None:
    certificate = authority.issue("other", alternative="DNS:other.example")
    with nginx(tmp_path / "run", root=root, certificate=certificate) as server:
        bench = Bench(body=BODY, folder=tmp_path / "to", urls=[server.secure_url("/m.bin")], tls=tls)
        with pytest.raises(TrustError, match="localhost"):
            bench.download()
    assert bench.clock.waits == []


@pytest.mark.parametrize("validity", [PAST, FUTURE], ids=["expired", "not-yet-valid"])
def test_a_certificate_of_another_time_is_tried_again_until_the_clock_is_set(
    root: Path, authority: Authority, tls: Tls, validity: tuple[str, str], tmp_path: Path
) -> None:
    certificate = authority.issue("localhost", alternative=LOCALHOST, validity=validity)
    with nginx(tmp_path / "run", root=root, certificate=certificate) as server:
        clock = QuickClock(is_set=False)

        def during(number: int) -> None:
            clock.is_set = number == 2

        clock.during = during
        bench = Bench(body=BODY, folder=tmp_path / "to", urls=[server.secure_url("/m.bin")], tls=tls, clock=clock)
        with pytest.raises(TrustError) as caught:
            bench.download()
    assert len(clock.waits) == 3
    assert not caught.value.transient
    assert "while the clock is not set" in str(bench.events.of("retrying")[0]["error"])


def test_a_certificate_that_is_not_valid_yet_is_waited_for_as_long_as_there_is_time(
    root: Path, authority: Authority, tls: Tls, tmp_path: Path
) -> None:
    """One that has expired is not: with chrony nobody says that the clock is set (pxe_fetch.deadline)."""
    validities = {"later": FUTURE, "past": PAST}
    for name, validity in validities.items():
        certificate = authority.issue("localhost", alternative=LOCALHOST, validity=validity)
        with nginx(tmp_path / name, root=root, certificate=certificate) as server:
            clock = QuickClock(is_set=False)
            url = server.secure_url("/m.bin")
            bench = Bench(body=BODY, folder=tmp_path / "to", urls=[url], tls=tls, clock=clock)
            with pytest.raises(DeadlineError if name == "later" else TrustError, match="while the clock is not set"):
                bench.download()
        assert (len(clock.waits) > 20) == (name == "later")


def test_a_server_without_tls_1_2_is_not_trusted(root: Path, authority: Authority, tls: Tls, tmp_path: Path) -> None:
    certificate = authority.issue("localhost", alternative=LOCALHOST)
    with nginx(tmp_path / "run", root=root, certificate=certificate, protocols="TLSv1.1") as server:
        bench = Bench(body=BODY, folder=tmp_path / "to", urls=[server.secure_url("/m.bin")], tls=tls, retry=FEW)
        with pytest.raises(TrustError, match=r"TLS 1\.2"):
            bench.download()


def test_a_client_certificate_is_shown(root: Path, authority: Authority, tls: Tls, tmp_path: Path) -> None:
    certificate = authority.issue("localhost", alternative=LOCALHOST)
    ours = authority.issue("node-1")
    with nginx(tmp_path / "run", root=root, certificate=certificate, clients_of=authority.certificate) as server:
        without = Bench(body=BODY, folder=tmp_path / "to", urls=[server.secure_url("/m.bin")], tls=tls)
        with pytest.raises(
            RefusedError, match=r"400: it wants a client certificate.*\(tls.client_cert, tls.client_key\)"
        ):
            without.download()
        shown = Tls(ca_file=tls.ca_file, client_cert=str(ours.certificate), client_key=str(ours.key))
        Bench(body=BODY, folder=tmp_path / "to", urls=[server.secure_url("/m.bin")], tls=shown).download()


@pytest.mark.parametrize("missing", ["ca_file", "client_cert", "client_key"])
def test_tls_files_that_cannot_be_used_are_named(missing: str, authority: Authority, tmp_path: Path) -> None:
    ours = authority.issue("node-2")
    files = {"ca_file": authority.certificate, "client_cert": ours.certificate, "client_key": ours.key}
    files[missing] = tmp_path / "absent.pem"
    tls = Tls(**{name: str(path) for name, path in files.items()})
    bench = Bench(body=BODY, folder=tmp_path, urls=["https://localhost:1/m"], tls=tls)
    with pytest.raises(TrustError, match=r"absent\.pem"):
        bench.download()


def test_plain_http_on_a_tls_port_is_a_network_error(server: Nginx, tls: Tls, tmp_path: Path) -> None:
    url = f"https://localhost:{server.port}/m.bin"
    with pytest.raises(NetworkError, match="TLS with localhost"):
        Bench(body=BODY, folder=tmp_path, urls=[url], tls=tls, retry=FEW).download()
