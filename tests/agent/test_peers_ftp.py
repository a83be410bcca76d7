"""By FTP from a real ProFTPD: its order of closing, SIZE switched off, REST, passive ports, and who is kept out."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fakes import waiting
from fakes.daemons import Ftpd, vsftpd
from fakes.node import FakeNode
from fakes.proftpd import Proftpd, proftpd
from fakes.stopwatch import Stopwatch
from pxe_fetch.contract.commands import Exit

BODY = random.Random(75).randbytes(3_000_000)
HERE = 1_234_567
SMALL = {f"s{number}": random.Random(number).randbytes(20_000 + number) for number in range(20)}
NO_SIZE = "<Limit SIZE>\n  DenyAll\n</Limit>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for name, body in {"m.bin": BODY, **SMALL}.items():
        (folder / name).write_bytes(body)
    (folder / "closed").mkdir()
    (folder / "closed/m.bin").write_bytes(BODY)
    folder.chmod(0o555)  # vsftpd serves no one a root folder that they may write to
    return folder


@pytest.fixture(scope="module", params=["", NO_SIZE], ids=["SIZE", "no SIZE"])
def server(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proftpd]:
    closed = f"<Directory {root}/closed>\n  <Limit READ>\n    DenyAll\n  </Limit>\n</Directory>\n"
    folder = tmp_path_factory.mktemp("proftpd") / "run"
    with proftpd(folder, root=root, more=closed + request.param) as running:
        yield running


def test_fetches_a_file_at_the_first_attempt(server: Proftpd, node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", server.url("/m.bin"), BODY, size=len(BODY)))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["attempts"] == 1


def test_goes_on_where_an_earlier_run_ended(server: Proftpd, node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / ".m.pxe-fetch-part").write_bytes(BODY[:HERE])
    ran = node.run_config(node.entry("m", server.url("/m.bin"), BODY))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["bytes_received"] == len(BODY) - HERE
    assert f"REST {HERE}" in server.commands()


def test_its_order_of_closing_costs_no_time(server: Proftpd, node: FakeNode) -> None:
    """It says that a file was sent once the client has closed its end: 1.3 s a file, if that were waited for."""
    entries = [node.entry(name, server.url(f"/{name}"), body) for name, body in SMALL.items()]
    with Stopwatch() as watch:
        ran = node.run_config(*entries, parallel=1)
    assert ran.code == Exit.DONE, ran.err
    assert {name: (node.out / name).read_bytes() for name in SMALL} == SMALL
    assert all(ran.artifact(name)["attempts"] == 1 for name in SMALL)
    assert watch.seconds < 0.2 * len(SMALL), f"{watch.seconds:.1f} s for {len(SMALL)} small files"


def test_small_files_share_connections(server: Proftpd, node: FakeNode) -> None:
    before = server.commands().count("USER anonymous")
    entries = [node.entry(name, server.url(f"/{name}"), body) for name, body in SMALL.items()]
    assert node.run_config(*entries, parallel=2).code == Exit.DONE
    assert server.commands().count("USER anonymous") - before <= 2


@pytest.mark.parametrize("path", ["/no.bin", "/closed/m.bin"])
def test_a_file_that_is_missing_or_closed_is_told_so(path: str, server: Proftpd, node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", server.url(path), BODY))
    assert (ran.code, ran.state["cause"]) == (Exit.NETWORK, "not-found")
    assert re.search("answered 550 ", ran.err)
    assert node.files() == []


def test_who_is_refused_at_the_login_is_told_so_and_asks_once(root: Path, tmp_path: Path, node: FakeNode) -> None:
    with proftpd(tmp_path / "run", root=root, password="not for all") as strict:  # noqa: S106
        ran = node.run_config(node.entry("m", strict.url("/m.bin"), BODY))
    assert (ran.code, ran.state["cause"]) == (Exit.REFUSED, "refused")
    assert "answered 530 " in ran.err
    assert ran.artifact("m")["attempts"] == 1


FULL: Mapping[str, tuple[Callable[..., AbstractContextManager[Proftpd | Ftpd]], str]] = {
    "proftpd, in all": (proftpd, "MaxClients 1\nTransferRate RETR 8000"),
    "proftpd, of this node": (proftpd, "MaxClientsPerHost 1\nTransferRate RETR 8000"),
    "vsftpd, in all": (vsftpd, "max_clients=1\nanon_max_rate=8000000"),
    "vsftpd, of this node": (vsftpd, "max_per_ip=1\nanon_max_rate=8000000"),
}


@pytest.mark.parametrize("limit", FULL)
def test_a_server_that_serves_one_at_a_time_is_waited_for(
    limit: str, root: Path, tmp_path: Path, node: FakeNode
) -> None:
    """ProFTPD refuses the others with the number of a login that fails, 530, and says in words that it is full."""
    start, more = FULL[limit]
    names = [f"m{number}" for number in range(4)]
    with start(tmp_path / "run", root=root, more=more) as full:
        ran = node.run_config(*(node.entry(name, full.url("/m.bin"), BODY) for name in names))
    assert ran.code == Exit.DONE, ran.err
    assert all((node.out / name).read_bytes() == BODY for name in names)


def test_a_server_that_ends_in_the_middle_and_comes_back_is_resumed(root: Path, tmp_path: Path, node: FakeNode) -> None:
    with proftpd(tmp_path / "run", root=root, more="TransferRate RETR 1500") as slow:
        file = node.folder / "fetch.yaml"
        retry = {"attempts_without_progress": 10_000, "base": "20ms", "max": "100ms"}  # for a server that starts slowly
        file.write_text(node.config(node.entry("m", slow.url("/m.bin"), BODY), defaults={"retry": retry}))
        part = node.out / ".m.pxe-fetch-part"
        with node.start("run", "--config", str(file)) as process:
            try:
                waiting.until(lambda: part.exists() and part.stat().st_size)
                slow.process.kill()
                waiting.until(lambda: "refused the connection" in str(node.state()))
            finally:
                slow.process.start()
            _, err = process.communicate(timeout=60)
        assert process.returncode == Exit.DONE, err
    assert (node.out / "m").read_bytes() == BODY
    assert any(command.startswith("REST ") for command in slow.commands())
