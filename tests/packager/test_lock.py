"""`pxe-pack lock`: digests of artifacts that have none, from every mirror, and what packing makes of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from fakes.chunks import chunk_digests
from fakes.faults import Demand, Serve, Status, cut, drip, redirect
from fakes.ftp import Breach, BreakingFtp
from fakes.nginx import nginx
from fakes.server import Script, Server
from packing.checking import Checked
from packing.ordinary import ordinary_user
from packing.site import Site, files_of
from pxe_fetch.contract import reader
from pxe_fetch.contract.model import Artifact, Digest
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]

MiB = 1 << 20
BODY = random.Random(39).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = b"other bytes\n"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/m.bin": Script(body=BODY)}) as server:
        yield server


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def artifact(*urls: str, **others: object) -> dict[str, object]:
    retry = {"attempts_without_progress": 3, "base": "10ms", "max": "20ms"}
    return {"name": "model", "urls": list(urls), "dest": "/srv/model", "retry": retry} | others


def write(*artifacts: dict[str, object], **others: object) -> None:
    Path("fetch.yaml").write_text(json.dumps({"version": 1, **others, "artifacts": list(artifacts)}))


def locked() -> dict[str, dict[str, object]]:
    """The entries of the lock file, as another program reads YAML."""
    entries = yaml.safe_load(Path("fetch.lock").read_text())["artifacts"]
    return {entry["name"]: entry for entry in entries}


def lock(*arguments: str) -> int:
    return cli.main(["lock", *arguments, "fetch.yaml"])


def packed(site: Site) -> Artifact:
    """The artifact as a node of the layout is told of it."""
    text = files_of(site.iso)["updates/etc/pxe-fetch/fetch.yaml"].decode()
    return reader.read(text, name="fetch.yaml").artifacts[0]


def test_an_artifact_without_a_digest_is_locked_and_packed_with_it(site: Site, packs: Packs, server: Server) -> None:
    site.rest = {"artifacts": [artifact(server.url("/m.bin"))]}
    site.write_config()
    assert lock() == 0
    assert locked()["model"] | {"time": ""} == {
        "name": "model",
        "url": server.url("/m.bin"),
        "time": "",
        "size": len(BODY),
        "sha256": SHA256,
    }
    packs()
    found = packed(site)
    assert (found.digest, found.size) == (Digest(algorithm="sha256", hex=SHA256), len(BODY))
    inputs = site.manifest()["inputs"]
    assert isinstance(inputs, list)
    assert [one["role"] for one in inputs if one["name"] == "fetch.lock"] == ["lock"]


def test_the_mirrors_of_all_tiers_are_locked_and_caches_of_a_base_are_not_asked(
    site: Site, packs: Packs, server: Server
) -> None:
    with Server({"/m.bin": Script(body=BODY)}) as origin, Server() as cache:
        tiers = {origin.url("/"): [cache.url("/")]}
        urls = [[server.url("/m.bin")], origin.url("/m.bin")]
        site.rest = {"artifacts": [artifact() | {"urls": urls}], "defaults": {"tiers": tiers}}
        site.write_config()
        assert lock() == 0
        assert locked()["model"]["urls"] == [server.url("/m.bin"), origin.url("/m.bin")]
        packs()
        found = packed(site)
        assert found.mirrors == ((server.url("/m.bin"),), (origin.url("/m.bin"),))
        assert found.tiers == {origin.url("/"): ((cache.url("/"),),)}
        assert not cache.asked


def test_without_a_lock_packing_names_the_command(site: Site, refused: Refused, server: Server) -> None:
    site.rest = {"artifacts": [artifact(server.url("/m.bin"))]}
    told = refused()
    assert "error[checksum-missing]" in told
    assert "run `pxe-pack lock FILE`" in told


def test_dry_run_and_check_take_the_lock(
    site: Site, server: Server, checked: Callable[..., Checked], capsys: pytest.CaptureFixture[str]
) -> None:
    site.rest = {"artifacts": [artifact(server.url("/m.bin"))]}
    site.write_config()
    assert lock() == 0
    assert cli.main(site.command("--dry-run")) == 0
    capsys.readouterr()
    assert "checksum-missing" not in checked(site.image, "--agent-config", site.config).found


def test_a_large_artifact_has_chunk_digests_that_its_node_gets(site: Site, packs: Packs, tmp_path: Path) -> None:
    large = random.Random(1).randbytes(32 * MiB + 1)
    root = tmp_path / "served"
    root.mkdir()
    (root / "m.bin").write_bytes(large)
    with nginx(root=root, folder=tmp_path / "nginx") as server:
        site.rest = {"artifacts": [artifact(server.url("/m.bin"))]}
        site.write_config()
        assert lock() == 0
    digests = chunk_digests(large, size=4 * MiB)
    assert locked()["model"]["chunks"] == {"size": "4MiB", "sha256": digests}
    packs()
    found = packed(site)
    assert found.chunks is not None
    assert (found.chunks.size, found.chunks.digests.hex()) == (4 * MiB, "".join(digests))
    assert found.digest is None  # the node would read the file twice


def test_a_download_that_is_cut_resumes_where_it_was(server: Server) -> None:
    server.scripts["/m.bin"] = Script(body=BODY, faults=[cut(0.5), cut(0.75)])
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    assert locked()["model"]["sha256"] == SHA256
    assert [asked.range for asked in server.asked][1:] == ["bytes=150000-", "bytes=225000-"]
    assert all(asked.if_range for asked in server.asked[1:])


def test_a_file_that_changes_while_it_is_downloaded_is_never_mixed(server: Server) -> None:
    changed = bytes(reversed(BODY))
    server.scripts["/m.bin"] = Script(body=BODY, faults=[cut(0.5)], then=Serve(body=changed))
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    assert locked()["model"]["sha256"] == hashlib.sha256(changed).hexdigest()


def test_a_file_without_a_strong_etag_starts_over(server: Server) -> None:
    server.scripts["/m.bin"] = Script(body=BODY, faults=[Serve(etag="weak", until=0.5)])
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    assert locked()["model"]["sha256"] == SHA256
    assert [asked.range for asked in server.asked] == [None, None]


def test_all_mirrors_are_asked_and_one_with_other_bytes_is_named_with_the_first(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.scripts |= {"/same": Script(body=BODY), "/other": Script(body=OTHER)}
    write(artifact(*map(server.url, ("/m.bin", "/same", "/other"))))
    assert lock() == 1
    told = capsys.readouterr().err
    assert "error[lock-mirrors-differ]: the mirrors of model have different bytes" in told
    for url, body in ((server.url("/m.bin"), BODY), (server.url("/other"), OTHER)):
        assert f"{url} has {len(body):,} bytes with sha256 {hashlib.sha256(body).hexdigest()}" in told
    assert server.url("/same") not in told
    assert not Path("fetch.lock").exists()


def test_a_mirror_that_does_not_have_the_file_is_named(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.scripts["/gone"] = Script(then=Status(404))
    write(artifact(server.url("/m.bin"), server.url("/gone")))
    assert lock() == 1
    told = capsys.readouterr().err
    assert f"error[lock-download]: cannot download model from {server.url('/gone')}: " in told
    assert "404" in told
    assert not Path("fetch.lock").exists()


def test_where_redirects_lead_to_is_recorded_without_its_query(server: Server) -> None:
    server.scripts["/latest"] = Script(then=redirect("/m.bin?signature=secret"))
    write(artifact(server.url("/latest"), server.url("/m.bin")))
    assert lock() == 0
    assert locked()["model"]["final_urls"] == [server.url("/m.bin")] * 2
    assert "secret" not in Path("fetch.lock").read_text()


def test_a_web_page_instead_of_the_file_is_warned_of(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.scripts["/m.bin"] = Script(body=b"<html>sign in</html>", then=Serve(fields={"Content-Type": "text/html"}))
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    told = capsys.readouterr().err
    assert "warning[lock-remark]" in told
    assert "sent as text/html: a web page" in told


def test_ftp_is_locked_like_http() -> None:
    with BreakingFtp(BODY, Breach()) as server:
        write(artifact(server.url))
        assert lock() == 0
    assert locked()["model"]["sha256"] == SHA256


def test_secret_headers_are_sent_as_on_a_node(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pxe-fetch.token").write_text("Authorization: Bearer t0k3n\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    server.scripts["/m.bin"] = Script(body=BODY, then=Demand(name="Authorization", value="Bearer t0k3n"))
    write(artifact(server.url("/m.bin"), header_credential="pxe-fetch.token", insecure=True))
    assert lock() == 0
    assert locked()["model"]["sha256"] == SHA256
    assert "t0k3n" not in Path("fetch.lock").read_text()


def test_a_missing_credential_is_told_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    other = artifact(server.url("/m.bin"), name="other", dest="/srv/other")
    write(other, artifact(server.url("/m.bin"), header_credential="pxe-fetch.token", insecure=True))
    assert lock() == 1
    told = capsys.readouterr().err
    assert told.count("error[lock-download]: the agent downloads nothing: ") == 1
    assert "the credential pxe-fetch.token" in told
    assert "$CREDENTIALS_DIRECTORY" in told


def test_an_ordinary_user_locks_without_a_runtime_directory(server: Server) -> None:
    with ordinary_user() as user:
        write(artifact(server.url("/m.bin")))
        shutil.move("fetch.yaml", user.home)
        done = user.run(sys.executable, "-m", "pxe_pack", "lock", "fetch.yaml", env={"XDG_RUNTIME_DIR": ""})
        assert done.returncode == 0, done.stderr
        assert f"sha256: {SHA256}" in (user.home / "fetch.lock").read_text()


def test_a_fact_in_a_url_is_refused_unless_when_has_one_value_for_it(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.url("/${arch}/${cmdline.role}.bin")
    write(artifact(url))
    assert lock() == 2
    told = capsys.readouterr().err
    assert "error[lock-facts]: the artifact model cannot be locked: it uses ${arch}" in told
    assert "with `when: {arch: VALUE}`" in told
    write(artifact(url, when={"arch": ["x86_64", "aarch64"], "cmdline": {"role": "gpu"}}))
    assert lock() == 2
    write(artifact(url, when={"arch": "x86*", "cmdline": {"role": "gpu"}}))
    assert lock() == 2
    assert server.asked == []
    server.scripts["/x86_64/gpu.bin"] = Script(body=BODY)
    write(artifact(url, when={"arch": "x86_64", "cmdline": {"role": "gpu"}}))
    assert lock() == 0
    assert (locked()["model"]["url"], locked()["model"]["sha256"]) == (url, SHA256)


def test_a_relative_url_is_joined_to_its_base_and_refused_without_one(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    write(artifact("m.bin"))
    assert lock() == 2
    assert "error[lock-relative]" in capsys.readouterr().err
    write(artifact("m.bin"), defaults={"base_url": server.url("/")})
    assert lock() == 0
    assert locked()["model"]["url"] == server.url("/m.bin")


def test_what_is_locked_is_not_downloaded_again_and_the_file_stays_byte_for_byte(server: Server) -> None:
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    before, asked = Path("fetch.lock").read_bytes(), len(server.asked)
    assert lock() == 0
    assert (Path("fetch.lock").read_bytes(), len(server.asked)) == (before, asked)
    assert sorted(path.name for path in Path().iterdir()) == ["fetch.lock", "fetch.yaml"]


def test_the_order_of_artifacts_and_mirrors_does_not_matter(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1796000000")
    server.scripts["/b"] = Script(body=BODY)
    one = artifact(server.url("/m.bin"), server.url("/b"))
    other = artifact(server.url("/b"), name="a", dest="/srv/a")
    write(one, other)
    assert lock() == 0
    before = Path("fetch.lock").read_bytes()
    assert b"2026-11-30T" in before
    write(other, one | {"urls": [server.url("/b"), server.url("/m.bin")]})
    assert lock("--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kept"] == ["a", "model"]
    Path("fetch.lock").unlink()
    write(other, one)
    assert lock() == 0
    assert Path("fetch.lock").read_bytes() == before


def test_upgrade_takes_what_is_there_now_of_the_named_artifact_alone(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.scripts["/b"] = Script(body=BODY)
    write(artifact(server.url("/m.bin")), artifact(server.url("/b"), name="b", dest="/srv/b"))
    assert lock() == 0
    server.scripts |= {"/m.bin": Script(body=OTHER), "/b": Script(body=OTHER)}
    assert lock("--upgrade", "model", "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["changed"], result["kept"]) == (["model"], ["b"])
    assert locked()["model"]["sha256"] == hashlib.sha256(OTHER).hexdigest()
    assert locked()["b"]["sha256"] == SHA256


def test_upgrade_of_what_has_not_changed_leaves_its_time(server: Server) -> None:
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    text = Path("fetch.lock").read_text().replace(str(locked()["model"]["time"]), "2020-01-01T00:00:00Z")
    Path("fetch.lock").write_text(text)
    assert lock("--upgrade", "model") == 0
    assert Path("fetch.lock").read_text() == text


def test_upgrade_of_an_unknown_artifact_is_refused(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write(artifact(server.url("/m.bin")))
    assert lock("--upgrade", "modle") == 2
    assert "error[lock-unknown]" in capsys.readouterr().err


def test_check_ends_with_3_once_a_mirror_has_other_bytes_and_writes_nothing(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.scripts["/b"] = Script(body=BODY)
    write(artifact(server.url("/m.bin"), server.url("/b")))
    assert lock() == 0
    before = Path("fetch.lock").read_bytes()
    assert lock("--check") == 0
    assert "the lock file is up to date" in capsys.readouterr().out
    server.scripts["/b"] = Script(body=OTHER)
    assert lock("--check") == 3
    told = capsys.readouterr().out
    assert f"error[lock-changed]: model has changed: {server.url('/b')} has {len(OTHER)} bytes" in told
    assert f"{len(BODY):,} bytes with sha256 {SHA256} were locked on" in told
    assert Path("fetch.lock").read_bytes() == before


def test_check_ends_with_1_if_all_that_is_wrong_is_a_mirror_that_cannot_be_read(server: Server) -> None:
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    server.scripts["/m.bin"] = Script(then=Status(404))
    assert lock("--check") == 1


def test_check_ends_with_3_if_something_is_not_locked(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    write(artifact(server.url("/m.bin")))
    assert lock("--check") == 3
    assert "error[lock-stale]: the artifact model has no digest, and no entry in fetch.lock" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"urls": ["http://127.0.0.1:9/m.bin"]}, "has other URLs than in fetch.lock"),
        ({"size": 7}, f"has `size: 7`, but {len(BODY)} bytes in fetch.lock"),
        ({"sha256": SHA256}, "has an entry for the artifact model, which has a digest of its own, or a source"),
        ({"name": "renamed"}, "has no digest"),
    ],
)
def test_a_lock_that_does_not_fit_the_configuration_is_told(
    site: Site,
    refused: Refused,
    server: Server,
    change: dict[str, object],
    sentence: str,
) -> None:
    site.rest = {"artifacts": [artifact(server.url("/m.bin"))]}
    site.write_config()
    assert lock() == 0
    site.rest = {"artifacts": [artifact(server.url("/m.bin")) | change]}
    told = refused()
    assert sentence.replace("fetch.lock", str(site.folder / "fetch.lock")) in told
    assert f"pxe-pack lock {site.config}" in told or "`pxe-pack lock FILE`" in told


def test_an_entry_whose_artifact_is_gone_is_told_at_its_line_and_removed_by_the_next_lock(
    site: Site, refused: Refused, packs: Packs, server: Server
) -> None:
    server.scripts["/b"] = Script(body=BODY)
    other = artifact(server.url("/b"), name="other", dest="/srv/other")
    site.rest = {"artifacts": [artifact(server.url("/m.bin")), other]}
    site.write_config()
    assert lock() == 0
    line = Path("fetch.lock").read_text().splitlines().index("- name: other") + 1
    site.rest = {"artifacts": [artifact(server.url("/m.bin"))]}
    told = refused()
    assert "an entry for the artifact other, which is gone in" in told
    assert f"fetch.lock:{line}:3" in told
    assert lock() == 0
    assert [*locked()] == ["model"]
    packs()


@pytest.mark.parametrize(
    ("text", "reference", "place"),
    [
        ("[]", "wrong-type", ":1:1"),
        ("version: 2\n", "number-out-of-range", ":1:10"),
        ("version: 1\nartifacts:\n- name: a\n  url: http://h/a\n", "size-missing", ":3:3"),
        ("version: 1\nartifacts:\n- {name: a, url: 'http://h/a', size: 1, time: now}\n", "time-invalid", ":3:47"),
        ("version: 1\nartifacts:\n- {name: a, size: 1}\n", "source-unclear", ":3:3"),
        ("version: 1\nartifacts:\n- {name: a, sha256: beef}\n", "checksum-invalid", ":3:21"),
        ("version: 1\nartifacts:\n- {name: a, size: 9, chunks: {size: 64KiB, sha256: []}}\n", "chunk-count", ":3"),
        ("version: 1\nsurprise: 1\n", "unknown-key", ":2:1"),
        ("version: 1\nartifacts: [\n", "yaml-syntax", ":3:1"),
        ("version: 1\nartifacts: &a [*a]\n", "yaml-syntax", ":2:16"),
        ("a" * (1 << 20) + "a", "document-too-large", "fetch.lock"),
    ],
)
def test_a_lock_file_is_checked_as_any_input(
    site: Site, refused: Refused, text: str, reference: str, place: str
) -> None:
    (site.folder / "fetch.lock").write_text(text)
    told = refused()
    assert f"error[{reference}]" in told
    assert place in told


def test_a_merge_conflict_in_the_lock_is_told_as_what_it_is(site: Site, refused: Refused) -> None:
    (site.folder / "fetch.lock").write_text("version: 1\n<<<<<<< HEAD\nartifacts: []\n=======\n>>>>>>> theirs\n")
    said = refused()
    assert "error[lock-conflict]: " in said
    assert "fetch.lock:2 has the mark of a merge conflict" in said


def test_a_lock_file_that_is_not_text_is_refused(site: Site, refused: Refused) -> None:
    (site.folder / "fetch.lock").write_bytes(b"\xff\xfe")
    assert "error[lock-unreadable]" in refused()


def test_damaged_lock_files_are_refused_without_a_traceback(server: Server) -> None:
    write(artifact(server.url("/m.bin")))
    assert lock() == 0
    whole = Path("fetch.lock").read_bytes()
    chance = random.Random(7)
    codes = set()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
        Path("fetch.lock").write_bytes(damaged)
        codes.add(cli.main(["--agent-config", "fetch.yaml", "--dry-run", "--quiet"]))
    assert codes == {2}


def test_ctrl_c_leaves_no_lock_file_no_folder_and_no_agent(server: Server, tmp_path: Path) -> None:
    server.scripts["/m.bin"] = Script(body=BODY, then=drip(1000, every=0.05))
    write(artifact(server.url("/m.bin")))
    command = [sys.executable, "-m", "pxe_pack", "lock", "fetch.yaml"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path, start_new_session=True) as process:
        until = time.monotonic() + 30
        while not server.asked and time.monotonic() < until:
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["fetch.yaml"]
    assert not any(Path("/proc", child).exists() for child in children)


def test_progress_is_told_while_a_slow_server_sends(server: Server, tmp_path: Path) -> None:
    server.scripts["/m.bin"] = Script(body=BODY, then=drip(len(BODY) - 60, every=0.05))
    write(artifact(server.url("/m.bin")))
    command = [sys.executable, "-m", "pxe_pack", "lock", "--json", "fetch.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    progress = [event["done"] for event in events if event["event"] == "progress"]
    assert any(0 < done < len(BODY) for done in progress)
    assert [event["done"] for event in events if event.get("state") == "ended"] == [len(BODY)]


def test_artifacts_are_downloaded_in_parallel(server: Server) -> None:
    both = threading.Barrier(2)

    class Together(Serve):
        def answer(self, exchange: object) -> None:
            both.wait(timeout=30)  # neither gets a byte before the other has asked
            super().answer(exchange)  # type: ignore[arg-type]

    server.scripts |= {"/a": Script(body=BODY, then=Together()), "/b": Script(body=OTHER, then=Together())}
    write(artifact(server.url("/a"), name="a", dest="/srv/a"), artifact(server.url("/b"), name="b", dest="/srv/b"))
    assert lock() == 0
    assert sorted(locked()) == ["a", "b"]
