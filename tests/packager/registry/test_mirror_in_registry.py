"""`pxe-pack mirror --registry`: Debian's docker-registry has everything that a configuration fetches."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from fakes import layers, waiting
from fakes import registry as fake
from fakes.chunks import chunk_listing
from fakes.exchange import Exchange
from fakes.faults import Serve, Status, cut, drip
from fakes.node import FakeNode
from fakes.registry import PASSWORD, USER, Registry
from fakes.server import Script, Server
from packing.keys import key_pair, sign
from packing.registries import LARGE, Fails, Runs, skopeo
from packing.site import Site
from pxe_pack import cli

BODY = random.Random(53).randbytes(300_000)
CHUNK = 65_536
DIGEST = hashlib.sha256(BODY).hexdigest()
PAGE = (Path(__file__).parents[3] / "docs/air-gap.md").read_text()
RETRY = {"attempts_without_progress": 2, "base": "10ms", "max": "20ms"}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/models/m.bin": Script(body=BODY), "/n.bin": Script(body=b"second")}) as server:
        yield server


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    node = FakeNode(folder=tmp_path / "node")
    node.boot_with("quiet")
    return node


class Mirroring:
    """A configuration, the repository that it is mirrored in, and the folder for the new configuration."""

    def __init__(self, folder: Path, place: str, node: FakeNode) -> None:
        self.config, self.output, self.place, self._node = folder / "fetch.yaml", folder / "site", place, node

    def write(self, *artifacts: dict[str, object], **others: object) -> None:
        top = {"version": 1, "allowed_roots": [str(self._node.out)], "defaults": {"retry": RETRY}}
        self.config.write_text(json.dumps({**top, **others, "artifacts": list(artifacts)}))

    @property
    def words(self) -> tuple[str | Path, ...]:
        return ("mirror", self.config, "--registry", self.place, "-o", self.output)

    def artifact(self, name: str, *urls: str | list[str], **others: object) -> dict[str, object]:
        pinned = {"sha256": DIGEST} if not {"sha256_url", "chunks", "sha512", "sha256"} & others.keys() else {}
        return {"name": name, "urls": list(urls), "dest": f"{self._node.out}/{name}"} | pinned | others

    def new(self) -> dict[str, Any]:
        """The new configuration, as another program reads YAML."""
        document = yaml.safe_load((self.output / "fetch.yaml").read_text())
        assert isinstance(document, dict)
        return document

    def run_node(self) -> str:
        """Run the new configuration on a node, which succeeds; what it wrote."""
        config = self._node.write("etc/pxe-fetch/fetch.yaml", (self.output / "fetch.yaml").read_text())
        ran = self._node.run("run", "--config", str(config))
        assert ran.code == 0, ran.err
        return ran.err


@pytest.fixture
def mirroring(tmp_path: Path, registry: Registry, node: FakeNode, request: pytest.FixtureRequest) -> Mirroring:
    """In a repository of its own for each test."""
    repository = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return Mirroring(tmp_path, f"{registry.place}/mirror/{repository}:v1", node)


def layer(name: str, reference: str, node: FakeNode) -> dict[str, object]:
    return {"name": name, "oci": reference, "title": "m.bin", "dest": f"{node.out}/{name}"}


def folder_of(server: Server) -> str:
    return server.url("").removeprefix("http://").replace(":", "_")


def uploads(registry: Registry, place: str) -> list[str]:
    repository = place.split("/", 3)[3].partition(":")[0]
    return [one for one in registry.requests() if one.startswith(("POST", "PUT")) and f"/v2/{repository}/" in one]


def test_a_node_fetches_every_kind_of_artifact_from_the_registry_while_the_origins_are_gone(
    mirroring: Mirroring, runs: Runs, node: FakeNode
) -> None:
    digests = chunk_listing(BODY, size=CHUNK)
    sums = f"{DIGEST}  s 1.bin\n{hashlib.sha256(b'other').hexdigest()}  other\n".encode()
    paths = {
        "/m.bin": BODY,
        "/c.bin": BODY,
        "/i.bin": BODY,
        "/c.bin.chunks": digests,
        "/d/s%201.bin": BODY,
        "/d/SHA256SUMS": sums,
        "/strong": BODY,
        "/large": LARGE,
    }
    scripts = {path: Script(body=body) for path, body in paths.items()}
    scripts |= layers.scripts(layers.CHUNKED, layers.BODY)
    scripts[f"/v2/site/model/blobs/{fake.digest(layers.CHUNKS)}"] = Script(body=layers.CHUNKS)
    with Server(scripts) as origin, Server({"/m.bin": Script(body=BODY)}) as cache:
        own = hashlib.sha256(digests).hexdigest()
        listed = {"size": CHUNK, "url": origin.url("/c.bin.chunks"), "sha256": own}
        inline = {"size": CHUNK, "sha256": digests.decode().split()}
        mirroring.write(
            mirroring.artifact("whole", [cache.url("/m.bin")], origin.url("/m.bin"), mode="0600"),
            mirroring.artifact("chunked", origin.url("/c.bin"), size=len(BODY), chunks=listed),
            mirroring.artifact("inline", origin.url("/i.bin"), size=len(BODY), chunks=inline),
            mirroring.artifact("summed", origin.url("/d/s%201.bin"), sha256_url=origin.url("/d/SHA256SUMS")),
            mirroring.artifact("strong", origin.url("/strong"), sha512=hashlib.sha512(BODY).hexdigest()),
            mirroring.artifact("large", origin.url("/large"), sha256=hashlib.sha256(LARGE).hexdigest()),
            layer("layer", layers.at(origin, layers.CHUNKED), node),
        )
        result = runs(*mirroring.words)
    wanted = dict.fromkeys(("whole", "chunked", "inline", "summed", "strong"), BODY)
    wanted |= {"large": LARGE, "layer": layers.BODY}
    assert result["received"] == result["size"] == sum(map(len, wanted.values()))
    assert {one["oci"] for one in mirroring.new()["artifacts"]} == {result["reference"]}
    assert not {"urls", "url", "sha256", "sha512", "chunks"} & mirroring.new()["artifacts"][0].keys()
    told = mirroring.run_node()
    assert {name: (node.out / name).read_bytes() for name in node.files()} == wanted
    assert (node.out / "whole").stat().st_mode & 0o777 == 0o600
    assert "sha256 of each of its 9 chunks" in told
    assert told.count("sha256 of each of its 5 chunks") == 2
    assert sorted(path.name for path in mirroring.output.iterdir()) == ["fetch.yaml", "layers.json"]


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


def test_wrong_bytes_are_not_pushed(
    mirroring: Mirroring, runs: Runs, fails: Fails, server: Server, registry: Registry
) -> None:
    url = server.url("/models/m.bin")
    mirroring.write({"name": "m", "url": url, "dest": "/srv/m"}, allowed_roots=["/srv"])
    runs("lock", mirroring.config)
    server.scripts["/models/m.bin"] = Script(body=BODY[:-1] + b"?")  # changed since then
    assert "error[mirror-download]" in fails(*mirroring.words)
    pushed = [one for one in uploads(registry, mirroring.place) if one.startswith("PUT")]
    assert len(pushed) == 1  # the empty configuration of every manifest: it shows that the repository can be pushed to


def test_a_file_that_changes_on_disk_after_it_was_verified_is_not_pushed(
    mirroring: Mirroring, fails: Fails, server: Server
) -> None:
    class Changing(Serve):
        def answer(self, exchange: Exchange) -> None:
            verified = mirroring.output / "downloads" / folder_of(server) / "models/m.bin"
            waiting.until(verified.exists)
            verified.write_bytes(b"changed")
            super().answer(exchange)

    server.scripts["/n.bin"] = Script(body=b"second", then=Changing())
    second = mirroring.artifact("n", server.url("/n.bin"), sha256=hashlib.sha256(b"second").hexdigest())
    for others in ({}, {"chunks": chunks(), "size": len(BODY)}):
        mirroring.write(mirroring.artifact("m", server.url("/models/m.bin"), **others), second)
        assert "error[mirror-changed]" in fails(*mirroring.words)
        shutil.rmtree(mirroring.output)


def test_the_tag_of_something_else_is_left_alone(
    mirroring: Mirroring, fails: Fails, runs: Runs, server: Server, folder: Path
) -> None:
    pushed = runs("push", folder, mirroring.place)
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")))
    told = fails(*mirroring.words, code=2)
    assert "error[mirror-tag]" in told
    assert "application/vnd.pxe-pack.files.v1" in told
    assert server.asked == []
    assert runs("push", folder, mirroring.place) == pushed
    assert not mirroring.output.exists()


def test_what_is_tagged_during_the_run_by_somebody_else_is_left_alone(
    mirroring: Mirroring, fails: Fails, server: Server, registry: Registry
) -> None:
    others = fake.manifest(fake.descriptor(b"other", title="other"))

    class Pushing(Serve):
        def answer(self, exchange: Exchange) -> None:
            fake.put(registry, mirroring.place.split("/", 3)[3].partition(":")[0], others, b"other", tag="v1")
            super().answer(exchange)

    server.scripts["/models/m.bin"] = Script(body=BODY, then=Pushing())
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")))
    assert "error[mirror-tag]" in fails(*mirroring.words)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{mirroring.place.removeprefix('http://')}")
    assert raw == others


def test_a_registry_that_takes_no_uploads_is_found_before_a_download(
    tmp_path: Path, node: FakeNode, fails: Fails, server: Server
) -> None:
    with fake.registry(tmp_path / "readonly") as registry:
        storage = json.loads(registry.config.read_text())["storage"]
        registry.restart(storage={**storage, "maintenance": {"readonly": {"enabled": True}}})
        mirroring = Mirroring(tmp_path, f"{registry.place}/site/mirror:v1", node)
        mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")))
        told = fails(*mirroring.words)
    assert "error[registry-refused]" in told
    assert "read-only" in told
    assert server.asked == []


def test_nodes_log_in_with_the_credential_that_is_named(
    tmp_path: Path, node: FakeNode, runs: Runs, fails: Fails, server: Server
) -> None:
    (tmp_path / "login").write_text(f"{USER}:{PASSWORD}\n")
    with fake.registry(tmp_path / "guarded", htpasswd=True) as registry:
        mirroring = Mirroring(tmp_path, f"{registry.place}/site/mirror:v1", node)
        mirroring.write(mirroring.artifact("m", server.url("/models/m.bin"), headers={"X-Site": "lab"}, insecure=True))
        assert "error[registry-refused]" in fails(*mirroring.words)
        login: tuple[str | Path, ...] = ("--login", tmp_path / "login")
        assert "error[credential-unencrypted]" in fails(*mirroring.words, *login, code=2)
        named = ("--registry-credential", "pxe-fetch.registry")
        assert "nodes would send the credential" in fails(*mirroring.words, *named, code=2)
        assert "error[credential-invalid]" in fails(*mirroring.words, "--registry-credential", "a/b", code=2)
        runs(*mirroring.words, *login, *named, "--insecure")
        (entry,) = mirroring.new()["artifacts"]
        assert entry["registry_credential"] == "pxe-fetch.registry"
        assert "headers" not in entry
        node.credential("pxe-fetch.registry", f"{USER}:{PASSWORD}\n")
        mirroring.run_node()
    assert (node.out / "m").read_bytes() == BODY


def test_an_artifact_with_facts_is_one_for_each_of_their_values(
    mirroring: Mirroring, runs: Runs, node: FakeNode
) -> None:
    bodies = {(arch, role): f"{arch} {role}".encode() for arch in ("x86_64", "aarch64") for role in ("a", "b c")}
    sums = "".join(f"{hashlib.sha256(body).hexdigest()}  {arch}-{role}\n" for (arch, role), body in bodies.items())
    paths = {f"/{arch}-{role}".replace(" ", "%20"): Script(body=body) for (arch, role), body in bodies.items()}
    with Server(paths | {"/SHA256SUMS": Script(body=sums.encode())}) as origin:
        when = {"arch": ["x86_64", "aarch64"], "cmdline": {"the-role": ["a", "b c"]}}
        url = origin.url("/${arch}-${cmdline.the-role}")
        taken = mirroring.artifact(
            "m-x86_64-a", origin.url("/x86_64-a"), sha256=hashlib.sha256(b"x86_64 a").hexdigest()
        )
        mirroring.write(mirroring.artifact("m", url, sha256_url=origin.url("/SHA256SUMS"), when=when), taken)
        # The same file, pinned by a list and by a digest of its own: nobody can compare them.
        assert cli.main(["mirror", *map(str, mirroring.words[1:])]) == 2
        long = {**mirroring.artifact("n" * 64, url, sha256_url=origin.url("/SHA256SUMS"), when=when), "required": False}
        mirroring.write(mirroring.artifact("m", url, sha256_url=origin.url("/SHA256SUMS"), when=when), long)
        runs(*mirroring.words)
    names = [one["name"] for one in mirroring.new()["artifacts"]]
    assert names[:4] == ["m-x86_64-a", "m-x86_64-b-c", "m-aarch64-a", "m-aarch64-b-c"]
    assert names[4:] == ["n" * 62 + f"-{number}" for number in (2, 3, 4, 5)]
    node.boot_with('"the_role=b c"')
    mirroring.run_node()
    assert (node.out / "m").read_bytes() == f"{os.uname().machine} b c".encode()


def test_a_mirror_in_a_folder_is_put_into_a_registry_where_its_origins_are_not(
    mirroring: Mirroring, runs: Runs, fails: Fails, tmp_path: Path, node: FakeNode
) -> None:
    sums = f"{DIGEST}  s 1\n".encode()
    digests = chunk_listing(BODY, size=CHUNK)
    scripts = {"/d/s%201": BODY, "/d/SHA256SUMS": sums, "/c": BODY, "/c.list": digests, "/m": BODY}
    with Server({path: Script(body=body) for path, body in scripts.items()}) as origin:
        listed = {"size": CHUNK, "url": origin.url("/c.list"), "sha256": hashlib.sha256(digests).hexdigest()}
        mirroring.write(
            mirroring.artifact("s", origin.url("/d/s%201"), sha256_url=origin.url("/d/SHA256SUMS")),
            mirroring.artifact("c", origin.url("/c"), chunks=listed, size=len(BODY)),
            mirroring.artifact("m", origin.url("/m")),
        )
        runs("mirror", mirroring.config, "-o", tmp_path / "mirror", "--base-url", "http://10.0.0.1/mirror")
        carried = f"{folder_of(origin)}"
    mirroring.config.unlink()
    mirroring.config = tmp_path / "mirror/fetch.yaml"
    result = runs(*mirroring.words)
    assert result["files"] == [f"{carried}/c", f"{carried}/d/s 1", f"{carried}/m"]
    mirroring.run_node()
    assert {name: (node.out / name).read_bytes() for name in node.files()} == dict.fromkeys("csm", BODY)
    (tmp_path / "mirror" / carried / "m").write_bytes(b"changed")
    (mirroring.output / "layers.json").unlink()
    (mirroring.output / "fetch.yaml").unlink()
    assert "cannot download m from file://" in fails(*mirroring.words)


def test_odd_names_are_the_titles_of_layers(mirroring: Mirroring, runs: Runs, node: FakeNode) -> None:
    names = ["a b.bin", "ä%.bin", 'q"uote\\.bin', "d#?&.bin", "$(x)`y`;.bin", "m.bin.chunks"]
    paths = {f"/odd/{quote(name)}": Script(body=name.encode()) for name in names}
    with Server({**paths, "/odd/m.bin": Script(body=LARGE)}) as origin:
        mirroring.write(
            *(
                mirroring.artifact(f"n{at}", origin.url(path), sha256=hashlib.sha256(script.body).hexdigest())
                for at, (path, script) in enumerate(paths.items())
                if isinstance(script.body, bytes)
            ),
            mirroring.artifact("large", origin.url("/odd/m.bin"), sha256=hashlib.sha256(LARGE).hexdigest()),
        )
        result = runs(*mirroring.words)
        assert result["files"] == sorted(f"{folder_of(origin)}/odd/{name}" for name in [*names, "m.bin"])
    mirroring.run_node()
    assert [(node.out / f"n{at}").read_text() for at in range(len(names))] == names
    assert (node.out / "large").read_bytes() == LARGE


def test_a_tag_of_another_registry_is_mirrored_as_it_was_locked_and_its_login_stays_there(
    mirroring: Mirroring, runs: Runs, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mirroring.config.parent
    (folder / "credentials").mkdir()
    (folder / "credentials/pxe-fetch.origin").write_text(f"{USER}:{PASSWORD}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder / "credentials"))
    with fake.registry(folder / "guarded", htpasswd=True) as origin:

        def put(body: bytes) -> None:
            manifest = fake.manifest(fake.descriptor(body, title="m.bin"))
            fake.put(origin, "site/model", manifest, body, tag="v1", authorization=layers.LOGIN)

        put(BODY)
        entry = layer("m", f"{origin.place}/site/model:v1", node)
        mirroring.write({**entry, "registry_credential": "pxe-fetch.origin", "insecure": True})
        runs("lock", mirroring.config)
        put(b"another")
        runs(*mirroring.words)
    (new,) = mirroring.new()["artifacts"]
    assert not {"registry_credential", "insecure"} & new.keys()
    mirroring.run_node()
    assert (node.out / "m").read_bytes() == BODY


def test_what_no_configuration_can_name_is_refused_before_anything_is_asked(mirroring: Mirroring, fails: Fails) -> None:
    mirroring.write(mirroring.artifact("m", "http://127.0.0.1:9/a%C2%A0b"))  # a no-break space
    assert "artifacts[0].title must be text on one line" in fails(*mirroring.words, code=2)
    when = {"arch": [f"a{at}" for at in range(5_000)]}
    mirroring.write(mirroring.artifact("m", "http://127.0.0.1:9/${arch}/m.bin", when=when))
    assert "error[document-too-large]" in fails(*mirroring.words, code=2)
    assert not mirroring.output.exists()


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


def test_two_artifacts_with_one_title_are_refused_unless_they_are_one_file(
    mirroring: Mirroring, runs: Runs, fails: Fails, node: FakeNode
) -> None:
    other = fake.manifest(fake.descriptor(b"other", title="m.bin"))
    with Server(layers.scripts(layers.PLAIN, layers.BODY) | layers.scripts(other, b"other")) as origin:
        first, same = (layer(name, layers.at(origin, layers.PLAIN), node) for name in ("first", "same"))
        second = layer("second", layers.at(origin, other), node)
        mirroring.write(first, second)
        assert "error[mirror-clash]" in fails(*mirroring.words, code=2)
        mirroring.write(first, same)
        runs(*mirroring.words)
    mirroring.run_node()
    assert (node.out / "first").read_bytes() == (node.out / "same").read_bytes() == layers.BODY


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


def test_a_signed_configuration_has_to_be_signed_again(
    mirroring: Mirroring, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = key_pair(tmp_path)
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")), serial=7)
    sign(mirroring.config, keys)

    def told() -> str:
        capsys.readouterr()
        assert cli.main([*map(str, mirroring.words)]) == 0
        return capsys.readouterr().err

    assert "warning[mirror-unsigned]" in told()
    assert mirroring.new()["serial"] == 7
    sign(mirroring.output / "fetch.yaml", keys)
    assert "mirror-unsigned" not in told()
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")), serial=8)
    assert "warning[mirror-unsigned]" in told()


def test_a_copy_on_the_nodes_own_disks_has_no_place_beside_a_registry_and_a_source_stays(
    mirroring: Mirroring, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "local").write_text("local\n")
    mirroring.write(
        mirroring.artifact("m", "file:///media/m", server.url("/models/m.bin")),
        mirroring.artifact("f", "file:///media/f"),
        {"name": "l", "source": "local", "dest": "/srv/l"},
        allowed_roots=["/srv", str(tmp_path)],
    )
    assert cli.main([*map(str, mirroring.words)]) == 0
    assert "nodes no longer look for m at file:///media/m" in capsys.readouterr().err
    first, second, third = mirroring.new()["artifacts"]
    assert first["oci"]
    assert (second["url"], second["sha256"]) == ("file:///media/f", DIGEST)
    assert third["source"] == str(tmp_path / "local")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--registry", "oci://registry.lan/x:v1", "--base-url", "http://m/"),
            "--base-url is not for a mirror in a registry",
        ),
        (("--insecure",), "--insecure is for a mirror in a registry"),
        (("--registry-credential", "x"), "--registry-credential is for a mirror in a registry"),
    ],
)
def test_options_of_the_other_kind_of_mirror_are_refused(
    mirroring: Mirroring, fails: Fails, words: tuple[str, ...], said: str
) -> None:
    mirroring.write(mirroring.artifact("m", "http://127.0.0.1:9/m"))
    assert said in fails("mirror", mirroring.config, "-o", mirroring.output, *words, code=2)


def test_a_folder_that_is_none_of_a_mirror_in_a_registry_stays_as_it_is(
    mirroring: Mirroring, fails: Fails, runs: Runs, server: Server
) -> None:
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")))
    mirroring.output.mkdir()
    (mirroring.output / "fetch.yaml").write_text("mine\n")
    assert "error[output-foreign]" in fails(*mirroring.words, code=2)
    assert (mirroring.output / "fetch.yaml").read_text() == "mine\n"
    (mirroring.output / "fetch.yaml").unlink()
    (mirroring.output / "layers.json").write_text('{"version": 1, "files": {"a": []}}')
    assert "error[mirror-record]" in fails(*mirroring.words, code=2)
    (mirroring.output / "layers.json").unlink()
    runs(*mirroring.words)
    mirroring.config = mirroring.output / "fetch.yaml"
    assert "error[mirror-of-itself]" in fails(*mirroring.words, code=2)
    mirroring.config = mirroring.output.parent / "fetch.yaml"
    words = ("mirror", mirroring.config, "-o", mirroring.output)
    assert "that a mirror in a folder did not write: fetch.yaml" in fails(*words, code=2)


def test_the_commands_of_the_page_on_air_gaps_make_an_image_that_fetches_from_the_registry(
    mirroring: Mirroring, runs: Runs, server: Server, site: Site, node: FakeNode
) -> None:
    place = mirroring.place.partition("/mirror/")[0]
    (section,) = re.findall(r"\n## In a registry\n(.*?)\n## ", PAGE, re.DOTALL)
    connected, carried = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    folder = mirroring.config.parent
    (folder / "liveos.iso").symlink_to(site.image)
    mirroring.write(mirroring.artifact("m", server.url("/models/m.bin")))
    runs("mirror", mirroring.config, "-o", folder / "mirror", "--base-url", "http://10.0.0.1/mirror/")

    def run(script: str) -> None:
        ours = script.replace("oci://registry.lan/site/", f"{place}/page/")
        own = f'pxe-pack() {{ [ $1 = pack ] && set -- "$@" --quiet --agent {site.agent}; command pxe-pack "$@"; }}\n'
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = ["bash", "-eu", "-c", own + ours]
        ran = subprocess.run(
            command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr

    run(connected)
    server.close()
    shown = runs("show", folder / "pxe", "--config")
    assert f"{place}/page/mirror@sha256:" in json.dumps(shown)
    shutil.rmtree(mirroring.output)
    run(carried)
    mirroring.run_node()
    assert (node.out / "m").read_bytes() == BODY


def chunks() -> dict[str, object]:
    return {"size": CHUNK, "sha256": chunk_listing(BODY, size=CHUNK).decode().split()}
