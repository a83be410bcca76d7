"""Whole runs: what ends up where, which exit code says so, and what is left for the next run."""

from __future__ import annotations

import hashlib
import random
import signal
import time
from dataclasses import dataclass
from threading import Barrier

import pytest

from fakes.chunks import chunk_digests
from fakes.exchange import Exchange
from fakes.faults import Flip, Serve, Status, cut, redirect, stall, unavailable
from fakes.node import FakeNode
from fakes.server import Script, Server

BODY = random.Random(1).randbytes(200_000)
SMALL = b"small\n"
TOKEN = {"header_credential": "pxe-fetch.token", "insecure": True}


def test_overcomes_503_and_a_body_cut_in_half(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, faults=[unavailable(), unavailable(), cut(0.5)])}) as server:
        retry = {"attempts_without_progress": 5, "base": "1ms"}
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, size=len(BODY), retry=retry))
    assert ran.code == 0
    assert (node.out / "m").read_bytes() == BODY
    artifact = ran.artifact("m")
    assert artifact["attempts"] == 4
    assert artifact["bytes"] == artifact["total"] == artifact["bytes_received"] == len(BODY)
    assert artifact["error"] is None
    assert "attempt 1 at" in ran.err
    assert "resuming at " in ran.err


def test_corrupt_optional_artifact_degrades_the_run_and_leaves_nothing(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, then=Flip()), "/s": Script(body=SMALL)}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY, required=False), node.entry("s", server.url("/s"), SMALL)
        )
    assert ran.code == 2
    assert node.files() == ["s"]
    assert ran.out.startswith("pxe-fetch: done:")
    assert "without 1 optional artifact: m" in ran.out
    assert ran.state["phase"] == "done"
    assert ran.artifact("m")["cause"] == "integrity"


@pytest.mark.parametrize(
    ("fault", "code", "cause"),
    [
        (Flip(), 76, "integrity"),
        (Status(404), 69, "not-found"),
        (Status(500), 69, "network"),
        (Status(401), 77, "refused"),
        (Status(403), 77, "refused"),
    ],
)
def test_exit_code_names_the_cause(node: FakeNode, fault: Flip | Status, code: int, cause: str) -> None:
    node.out.mkdir()
    (node.out / "m").write_text("what was there before")
    with Server({"/m": Script(body=BODY, then=fault)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY))
    assert ran.code == code == ran.state["exit_code"]
    assert ran.state["cause"] == cause
    assert (node.out / "m").read_text() == "what was there before"
    assert node.files() == ["m"]
    assert ran.out.startswith("pxe-fetch: failed: m: ")
    artifact = ran.artifact("m")
    assert (artifact["attempts"], artifact["url"]) == (len(server.asked_for("/m")), server.url("/m"))


def test_nobody_listening_is_69(node: FakeNode) -> None:
    with Server() as server:
        url = server.url("/m")
    ran = node.run_config(node.entry("m", url, BODY))
    assert ran.code == 69
    assert "refused" in ran.out


def test_failure_that_a_restart_may_mend_comes_before_one_that_it_cannot(node: FakeNode) -> None:
    scripts = {"/no": Script(then=Status(403)), "/later": Script(then=Status(500)), "/ok": Script(body=SMALL)}
    with Server(scripts) as server:
        ran = node.run_config(
            node.entry("no", server.url("/no"), BODY),
            node.entry("later", server.url("/later"), BODY),
            node.entry("ok", server.url("/ok"), SMALL),
        )
    assert ran.code == 69
    assert "also failed: no" in ran.out
    assert node.files() == ["ok"]


def test_run_deadline_is_75(node: FakeNode) -> None:
    node.boot_with("pxe-fetch.deadline=300ms")
    with Server({"/m": Script(body=BODY, then=stall(0.5))}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY))
    assert ran.code == 75
    assert ran.state["cause"] == "deadline"
    assert not (node.out / "m").exists()


def test_more_than_fits_is_79_before_the_first_byte(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, size="9000TiB"))
        assert not server.asked
    assert ran.code == 79
    assert node.files() == []


def test_optional_artifact_that_does_not_fit_is_left_out(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(
            node.entry("huge", server.url("/m"), BODY, size="9000TiB", required=False),
            node.entry("m", server.url("/m"), BODY, size=len(BODY)),
        )
    assert ran.code == 2
    assert ran.artifact("huge")["cause"] == "no-room"
    assert node.files() == ["m"]


def test_artifacts_for_other_nodes_are_skipped(node: FakeNode) -> None:
    node.boot_with("role=gpu")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(
            node.entry("mine", server.url("/m"), BODY, when={"cmdline": {"role": ["cpu", "g*"]}}),
            node.entry("theirs", server.url("/m"), BODY, when={"arch": "sparc"}),
        )
    assert ran.code == 0
    assert ran.artifact("theirs")["phase"] == "skipped"
    assert node.files() == ["mine"]
    assert "1 not for this node" in ran.out


def test_secret_header_comes_from_a_credential_and_is_shown_nowhere(node: FakeNode) -> None:
    node.credential("pxe-fetch.token", "Authorization: Bearer s3cret\nX-Site: lab\n")
    with Server({"/m": Script(body=BODY, faults=[Status(503)])}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, **TOKEN))
        assert {asked.fields["authorization"] for asked in server.asked} == {"Bearer s3cret"}
    assert ran.code == 0
    assert "s3cret" not in ran.out + ran.err + node.state_file.read_text()


def test_missing_credential_is_65_and_says_where_it_would_come_from(node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", "http://127.0.0.1/m", BODY, **TOKEN))
    assert ran.code == 65
    assert "the credential pxe-fetch.token" in ran.err
    assert "ImportCredential" in ran.err


@pytest.mark.parametrize("line", ["s3cret", "Authorization: s3cret\u00e9", "Range: bytes=0-s3cret", "X Y: s3cret"])
def test_credential_that_has_no_header_is_65_and_shown_nowhere(node: FakeNode, line: str) -> None:
    node.credential("pxe-fetch.token", f"X-Site: lab\n{line}\n")
    ran = node.run_config(node.entry("m", "http://127.0.0.1/m", BODY, **TOKEN))
    assert ran.code == 65
    assert ran.state["cause"] == "credential-invalid"
    assert "s3cret" not in ran.out + ran.err + node.state_file.read_text()


def test_query_of_a_url_is_shown_nowhere(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, faults=[Status(503)])}) as server:
        ran = node.run_config(node.entry("m", server.url("/m?key=s3cret"), BODY))
    assert ran.code == 0
    assert "s3cret" not in ran.out + ran.err + node.state_file.read_text()


@pytest.mark.parametrize("where", ["artifact", "defaults", "kernel"])
def test_dots_of_a_relative_url_are_resolved_wherever_its_base_stands(node: FakeNode, where: str) -> None:
    with Server({"/site/m": Script(body=BODY)}) as server:
        base = {"base_url": server.url("/site/old/")}
        if where == "kernel":
            node.boot_with(f"pxe-fetch.base_url={base['base_url']}")
        own, defaults = (base if where == one else {} for one in ("artifact", "defaults"))
        ran = node.run_config(node.entry("m", ".././m", BODY, **own), defaults=defaults)
    assert ran.code == 0
    assert [asked.path for asked in server.asked] == ["/site/m"]


def test_digest_may_come_from_a_sha256sums_file(node: FakeNode) -> None:

    sums = f"{'0' * 64}  other\n{hashlib.sha256(BODY).hexdigest()} *./m v1.bin\n".encode()
    entry = {"name": "m", "dest": str(node.out / "m"), "sha256_url": "SHA256SUMS", "url": "m%20v1.bin"}
    with Server({"/SHA256SUMS": Script(body=sums, faults=[cut(0.5)]), "/m%20v1.bin": Script(body=BODY)}) as server:
        node.boot_with(f"pxe-fetch.base_url={server.url('/')}")
        ran = node.run_config(entry)
    assert ran.code == 0
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["sha256"] == hashlib.sha256(BODY).hexdigest()


def test_sha256sums_file_without_the_name_is_an_integrity_failure(node: FakeNode) -> None:
    entry = {"name": "m", "dest": str(node.out / "m")}
    with Server({"/SHA256SUMS": Script(body=b"nothing here\n"), "/m": Script(body=BODY)}) as server:
        ran = node.run_config(entry | {"sha256_url": server.url("/SHA256SUMS"), "url": server.url("/m")})
    assert ran.code == 76
    assert "has no line for m" in ran.out


def test_credentials_do_not_follow_a_redirect_to_another_host(node: FakeNode) -> None:
    node.credential("pxe-fetch.token", "Authorization: Bearer s3cret\n")
    with Server({"/m": Script(body=BODY)}) as other:
        there = other.url("/m").replace("127.0.0.1", "localhost")
        with Server({"/m": Script(then=redirect(there))}) as server:
            ran = node.run_config(node.entry("m", server.url("/m"), BODY, **TOKEN))
        assert ran.code == 0
        assert all("authorization" not in asked.fields for asked in other.asked)


def test_sigterm_keeps_what_has_arrived_and_the_next_run_resumes(node: FakeNode) -> None:
    file = node.folder / "fetch.yaml"
    with Server({"/m": Script(body=BODY, faults=[stall(0.5)])}) as server:
        file.write_text(node.config(node.entry("m", server.url("/m"), BODY, size=len(BODY))))
        process = node.start("run", "--config", str(file))
        while server.sent("/m") < len(BODY) // 2:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)  # what is on its way arrives
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 75
        assert "stopped by SIGTERM" in out
        assert "Traceback" not in err
        state = node.state()
        assert (state["phase"], state["cause"]) == ("failed", "stopped")
        assert not (node.out / "m").exists()

        ran = node.run("run", "--config", str(file))
        assert ran.code == 0
        assert server.sent("/m") == len(BODY)
    assert (node.out / "m").read_bytes() == BODY
    assert node.files() == ["m"]


def test_bug_is_one_line_and_70(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("pxe_fetch.run.plan", break_down)
    ran = node.run_config()
    assert ran.code == 70
    assert "a bug in pxe-fetch: ZeroDivisionError: surprise" in ran.out
    assert "Traceback" not in ran.err
    node.boot_with("pxe-fetch.debug")
    assert "Traceback" in node.run_config().err


@pytest.mark.parametrize("chunks", [None, {"size": "64KiB"}], ids=["whole", "chunks"])
def test_bug_of_the_engine_is_70_and_shown_where_it_is_with_debug(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, chunks: dict[str, object] | None
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("pxe_fetch.transport.http.HttpTransport.open", break_down)
    pieces = chunk_digests(BODY, size=65536)
    chunked = {"chunks": chunks | {"sha256": pieces}, "size": len(BODY)} if chunks else {}
    entry = node.entry("m", "http://127.0.0.1/m", BODY, **chunked)
    ran = node.run_config(entry)
    assert ran.code == 70
    assert "a fault of pxe-fetch itself: ZeroDivisionError: surprise" in ran.out
    assert "Traceback" not in ran.err
    node.boot_with("pxe-fetch.debug")
    assert "in break_down" in node.run_config(entry).err


@dataclass(frozen=True)
class Together:
    """Serves once so many requests are waiting for it."""

    barrier: Barrier

    def answer(self, exchange: Exchange) -> None:
        self.barrier.wait(timeout=10)
        Serve().answer(exchange)


def test_artifacts_are_brought_several_at_once(node: FakeNode) -> None:
    barrier = Barrier(3)
    names = ["a", "b", "c"]
    with Server({f"/{name}": Script(body=SMALL, faults=[Together(barrier)]) for name in names}) as server:
        ran = node.run_config(*(node.entry(name, server.url(f"/{name}"), SMALL) for name in names), parallel=3)
        assert not barrier.broken
    assert ran.code == 0


def test_jitter_beyond_the_deadline_is_75(node: FakeNode) -> None:
    node.boot_with("pxe-fetch.deadline=50ms")
    with Server({"/m": Script(body=SMALL)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), SMALL), start_jitter="10h")
        assert not server.asked
    assert ran.code == 75
