"""What an administrator reads who has only `journalctl -u pxe-fetch`, and what `journalctl -x` needs to explain it.

What came from where, what went wrong and how it was overcome, what is missing, and what happens next.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fakes.certs import FUTURE, Authority
from fakes.faults import Flip, Status, cut, stall, unavailable
from fakes.node import Entry, FakeNode, Ran
from fakes.server import Script, Server
from fakes.transfers import cut as cut_into_pieces
from pxe_fetch.contract.paths import MessageId
from pxe_fetch.filesystem import is_in_memory
from pxe_fetch.reporting import journal
from pxe_fetch.reporting.event_log import MANY_ARTIFACTS

BODY = random.Random(3).randbytes(40 * 65536)
SMALL = b"small\n"
CHUNK = 65536
CATALOG = (Path(__file__).parents[2] / "units/pxe-fetch.catalog").read_text()
SOME = {"attempts_without_progress": 3, "base": "1ms", "max": "5ms"}


@pytest.fixture
def service(node: FakeNode) -> Iterator[FakeNode]:
    """A node on which systemd runs the agent."""
    node.write("dev/console", "")
    node.environment["INVOCATION_ID"] = "f" * 32
    node.environment["NOTIFY_SOCKET"] = str(node.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(node.folder / "notify"))
        yield node


def told(ran: Ran) -> list[str]:
    """The lines, without what makes no difference to a reader; none is a traceback, or about nothing."""
    lines = ran.err.splitlines()
    assert all(re.match(r"<[3-7]>\S", line) for line in lines), ran.err
    assert not any(word in ran.err for word in ("Traceback", "None", "Error(", "  File ")), ran.err
    return lines


def has(lines: list[str], *parts: str) -> None:
    """One of `lines` has all `parts`, in their order."""
    pattern = ".*".join(map(re.escape, parts))
    assert any(re.search(pattern, line) for line in lines), (parts, lines)


def mirrors(node: FakeNode, name: str, urls: list[str], /, **others: object) -> Entry:
    return {**node.entry(name, "", BODY), "url": None, "urls": urls, "mirror_order": "listed", "retry": SOME, **others}


def test_server_that_recovers(service: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, faults=[unavailable(), cut(0.5)])}) as server:
        lines = told(service.run_config(service.entry("m", server.url("/m"), BODY, size=len(BODY), retry=SOME)))
        url = server.url("/m")
    has(lines, "<6>configuration: ", "fetch.yaml")
    has(lines, "<6>1 artifact to fetch (2.50 MiB)")
    has(lines, f"<4>m: attempt 1 at {url} failed: the server answered 503; trying again")
    has(lines, f"<4>m: attempt 2 at {url} failed: the body ended {len(BODY) // 2} bytes early; trying again")
    has(lines, f"<6>m: resuming at 1.25 MiB of 2.50 MiB from {url}")
    has(lines, f"<6>m: placed at {service.out}/m: 2.50 MiB from {url} in 3 attempts")
    assert lines[-1].startswith("<6>done: 1 artifact in place, 2.50 MiB received")


def test_corrupt_mirror_beside_a_good_one(service: FakeNode) -> None:
    with Server({"/bad": Script(body=BODY, then=Flip()), "/good": Script(body=BODY)}) as server:
        bad, good = server.url("/bad"), server.url("/good")
        lines = told(service.run_config(mirrors(service, "m", [bad, good])))
    has(lines, f"<6>m: fetching from {bad}, mirror 1 of 2 (2.50 MiB)")
    has(lines, f"<4>m: attempt 1 at {bad} failed: wrong sha256: expected ", ", found ", f"; trying again at {good}")
    has(lines, f"<6>m: placed at {service.out}/m: 2.50 MiB from {good} in 2 attempts")


def test_missing_at_every_mirror_names_the_destination_and_what_comes_next(service: FakeNode) -> None:
    with Server({"/no": Script(then=Status(403)), "/ok": Script(body=SMALL)}) as server:
        no, absent = server.url("/no"), server.url("/absent")
        ran = service.run_config(mirrors(service, "m", [no, absent]), service.entry("ok", server.url("/ok"), SMALL))
    lines = told(ran)
    has(lines, f"<4>m: {no} is no longer used: the server answered 403; 1 mirror left")
    has(
        lines,
        f"<3>m: failed: {absent}: the server answered 404 (",
        " at 2 mirrors in ",
        f"; {service.out}/m is missing",
    )
    has(lines, f"<3>failed: m: {absent}: the server answered 404 (", "(1 of 2 artifacts in place")
    assert lines[-1] == "<4>run 1 of 6 failed; systemd will start the service again, and downloads will resume"
    (service.out / "m").write_text("old")
    with Server({"/m": Script(then=Status(401))}) as server:
        lines = told(service.run_config(service.entry("m", server.url("/m"), BODY)))
    has(lines, "<3>m: failed: ", "the server answered 401", f"{service.out}/m is unchanged")
    has(lines[-1:], "<4>systemd will not start the service again: another run would fail too")
    # A mere restart is refused once StartLimitBurst= is used up.
    assert lines[-1].endswith("systemctl reset-failed pxe-fetch.service && systemctl start pxe-fetch.service")


def test_wait_before_the_start_is_told(service: FakeNode) -> None:
    lines = told(service.run_config(start_jitter="1ms"))
    has(lines, "<6>starting in 0.00 s (start_jitter)")


def test_degraded_run_names_what_is_missing_and_why(service: FakeNode) -> None:
    with Server({"/ok": Script(body=SMALL)}) as server:
        absent = server.url("/absent")
        ran = service.run_config(
            service.entry("extra", absent, BODY, required=False, retry=SOME),
            service.entry("ok", server.url("/ok"), SMALL),
            service.entry("theirs", server.url("/ok"), SMALL, when={"arch": "sparc"}),
        )
    lines = told(ran)
    has(lines, "2 artifacts to fetch", "not for this node: theirs")
    has(lines, "<4>extra: failed: ", f"{service.out}/extra is missing; it is optional, so the run continues")
    has(lines[-1:], "<4>done: 1 of 2 artifacts in place, 1 not for this node")
    has(lines[-1:], f"without 1 optional artifact: extra: {absent}: the server answered 404")


def test_clock_that_is_not_set_is_told_with_what_it_says(service: FakeNode) -> None:
    authority = Authority(service.folder / "ca")
    issued = authority.issue("localhost", validity=FUTURE, alternative="DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    with Server({"/m": Script(body=BODY)}, tls=context) as server:
        entry = service.entry("m", server.url("/m"), BODY, retry={"base": "50ms", "deadline": "1500ms"})
        ran = service.run_config(entry, tls={"ca_file": str(authority.certificate)})
    assert ran.code == 75
    lines = told(ran)
    has(lines, "<3>m: failed: ", "; the last error: ")
    has(lines, "while the clock is not set (it says 20", "UTC): certificate is not yet valid; trying again")


def test_of_many_artifacts_only_the_end_is_told_and_what_goes_wrong(service: FakeNode) -> None:
    names = [f"m{number}" for number in range(MANY_ARTIFACTS + 1)]
    with Server({"/m": Script(body=SMALL), "/odd": Script(body=SMALL, faults=[unavailable()])}) as server:
        entries = [service.entry(name, server.url("/m"), SMALL) for name in names[1:]]
        # One at a time: a 503 while another stream is served would be the server's limit, which is no failure.
        odd = service.entry("odd", server.url("/odd"), SMALL, retry=SOME)
        lines = told(service.run_config(*entries, odd, parallel=1))
    has(lines, f"{MANY_ARTIFACTS + 1} artifacts to fetch")
    assert len(lines) == MANY_ARTIFACTS + 5  # each is placed; configuration, plan, an attempt that failed, and the end
    has(lines, "<4>odd: attempt 1 at ")
    has(lines, "<6>m100: placed at ")


def test_deadlines_are_told_apart(service: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, then=stall(0.5))}) as server:
        entry = service.entry("m", server.url("/m"), BODY)
        own = told(service.run_config({**entry, "retry": {"deadline": "300ms"}}))
        service.boot_with("pxe-fetch.deadline=300ms")
        of_run = told(service.run_config(entry))
    has(own, "<3>m: failed: its deadline of 0.30 s is over (1 attempt in ", ", 1.25 MiB here)")
    has(of_run, "<3>m: failed: the run's deadline is over (1 attempt in ")


def test_configuration_that_is_not_to_be_had_is_named_in_the_last_word(service: FakeNode) -> None:
    with Server() as server:
        url = server.url("/fetch.yaml")
        service.boot_with(f"pxe-fetch.config={url} pxe-fetch.config.sha256={'0' * 64} pxe-fetch.deadline=200ms")
        lines = told(service.run("run"))
    has(lines, f"<3>failed: cannot fetch the configuration from {url}: ", "; the last error: the server answered 404")


def test_configuration_that_is_refused_has_an_entry_of_its_own(service: FakeNode) -> None:
    service.boot_with("pxe-fetch.config=http://127.0.0.1:1/fetch.yaml")
    lines = told(service.run("run"))
    has(
        lines,
        "<3>the configuration is refused: pxe-fetch.config=http://127.0.0.1:1/fetch.yaml uses http and has no digest",
    )


def test_one_line_for_each_wrong_piece_and_none_for_right_ones(service: FakeNode) -> None:
    digests = cut_into_pieces(BODY, chunk=CHUNK).digests
    listed = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
    with Server({"/m": Script(body=BODY, faults=[Flip(at=0.1)])}) as server:
        chunks = {"size": CHUNK, "sha256": listed}
        ran = service.run_config(service.entry("m", server.url("/m"), BODY, size=len(BODY), chunks=chunks), parallel=1)
        url = server.url("/m")
    lines = told(ran)
    has(lines, f"<4>m: {url} sent wrong bytes from 262144 to 327679: chunk 4 has ", "fetching that chunk again")
    has(lines, f"<6>m: chunk 4 is correct now, from {url}")
    assert len(lines) < 10


def test_all_of_it_left_by_an_earlier_run_has_no_server_to_name(service: FakeNode) -> None:
    (service.out).mkdir()
    (service.out / ".m.pxe-fetch-part").write_bytes(BODY)
    lines = told(service.run_config(service.entry("m", "http://127.0.0.1:1/m", BODY, size=len(BODY))))
    has(lines, f"<6>m: placed at {service.out}/m: 2.50 MiB left by an earlier run, ")


def test_every_entry_has_the_fields_that_its_explanation_shows(
    service: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows the name of a field that is missing."""
    entries: list[dict[str, str]] = []

    def keep(entry: Mapping[str, str]) -> bool:
        entries.append(dict(entry))
        return True

    monkeypatch.setattr(journal, "_is_connected_to_journald", lambda _: True)
    monkeypatch.setattr(journal, "send_to_journald", keep)
    digests = cut_into_pieces(BODY, chunk=CHUNK).digests
    listed = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
    faults = {"/m": Script(body=BODY, faults=[unavailable(), cut(0.5)]), "/c": Script(body=BODY, faults=[Flip()])}
    with Server({**faults, "/bad": Script(body=BODY, then=Flip())}) as server:
        pieces = {"size": CHUNK, "sha256": listed}
        service.run_config(
            service.entry("m", server.url("/m"), BODY, size=len(BODY), retry=SOME),
            service.entry("c", server.url("/c"), BODY, size=len(BODY), chunks=pieces, start=["none.service"]),
            service.entry("bad", server.url("/bad"), BODY, required=False, retry=SOME),
            parallel=1,
        )
        service.run_config(service.entry("m", server.url("/m"), BODY), service.entry("no", server.url("/no"), BODY))
    (service.out / "m").rename(service.out / ".l.pxe-fetch-part")
    service.run_config(service.entry("l", "http://127.0.0.1:1/m", BODY, size=len(BODY)))
    service.write("etc/pxe-fetch/fetch.yaml", "version: 7\n")
    service.run("run")
    service.boot_with("pxe-fetch.config=http://127.0.0.1:1/fetch.yaml")
    service.run("run")
    explained = dict(re.findall(r"^-- ([0-9a-f]{32})\n(.*?)(?=^-- |\Z)", CATALOG, re.DOTALL | re.MULTILINE))
    for entry in entries:
        wanted = set(re.findall(r"@(\w+)@", explained[entry["MESSAGE_ID"]])) - set(entry)
        assert not wanted, (wanted, entry)
    every = {value for name, value in vars(MessageId).items() if name.isupper()}
    assert {entry["MESSAGE_ID"] for entry in entries} == every


def test_live_space_that_changes_nothing(service: FakeNode) -> None:
    if is_in_memory("/"):
        pytest.skip("this machine's root file system is in memory")
    with Server({"/m": Script(body=SMALL)}) as server:
        lines = told(service.run_config(service.entry("m", server.url("/m"), SMALL), live_space="60%"))
    has(lines, "<4>`live_space: 60%` changes nothing: / (", ") is not in memory")
