"""`pxe-pack mirror`: a folder from which nodes fetch everything that a configuration names, without the internet."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import layers
from fakes.exchange import Exchange
from fakes.faults import Demand, Serve, Status, cut, drip
from fakes.nginx import nginx
from fakes.node import FakeNode
from fakes.server import Script, Server
from fakes.waiting import PATIENCE, until
from packing.site import Site, files_of
from pxe_pack import cli

BODY = random.Random(52).randbytes(200_000)
CHUNK = 65_536
DIGEST = hashlib.sha256(BODY).hexdigest()
PAGE = (Path(__file__).parents[2] / "docs/air-gap.md").read_text()
IN_REGISTRY = "\n## In a registry\n"  # this section's commands are run by tests/packager/registry


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/models/m.bin": Script(body=BODY)}) as server:
        yield server


def artifact(name: str, *urls: str | list[str], **others: object) -> dict[str, object]:
    retry = {"attempts_without_progress": 2, "base": "10ms", "max": "20ms"}
    pinned = {"sha256": DIGEST} if not {"sha256_url", "chunks", "sha512"} & others.keys() else {}
    return {"name": name, "urls": list(urls), "dest": f"/srv/{name}", "retry": retry} | pinned | others


class Mirroring:
    """A folder with a configuration, and the mirror that is made of it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.output, self._capsys = folder / "fetch.yaml", folder / "mirror", capsys

    def write(self, *artifacts: dict[str, object], **others: object) -> None:
        self.config.write_text(json.dumps({"version": 1, **others, "artifacts": list(artifacts)}))

    def __call__(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Mirror it; the result as JSON, or the problems by their references."""
        found = cli.main(["mirror", str(self.config), "-o", str(self.output), "--json", *words])
        events = [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]
        assert found == code, events
        if code:
            return {one["reference"]: one["message"] for one in events if one["event"] == "problem"}
        (result,) = (one for one in events if one["event"] == "result")
        assert isinstance(result, dict)
        return result

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file())

    def rebased(self) -> dict[str, Any]:
        """The configuration in the mirror, as another program reads YAML."""
        document = yaml.safe_load((self.output / "fetch.yaml").read_text())
        assert isinstance(document, dict)
        return document

    def run_node(self, node: FakeNode, base: str) -> int:
        """Run the mirror's configuration on a node that finds the mirror at `base`."""
        text = (self.output / "fetch.yaml").read_text().replace("dest: /srv/", f"dest: {node.out}/")
        config = node.write("etc/pxe-fetch/fetch.yaml", f"{text}\n".replace("/srv\n", f"{node.out}\n"))
        node.boot_with(f"pxe-fetch.base_url={base}/")
        return node.run("run", "--config", str(config)).code


@pytest.fixture
def mirroring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mirroring:
    return Mirroring(tmp_path, capsys)


def test_a_registry_is_no_folder_and_the_option_for_one_is_named(
    mirroring: Mirroring, capsys: pytest.CaptureFixture[str]
) -> None:
    mirroring.write(artifact("m", "http://127.0.0.1:9/m"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["mirror", str(mirroring.config), "-o", "oci://registry.lan/site/mirror:v1"])
    assert ended.value.code == 2
    assert "give --registry oci://registry.lan/site/mirror:v1 and a folder" in capsys.readouterr().err


def test_a_node_fetches_everything_from_the_mirror_while_the_origin_is_gone(
    mirroring: Mirroring, node: FakeNode, tmp_path: Path
) -> None:
    digests = "".join(f"{hashlib.sha256(BODY[at : at + CHUNK]).hexdigest()}\n" for at in range(0, len(BODY), CHUNK))
    sums = f"{DIGEST}  s 1.bin\n{hashlib.sha256(b'other').hexdigest()}  other\n"
    paths = {
        "/m.bin": BODY,
        "/c.bin": BODY,
        "/i.bin": BODY,
        "/c.bin.chunks": digests.encode(),
        "/d/s%201.bin": BODY,
        "/d/SHA256SUMS": sums.encode(),
    }
    with Server({path: Script(body=body) for path, body in paths.items()}) as origin:
        own = hashlib.sha256(digests.encode()).hexdigest()
        chunks = {"size": CHUNK, "url": origin.url("/c.bin.chunks"), "sha256": own}
        mirroring.write(
            artifact("whole", "m.bin", mode="0600"),
            artifact("chunked", origin.url("/c.bin"), size=len(BODY), chunks=chunks),
            artifact("inline", "i.bin", size=len(BODY), chunks={"size": CHUNK, "sha256": digests.split()}),
            artifact("summed", origin.url("/d/s%201.bin"), sha256_url=origin.url("/d/SHA256SUMS")),
            artifact("strong", "m.bin", sha512=hashlib.sha512(BODY).hexdigest()),
            defaults={"base_url": origin.url("/")},
            allowed_roots=["/srv"],
        )
        folder = origin.url("").removeprefix("http://").replace(":", "_")
        problems = mirroring(code=2)
        assert "would both be" in str(problems["mirror-clash"])  # one URL, pinned in two ways that nobody can compare
        mirroring.write(
            *json.loads(mirroring.config.read_text())["artifacts"][:4],
            defaults={"base_url": origin.url("/")},
            allowed_roots=["/srv"],
        )
        result = mirroring()
        asked = len(origin.asked)
    names = [f"{folder}/{path.lstrip('/').replace('%20', ' ')}" for path in paths]
    assert mirroring.files() == sorted([*names, "SHA256SUMS", "fetch.yaml"])
    assert (result["files"], result["size"]) == (sorted(names), sum(map(len, paths.values())))
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=mirroring.output, check=True)
    with nginx(root=mirroring.output, folder=tmp_path / "nginx") as server:
        assert mirroring.run_node(node, server.url("")) == 0
    assert node.files() == ["chunked", "inline", "summed", "whole"]
    assert {(node.out / name).read_bytes() for name in node.files()} == {BODY}
    assert (node.out / "whole").stat().st_mode & 0o777 == 0o600
    assert len(origin.asked) == asked


def test_the_base_url_is_written_and_what_was_for_the_origin_is_not(mirroring: Mirroring, server: Server) -> None:
    secret = {"headers": {"X-Site": "lab"}, "header_credential": "pxe-fetch.token", "insecure": True}
    secret |= {"tiers": {server.url("/"): ["http://cache.invalid/"]}}
    server.scripts["/models/m.bin"] = Script(body=BODY, then=Demand(name="Authorization", value="Bearer s3cret"))
    credentials = mirroring.config.parent / "credentials"
    credentials.mkdir()
    (credentials / "pxe-fetch.token").write_text("Authorization: Bearer s3cret\n")
    mirroring.write(artifact("m", server.url("/models/m.bin"), **secret), report={"url": "http://10.0.0.1/report"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
        result = mirroring("--base-url", "http://10.0.0.1/mirror")
    assert result["base_url"] == "http://10.0.0.1/mirror/"
    assert result["elsewhere"] == ["report.url: http://10.0.0.1/report"]
    rebased = mirroring.rebased()
    assert rebased["defaults"] == {"base_url": "http://10.0.0.1/mirror/"}
    (entry,) = rebased["artifacts"]
    assert not {"headers", "header_credential", "insecure", "tiers"} & entry.keys()
    assert server.asked[0].fields["x-site"] == "lab"


def test_a_second_run_asks_for_nothing_that_is_there_and_removes_what_is_not_needed(
    mirroring: Mirroring, server: Server
) -> None:
    server.scripts["/n/n.bin"] = Script(body=BODY)
    mirroring.write(artifact("m", server.url("/models/m.bin")), artifact("n", server.url("/n/n.bin")))
    assert mirroring()["received"] == 2 * len(BODY)
    (mirroring.output / "notes.txt").write_text("of somebody else\n")
    asked = len(server.asked)
    mirroring.write(artifact("m", server.url("/models/m.bin")))
    result = mirroring()
    assert (len(server.asked), result["received"]) == (asked, 0)
    (gone,) = result["removed"]
    assert str(gone).endswith("/n/n.bin")
    assert not (mirroring.output / str(gone)).parent.exists()
    assert (mirroring.output / "notes.txt").exists()


def test_a_download_that_was_stopped_is_resumed_by_the_next_run(
    mirroring: Mirroring, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.scripts["/models/m.bin"] = Script(body=BODY, faults=[cut(0.5), *[Status(503)] * 2], then=Status(503))
    mirroring.write(artifact("m", server.url("/models/m.bin")))
    problems = mirroring(code=1)
    assert "503" in str(problems["mirror-download"])
    assert not (mirroring.output / "fetch.yaml").exists()
    assert cli.main(["mirror", str(mirroring.config), "-o", str(mirroring.output)]) == 1
    assert "✓ Downloading" not in capsys.readouterr().err
    server.scripts["/models/m.bin"] = Script(body=BODY)
    result = mirroring()
    assert server.asked[-1].range == "bytes=100000-"
    assert result["received"] == len(BODY) // 2
    assert not [name for name in mirroring.files() if "pxe-fetch-part" in name or "pxe-pack-mirror" in name]


def test_an_interrupted_run_leaves_what_the_next_one_resumes(mirroring: Mirroring, server: Server) -> None:
    body = random.Random(1).randbytes(8 << 20)
    server.scripts["/models/m.bin"] = Script(body=body, faults=[drip(0.5, every=0.05)])
    mirroring.write(artifact("m", server.url("/models/m.bin"), sha256=hashlib.sha256(body).hexdigest()))
    command: list[str | Path] = [sys.executable, "-m", "pxe_pack", "mirror", mirroring.config, "-o", mirroring.output]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        until(lambda: server.sent("/models/m.bin") > len(body) // 2 + 2)  # it drips, so what came before is there
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 130
    (part,) = mirroring.files()
    assert (mirroring.output / part).stat().st_size
    mirroring()
    assert server.asked[-1].range is not None


def test_wrong_bytes_are_no_part_of_a_mirror_and_another_mirror_is_asked(mirroring: Mirroring, server: Server) -> None:
    with Server({"/m.bin": Script(body=b"wrong")}) as wrong:
        mirroring.write(artifact("m", wrong.url("/m.bin"), server.url("/models/m.bin"), mirror_order="listed"))
        mirroring()
        mirroring.write(artifact("m", wrong.url("/m.bin")), artifact("n", server.url("/models/m.bin")))
        file = mirroring.output / next(name for name in mirroring.files() if name.endswith("m.bin"))
        assert file.read_bytes() == BODY
        file.unlink()
        problems = mirroring(code=1)
    assert "mirror-download" in problems
    assert not file.exists()


def test_a_tier_is_asked_before_the_next_and_nodes_have_one_url(mirroring: Mirroring, server: Server) -> None:
    with Server({"/m.bin": Script(body=BODY)}) as cache:
        mirroring.write(artifact("m", [cache.url("/m.bin"), cache.url("/m.bin?again")], server.url("/models/m.bin")))
        mirroring()
    assert server.asked == []
    (entry,) = mirroring.rebased()["artifacts"]
    assert entry["url"].endswith("/m.bin")
    assert "urls" not in entry


def test_a_layer_of_a_registry_is_a_file_of_its_title_pinned_by_its_digest(
    mirroring: Mirroring, node: FakeNode, tmp_path: Path
) -> None:
    with Server(layers.scripts(layers.PLAIN, layers.BODY)) as origin:
        reference = layers.at(origin, layers.PLAIN)
        mirroring.write({"name": "m", "oci": reference, "title": "m.bin", "dest": "/srv/m"}, allowed_roots=["/srv"])
        mirroring()
        asked = len(origin.asked)
    (entry,) = mirroring.rebased()["artifacts"]
    assert entry["url"] == f"{origin.url('').removeprefix('http://').replace(':', '_')}/site/model/m.bin"
    assert entry["sha256"] == hashlib.sha256(layers.BODY).hexdigest()
    assert entry["size"] == len(layers.BODY)
    assert not {"oci", "title"} & entry.keys()
    with nginx(root=mirroring.output, folder=tmp_path / "nginx") as server:
        assert mirroring.run_node(node, server.url("")) == 0
    assert (node.out / "m").read_bytes() == layers.BODY
    assert len(origin.asked) == asked


def test_facts_with_listed_values_are_a_file_each_and_stay_facts(
    mirroring: Mirroring, node: FakeNode, tmp_path: Path
) -> None:
    scripts = {f"/{arch}/{role}/m": Script(body=BODY) for arch in ("x86_64", "aarch64") for role in ("a", "b c")}
    with Server({path.replace(" ", "%20"): script for path, script in scripts.items()}) as origin:
        when = {"arch": ["x86_64", "aarch64"], "cmdline": {"role": ["a", "b c"]}}
        url = origin.url("/${arch}/${cmdline.role}/m")
        mirroring.write(artifact("m", url, when=when), allowed_roots=["/srv"])
        assert len(mirroring()["files"]) == 4
    (entry,) = mirroring.rebased()["artifacts"]
    assert entry["url"].endswith("/${arch}/${cmdline.role}/m")
    with nginx(root=mirroring.output, folder=tmp_path / "nginx") as server:
        text = (mirroring.output / "fetch.yaml").read_text().replace("/srv", str(node.out))
        config = node.write("etc/pxe-fetch/fetch.yaml", text)
        node.boot_with(f'pxe-fetch.base_url={server.url("/")} "role=b c"')
        ran = node.run("run", "--config", str(config))
    assert (ran.code, node.files()) == (0, ["m"]), ran.err


@pytest.mark.parametrize(
    ("others", "reference", "words"),
    [
        ({"urls": ["http://h/${hostname}/m"]}, "mirror-facts", "nothing says which values nodes have"),
        ({"urls": ["m"]}, "mirror-relative", "is relative"),
        ({"urls": ["http://h/a/%2e%2e/m"]}, "mirror-url", "is not a relative path"),
        ({"urls": ["http://h/folder/"]}, "mirror-url", "names no file"),
        ({"urls": ["http://h/m?r=${arch}"], "when": {"arch": ["a", "b"]}}, "mirror-url", "in its query"),
    ],
)
def test_what_no_folder_can_have_is_refused_before_anything_is_asked(
    mirroring: Mirroring, others: dict[str, object], reference: str, words: str
) -> None:
    mirroring.write({**artifact("m"), **others})
    problems = mirroring(code=2)
    assert list(problems) == [reference]
    assert words in str(problems[reference])
    assert not mirroring.output.exists()


def test_a_query_tells_files_apart_and_is_not_shown(mirroring: Mirroring) -> None:
    with Server({"/get/m.bin": Script(body=BODY)}) as origin:
        mirroring.write(*(artifact(f"m{each}", origin.url(f"/get/m.bin?file=s3cret{each}")) for each in (1, 2)))
        result = mirroring()
    assert len(result["files"]) == 2
    assert "s3cret" not in json.dumps(result) + (mirroring.output / "fetch.yaml").read_text()


def test_a_folder_that_is_not_a_mirror_keeps_its_configuration(mirroring: Mirroring, server: Server) -> None:
    mirroring.write(artifact("m", server.url("/models/m.bin")))
    mirroring.output = mirroring.config.parent
    before = mirroring.config.read_text()
    assert "did not write: fetch.yaml" in str(mirroring(code=2)["output-foreign"])
    assert mirroring.config.read_text() == before
    assert server.asked == []


def test_a_mirrors_own_configuration_is_not_mirrored_into_it(mirroring: Mirroring, server: Server) -> None:
    mirroring.write(artifact("m", server.url("/models/m.bin")))
    mirroring("--base-url", server.url("/mirror"))
    before = {name: (mirroring.output / name).read_bytes() for name in mirroring.files()}
    mirroring.config = mirroring.output / "fetch.yaml"
    assert "is in the mirror that it would replace" in str(mirroring(code=2)["mirror-of-itself"])
    assert {name: (mirroring.output / name).read_bytes() for name in mirroring.files()} == before


def test_a_secret_that_the_mirror_publishes_is_warned_of_and_not_shown(
    mirroring: Mirroring, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    mirroring.write(artifact("m", server.url("/models/m.bin")), report={"url": "https://r.lan/report?key=s3cret"})
    assert cli.main(["mirror", str(mirroring.config), "-o", str(mirroring.output)]) == 0
    said = capsys.readouterr()
    assert "warning[secret-in-url]" in said.err
    assert "can read the mirror" in said.err
    assert "s3cret" not in said.err + said.out


def test_what_the_agent_is_given_is_not_to_be_read_by_others(mirroring: Mirroring, server: Server) -> None:
    modes: list[int] = []

    class Looking(Serve):
        def answer(self, exchange: Exchange) -> None:
            modes.append((mirroring.output / ".pxe-pack-mirror").stat().st_mode & 0o777)
            super().answer(exchange)

    server.scripts["/models/m.bin"] = Script(body=BODY, then=Looking())
    mirroring.write(artifact("m", server.url("/models/m.bin"), headers={"X-Api-Key": "s3cret"}))
    mirroring()
    assert modes == [0o700]


@pytest.mark.parametrize(("end", "why"), [("?t=1", "no query"), ("#x", "has a fragment"), ("/?", "no query")])
def test_a_base_url_with_a_query_or_a_fragment_is_refused(
    mirroring: Mirroring, server: Server, end: str, why: str
) -> None:
    mirroring.write(artifact("m", server.url("/models/m.bin")))
    assert why in str(mirroring("--base-url", f"http://m/d{end}", code=2)["url-invalid"])
    assert server.asked == []


def test_a_clash_of_a_file_and_a_folder_is_refused(mirroring: Mirroring) -> None:
    mirroring.write(artifact("a", "http://h/a"), artifact("b", "http://h/a/b"))
    assert "which is a folder for b" in str(mirroring(code=2)["mirror-clash"])


def test_the_mirrors_configuration_packs_with_its_lock_and_sources(
    site: Site, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "local.txt").write_text("local\n")
    unpinned = {key: value for key, value in artifact("m", server.url("/models/m.bin")).items() if key != "sha256"}
    site.rest = {"artifacts": [unpinned, {"name": "l", "source": "local.txt", "dest": "/srv/l"}]}
    site.write_config()
    assert cli.main(["lock", str(site.config)]) == 0
    mirroring = Mirroring(tmp_path, capsys)
    capsys.readouterr()
    mirroring("--base-url", "http://10.0.0.1/mirror/")
    rebased = mirroring.output / "fetch.yaml"
    assert cli.main(["pack", str(rebased), "--agent", str(site.agent), "--inject", "updates", "--quiet"]) == 0
    packed = yaml.safe_load(files_of(site.iso)["updates/etc/pxe-fetch/fetch.yaml"])
    remote, local = packed["artifacts"]
    assert (remote["sha256"], remote["size"]) == (DIGEST, len(BODY))
    assert local["url"].endswith("/other-user-artifacts/local.txt")
    assert packed["defaults"]["base_url"] == "http://10.0.0.1/mirror/"


def test_every_command_of_the_page_on_air_gaps_works_and_a_node_finds_the_mirror_at_another_address(
    site: Site, server: Server, node: FakeNode, tmp_path: Path
) -> None:
    before, section = PAGE.split(IN_REGISTRY)
    blocks = re.findall(r"```sh\n(.*?)```", before + section.partition("\n## ")[2], re.DOTALL)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "liveos.iso").symlink_to(site.image)
    url = server.url("/models/m.bin")
    unpinned = {"name": "m", "url": url, "dest": f"{node.out}/m"}
    roots = {"allowed_roots": [str(node.out)]}
    (folder / "fetch.yaml").write_text(json.dumps({"version": 1, **roots, "artifacts": [unpinned]}))
    # Packing would freeze an agent, which takes minutes; there is no server at 10.9.0.1, and this image has findings.
    own = f"""pxe-pack() {{
        case $1 in
            pack) command pxe-pack "$@" --quiet --agent {site.agent} ;;
            check) command pxe-pack "$@" --offline || [ $? = 3 ] ;;
            *) command pxe-pack "$@" ;;
        esac
    }}
    """
    script = own + "\n".join(blocks)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-eux", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    grub = (folder / "pxe/boot/grub2/grub.cfg").read_text()
    assert "root=live:http://10.9.0.1/liveos.iso" in grub
    assert "pxe-fetch.base_url=http://10.9.0.1/mirror/" in grub
    server.close()
    node.write("etc/pxe-fetch/fetch.yaml", (folder / "mirror/fetch.yaml").read_text())
    with nginx(root=folder, folder=tmp_path / "nginx") as ours:
        node.boot_with(f"pxe-fetch.base_url={ours.url('/mirror/')}")
        found = node.run("run")
    assert (found.code, node.files()) == (0, ["m"]), found.err


def test_the_location_of_the_page_is_one_that_nginx_takes(tmp_path: Path) -> None:
    (block,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid; events {{}} http {{ server {{ listen 127.0.0.1:1; {block} }} }}")
    subprocess.run(["/usr/sbin/nginx", "-t", "-q", "-c", config, "-p", tmp_path], check=True, capture_output=True)
