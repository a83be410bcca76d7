"""What is not put into a registry, what is left as it was, and what is warned of."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from fakes import layers, waiting
from fakes import registry as fake
from fakes.exchange import Exchange
from fakes.faults import Serve
from fakes.node import FakeNode
from fakes.registry import Registry
from fakes.server import Script, Server
from packing.keys import key_pair, sign
from packing.mirroring import BODY, DIGEST, Mirroring, chunks, folder_of, layer, uploads
from packing.registries import Fails, Runs, skopeo
from pxe_pack import cli


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


def test_what_no_configuration_can_name_is_refused_before_anything_is_asked(mirroring: Mirroring, fails: Fails) -> None:
    mirroring.write(mirroring.artifact("m", "http://127.0.0.1:9/a%C2%A0b"))  # a no-break space
    assert "artifacts[0].title must be text on one line" in fails(*mirroring.words, code=2)
    when = {"arch": [f"a{at}" for at in range(5_000)]}
    mirroring.write(mirroring.artifact("m", "http://127.0.0.1:9/${arch}/m.bin", when=when))
    assert "error[document-too-large]" in fails(*mirroring.words, code=2)
    assert not mirroring.output.exists()


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
