"""Files that somebody else names: a FIFO, a device or a huge one neither blocks a run nor fills the memory."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fakes.node import FakeNode
from fakes.server import Script, Server

BODY = random.Random(12).randbytes(5_000)
KINDS = ("fifo", "device", "huge", "folder")
SECONDS = 20  # more than any run here takes; one that waits for a FIFO's writer takes for ever
# Nothing here needs more memory: a gibibyte of address space beyond what Python itself has.
WITH_LITTLE_MEMORY = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"


def put(kind: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case _:
            path.touch()
            os.truncate(path, 100 << 30)
    return path


def run(node: FakeNode, *words: str) -> tuple[int, str]:
    """The exit code, and everything that was printed."""
    with node.start(*words, before=WITH_LITTLE_MEMORY) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except BaseException:
            process.kill()
            raise
    assert "Traceback" not in err
    return process.returncode, out + err


def run_config(node: FakeNode, config: str) -> tuple[int, str]:
    return run(node, "run", "--config", str(node.write("fetch.yaml", config)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["run", "check", "etc", "credential", "cmdline"])
def test_a_configuration_that_is_no_regular_file_is_65(kind: str, place: str, node: FakeNode) -> None:
    words = ["run"]
    match place:
        case "run":
            words = ["run", "--config", str(put(kind, node.folder / "odd.yaml"))]
        case "check":
            words = ["check", str(put(kind, node.folder / "odd.yaml"))]
        case "etc":
            put(kind, node.root / "etc/pxe-fetch/fetch.yaml")
        case "credential":
            put(kind, node.folder / "credentials/pxe-fetch.config")
            node.environment["CREDENTIALS_DIRECTORY"] = str(node.folder / "credentials")
        case _:
            node.boot_with(f"pxe-fetch.config=file://{put(kind, node.folder / 'odd.yaml')}")
    code, said = run(node, *words)
    assert code == 65
    assert ("config-too-large" if kind == "huge" else "it is not a regular file") in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["header_credential", "query_credential", "proxy"])
def test_a_credential_that_is_no_regular_file_is_65(kind: str, key: str, node: FakeNode) -> None:
    put(kind, node.folder / "credentials/pxe-fetch.token")
    node.environment["CREDENTIALS_DIRECTORY"] = str(node.folder / "credentials")
    entry = node.entry("m", "https://127.0.0.1:1/m", BODY)
    if key == "proxy":
        config = node.config(entry, proxy={"https": "http://127.0.0.1:1", "credential": "pxe-fetch.token"})
    else:
        config = node.config({**entry, key: "pxe-fetch.token"})
    code, said = run_config(node, config)
    assert code == 65
    assert "the credential pxe-fetch.token cannot be read: it is " in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["ca_file", "client_cert", "client_key"])
def test_a_file_of_tls_that_is_no_regular_file_is_78(kind: str, key: str, node: FakeNode) -> None:
    odd, good = put(kind, node.folder / "odd.pem"), "/etc/ssl/certs/ca-certificates.crt"
    tls = {"client_cert": good, key: str(odd)} if key == "client_key" else {key: str(odd)}
    config = node.config(node.entry("m", "https://127.0.0.1:1/m", BODY), tls={"ca_file": good, **tls})
    code, said = run_config(node, config)
    assert code == 78
    assert "cannot be used: it is " in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["sha256_url", "chunks"])
def test_a_list_that_is_no_regular_file_fails_the_artifact_whose_only_digest_it_is(
    kind: str, key: str, node: FakeNode
) -> None:
    odd = f"file://{put(kind, node.folder / 'odd')}"
    with Server({"/m": Script(body=BODY)}) as server:
        entry = dict(node.entry("m", server.url("/m"), BODY))
        del entry["sha256"]
        chunks = {"size": "64KiB", "url": odd, "sha256": "0" * 64}
        entry |= {"sha256_url": odd} if key == "sha256_url" else {"size": len(BODY), "chunks": chunks}
        code, said = run_config(node, node.config(entry))
        assert not server.asked
    assert code == 77
    assert ("is not a regular file" if kind != "huge" else "bytes") in said
    assert node.files() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_chunk_digests_that_is_no_regular_file_is_done_without(kind: str, node: FakeNode) -> None:
    odd = f"file://{put(kind, node.folder / 'odd')}"
    with Server({"/m": Script(body=BODY)}) as server:
        chunks = {"size": "64KiB", "url": odd, "sha256": "0" * 64}
        entry = node.entry("m", server.url("/m"), BODY, size=len(BODY), chunks=chunks)
        code, said = run_config(node, node.config(entry))
    assert code == 0
    assert ("is not a regular file" if kind != "huge" else "bytes") in said
    assert node.files() == ["m"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_at_a_file_url_that_is_no_regular_file_fails(kind: str, node: FakeNode) -> None:
    code, _ = run_config(node, node.config(node.entry("m", f"file://{put(kind, node.folder / 'm')}", BODY, size=5_000)))
    assert code == (76 if kind == "huge" else 77)
    assert node.files() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_no_regular_file_is_not_read(kind: str, node: FakeNode) -> None:
    put(kind, node.state_file)
    code, said = run(node, "status")
    assert code != 0
    assert str(node.state_file) in said
    with Server({"/m": Script(body=BODY)}) as server:
        code, said = run_config(node, node.config(node.entry("m", server.url("/m"), BODY)))
    assert code == 0
    assert "starting afresh" in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["proc/cmdline", "etc/machine-id"])
def test_a_fact_whose_file_is_no_regular_file_is_empty(kind: str, path: str, node: FakeNode) -> None:
    (node.root / path).unlink(missing_ok=True)
    put(kind, node.root / path)
    code, said = run_config(node, node.config(node.entry("m", "http://127.0.0.1:1/${machine_id}${cmdline.x}", BODY)))
    assert code == 65
    assert "fact-empty" in said
