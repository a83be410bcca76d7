"""`pxe-pack mirror --registry`: Debian's docker-registry has everything that a configuration fetches."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from fakes import layers
from fakes import registry as fake
from fakes.chunks import chunk_listing
from fakes.node import FakeNode
from fakes.registry import PASSWORD, USER
from fakes.server import Script, Server
from packing.mirroring import BODY, CHUNK, DIGEST, Mirroring, folder_of, layer
from packing.registries import LARGE, Fails, Runs
from packing.site import Site
from pxe_pack import cli

PAGE = (Path(__file__).parents[3] / "docs/air-gap.md").read_text()


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
