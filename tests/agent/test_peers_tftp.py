"""By TFTP from the server that dnsmasq has, as most sites that boot by PXE have it: RFC 1350, 2347, 2348, 2349."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.dnsmasq import Dnsmasq, dnsmasq
from fakes.node import Entry, FakeNode
from pxe_fetch.contract.commands import Exit

BODY = random.Random(76).randbytes(300_000)
# Blocks of 512 bytes have numbers of 16 bits: after 32 MiB they begin again at 0.
HUGE = random.Random(77).randbytes((32 << 20) + 100_000)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    folder.chmod(0o755)
    for name, body in {"m.bin": BODY, "empty": b"", "even": BODY[: 1468 * 10], "huge": HUGE}.items():
        (folder / name).write_bytes(body)
    return folder


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dnsmasq]:
    with dnsmasq(tmp_path_factory.mktemp("dnsmasq") / "run", root=root) as running:
        yield running


def fetch(node: FakeNode, server: Dnsmasq, *entries: Entry, timeout: int = 60) -> int:
    """The exit code of a run in the server's network."""
    file = node.folder / "fetch.yaml"
    file.write_text(node.config(*entries))
    process = node.start("run", "--config", str(file), inside=server.inside)
    _, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err
    return process.returncode


def told(node: FakeNode, name: str) -> dict[str, object]:
    artifacts = node.state()["artifacts"]
    assert isinstance(artifacts, list)
    (found,) = [one for one in artifacts if one["name"] == name]
    assert isinstance(found, dict)
    return found


def test_fetches_files_of_every_size(server: Dnsmasq, node: FakeNode) -> None:
    """One that fills its last block is followed by an empty one."""
    bodies = {"m.bin": BODY, "empty": b"", "even": BODY[: 1468 * 10]}
    code = fetch(node, server, *(node.entry(name, server.url(f"/{name}"), body) for name, body in bodies.items()))
    assert code == Exit.DONE
    assert {name: (node.out / name).read_bytes() for name in bodies} == bodies
    assert told(node, "m.bin")["attempts"] == told(node, "even")["attempts"] == 1


def test_the_size_that_it_tells_is_the_total(server: Dnsmasq, node: FakeNode) -> None:
    assert fetch(node, server, node.entry("m", server.url("/m.bin"), BODY)) == Exit.DONE
    assert told(node, "m")["total"] == len(BODY)


def test_a_file_of_another_size_is_told_so(server: Dnsmasq, node: FakeNode) -> None:
    entry = node.entry("m", server.url("/m.bin"), BODY + b"more", size=len(BODY) + 4)
    assert fetch(node, server, entry) in {Exit.NETWORK, Exit.INTEGRITY}
    assert str(len(BODY)) in str(told(node, "m")["error"])
    assert node.files() == []


def test_a_file_of_more_blocks_than_there_are_numbers_is_whole(root: Path, tmp_path: Path, node: FakeNode) -> None:
    with dnsmasq(tmp_path / "run", root=root, more=["--tftp-no-blocksize"]) as server:
        assert fetch(node, server, node.entry("m", server.url("/huge"), HUGE)) == Exit.DONE
    assert (node.out / "m").read_bytes() == HUGE
    assert told(node, "m")["attempts"] == 1


def test_a_missing_file_is_told_so(server: Dnsmasq, node: FakeNode) -> None:
    assert fetch(node, server, node.entry("m", server.url("/no.bin"), BODY)) == Exit.NETWORK
    assert told(node, "m")["cause"] == "not-found"
    assert "not found" in server.log()
    assert node.files() == []


def test_what_lies_outside_its_folder_is_refused(server: Dnsmasq, node: FakeNode) -> None:
    code = fetch(node, server, node.entry("m", server.url("//etc/hostname"), BODY))
    assert (code, told(node, "m")["cause"]) in {(Exit.NETWORK, "not-found"), (Exit.REFUSED, "refused")}


def test_a_server_that_is_not_there_is_told_so(server: Dnsmasq, node: FakeNode) -> None:
    entry = node.entry("m", "tftp://127.0.0.1:70/m.bin", BODY, timeouts={"connect": "500ms", "read": "500ms"})
    assert fetch(node, server, entry) == Exit.NETWORK
    assert "127.0.0.1:70" in str(told(node, "m")["error"])
