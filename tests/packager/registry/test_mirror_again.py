"""A mirror in a registry that is made again: after failures, interruptions and changes."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import registry as fake
from fakes import waiting
from fakes.exchange import Exchange
from fakes.faults import Serve, Status, cut, drip
from fakes.node import FakeNode
from fakes.registry import Registry
from fakes.server import Script, Server
from packing.mirroring import BODY, Mirroring, chunks, folder_of, uploads
from packing.registries import Fails, Runs


def test_a_second_run_downloads_and_pushes_nothing(
    mirroring: Mirroring, runs: Runs, server: Server, registry: Registry
) -> None:
    mirroring.write(
        mirroring.artifact("m", server.url("/models/m.bin")),
        mirroring.artifact("c", server.url("/models/m.bin?c"), chunks=chunks(), size=len(BODY)),
        mirroring.artifact("s", server.url("/n.bin"), sha256_url=server.url("/SHA256SUMS")),
    )
    server.scripts["/SHA256SUMS"] = Script(body=f"{hashlib.sha256(b'second').hexdigest()}  n.bin\n".encode())
    first = runs(*mirroring.words)
    asked, pushed = len(server.asked), uploads(registry, mirroring.place)
    second = runs(*mirroring.words)
    assert (second["reference"], second["received"], second["sent"]) == (first["reference"], 0, 0)
    assert ([one.path for one in server.asked[asked:]], uploads(registry, mirroring.place)) == (["/SHA256SUMS"], pushed)
    server.scripts["/n.bin"] = Script(body=b"third")
    server.scripts["/SHA256SUMS"] = Script(body=f"{hashlib.sha256(b'third').hexdigest()}  n.bin\n".encode())
    third = runs(*mirroring.words)
    assert (third["received"], third["sent"]) == (len(b"third"), len(b"third"))


def test_a_repository_without_the_files_that_are_recorded_gets_them(
    mirroring: Mirroring, runs: Runs, server: Server
) -> None:
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")))
    first = runs(*mirroring.words)
    mirroring.place = mirroring.place.replace("/mirror/", "/moved/")
    second = runs(*mirroring.words)
    assert (second["received"], second["sent"]) == (len(BODY), len(BODY) + 2)
    assert str(second["reference"]).rpartition("@")[2] == str(first["reference"]).rpartition("@")[2]
    assert mirroring.new()["artifacts"][0]["oci"] == second["reference"]


def test_an_artifact_that_is_gone_leaves_the_manifest_and_its_digest_changes(
    mirroring: Mirroring, runs: Runs, server: Server
) -> None:
    second = mirroring.artifact("n", server.url("/n.bin"), sha256=hashlib.sha256(b"second").hexdigest())
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")), second)
    first = runs(*mirroring.words)
    mirroring.write(second)
    result = runs(*mirroring.words)
    assert result["files"] == [f"{folder_of(server)}/n.bin"]
    assert result["reference"] != first["reference"]
    assert list(json.loads((mirroring.output / "layers.json").read_text())["files"]) == result["files"]


@pytest.fixture
def failing(tmp_path: Path, _no_pauses: None) -> Iterator[Registry]:
    """A registry of this test's own, whose failures cost no time."""
    with fake.registry(tmp_path / "failing") as running:
        yield running


@pytest.mark.parametrize("failure", ["gone", "refuses"])
def test_a_registry_that_fails_in_the_middle_gets_the_rest_from_the_next_run(
    failing: Registry, node: FakeNode, runs: Runs, fails: Fails, failure: str
) -> None:
    registry, tmp_path = failing, node.folder.parent
    with Server({"/m": Script(body=BODY)}) as origin:

        class Failing(Serve):
            def answer(self, exchange: Exchange) -> None:
                if failure == "gone":
                    registry.process.kill()
                else:
                    registry.restart(auth={"htpasswd": {"realm": "site", "path": f"{registry.config.parent}/htpasswd"}})
                super().answer(exchange)

        origin.scripts["/n"] = Script(body=b"second", then=Failing())
        mirroring = Mirroring(tmp_path, f"{registry.place}/site/mirror:v1", node)
        second = mirroring.artifact("n", origin.url("/n"), sha256=hashlib.sha256(b"second").hexdigest())
        mirroring.write(mirroring.artifact("m", origin.url("/m")), second, parallel=1)
        told = fails(*mirroring.words)
        assert f"error[registry-{'unreachable' if failure == 'gone' else 'refused'}]" in told
        assert not (mirroring.output / "fetch.yaml").exists()
        registry.restart(auth={})
        result = runs(*mirroring.words)
        assert (result["received"], result["sent"]) == (0, len(b"second"))  # the registry has m, this disk has n
        assert [one.path for one in origin.asked] == ["/m", "/n"]
        mirroring.run_node()
        assert (node.out / "m").read_bytes() == BODY


def test_a_download_that_failed_is_resumed_and_the_other_files_are_there_already(
    mirroring: Mirroring, runs: Runs, fails: Fails, server: Server
) -> None:
    server.scripts["/models/m.bin"] = Script(body=BODY, faults=[cut(0.5)], then=Status(503))
    second = mirroring.artifact("n", server.url("/n.bin"), sha256=hashlib.sha256(b"second").hexdigest())
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")), second)
    assert "error[mirror-download]" in fails(*mirroring.words)
    assert not (mirroring.output / "fetch.yaml").exists()
    server.scripts["/models/m.bin"] = Script(body=BODY)
    result = runs(*mirroring.words)
    assert (result["received"], len(server.asked_for("/n.bin"))) == (len(BODY) // 2, 1)


def test_an_interrupted_run_leaves_what_the_next_one_resumes(mirroring: Mirroring, runs: Runs, server: Server) -> None:
    body = random.Random(1).randbytes(8 << 20)
    server.scripts["/models/m.bin"] = Script(body=body, faults=[drip(0.5, every=0.05)])
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin"), sha256=hashlib.sha256(body).hexdigest()))
    with subprocess.Popen([sys.executable, "-m", "pxe_pack", *mirroring.words], stderr=subprocess.DEVNULL) as process:
        waiting.until(lambda: [*mirroring.output.rglob("*.pxe-fetch-part*")])
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert {path.name for path in mirroring.output.iterdir()} == {"layers.json", "downloads"}
    runs(*mirroring.words)
    assert server.asked[-1].range is not None


def test_no_more_files_than_are_fetched_at_a_time_are_on_disk(mirroring: Mirroring, runs: Runs) -> None:
    found: list[int] = []

    class Looking(Serve):
        def answer(self, exchange: Exchange) -> None:
            here = mirroring.output / "downloads"
            found.append(sum(path.stat().st_size for path in here.rglob("*") if path.is_file()))
            super().answer(exchange)

    with Server({f"/{at}": Script(body=BODY, then=Looking()) for at in range(3)}) as origin:
        mirroring.write(*(mirroring.artifact(f"m{at}", origin.url(f"/{at}")) for at in range(3)), parallel=1)
        runs(*mirroring.words)
    assert found == [0, 0, 0]
