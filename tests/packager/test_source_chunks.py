"""Chunk digests of local artifacts: written while they are copied, and good for a node that fetches by them."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.nginx import Nginx, nginx
from fakes.node import FakeNode
from packing.site import Site, files_of
from pxe_fetch.contract import reader
from pxe_fetch.contract.model import Artifact, Chunks, Digest
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]

CHUNK = 64 * 1024
MiB = 1 << 20
BODY = random.Random(13).randbytes(40 * CHUNK + 1)
LIST = "".join(f"{hashlib.sha256(BODY[at : at + CHUNK]).hexdigest()}\n" for at in range(0, len(BODY), CHUNK)).encode()
SHA256 = hashlib.sha256(BODY).hexdigest()
FOLDER = "other-user-artifacts"
BASE = "http://10.0.0.1/files/"


def source(name: str = "model", path: str = "m#1.bin", /, **others: object) -> dict[str, object]:
    return {"name": name, "source": path, "dest": f"/srv/{name}"} | others


def chunked(**others: object) -> dict[str, object]:
    return source(chunks={"size": CHUNK}, **others)


@pytest.fixture
def site(site: Site) -> Site:
    """A site with a file of 41 chunks."""
    (site.folder / "m#1.bin").write_bytes(BODY)
    site.pack = {"artifact_url": BASE}
    return site


def told(site: Site) -> list[Artifact]:
    """The artifacts as a node of the layout is told of them."""
    text = files_of(site.iso)["updates/etc/pxe-fetch/fetch.yaml"].decode()
    return list(reader.read(text, name="fetch.yaml").artifacts)


def exported(site: Site) -> list[str]:
    return sorted(path.name for path in (site.output / FOLDER).iterdir())


def test_a_list_lies_beside_the_file_and_the_node_is_told_of_it(site: Site, packs: Packs) -> None:
    site.rest = {"artifacts": [chunked()]}
    packs()
    assert exported(site) == ["m#1.bin", "m#1.bin.chunks"]
    assert (site.output / FOLDER / "m#1.bin").read_bytes() == BODY
    assert (site.output / FOLDER / "m#1.bin.chunks").read_bytes() == LIST
    (artifact,) = told(site)
    digest = hashlib.sha256(LIST)
    assert artifact.urls == (f"{BASE}m%231.bin",)
    assert artifact.chunks == Chunks(size=CHUNK, mirrors=((f"{BASE}m%231.bin.chunks",),), digests=digest.digest())
    assert (artifact.size, artifact.digest) == (len(BODY), None)
    outputs = site.manifest()["outputs"]
    assert isinstance(outputs, list)
    (entry,) = [one for one in outputs if one["path"] == f"{FOLDER}/m#1.bin.chunks"]
    assert (entry["url"], entry["sha256"], entry["size"]) == (f"{BASE}m%231.bin.chunks", digest.hexdigest(), len(LIST))
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=site.output, check=True, capture_output=True)
    assert b"m#1.bin.chunks: OK" in checked.stdout
    assert f"{SHA256}  {FOLDER}/m#1.bin\n" in (site.output / "SHA256SUMS").read_text()


@pytest.fixture
def served(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The site's layout behind nginx, from when it is packed on."""
    with nginx(tmp_path_factory.mktemp("nginx") / "nginx", root=site.output) as running:
        yield running


def fetch(site: Site, folder: Path, *, arguments: str) -> FakeNode:
    """A node that has fetched by the configuration in the layout's image, booted with kernel `arguments`."""
    node = FakeNode(folder=folder)
    node.boot_with(arguments)
    config = folder / "fetch.yaml"
    config.write_bytes(files_of(site.iso)["updates/etc/pxe-fetch/fetch.yaml"])
    ran = node.run("run", "--config", str(config))
    assert ran.code == 0, ran.err
    assert ran.artifact("model")["bytes_received"] == len(BODY)
    assert "sha256 of each of its 41 chunks" in ran.err
    return node


@pytest.mark.parametrize("is_moved", [False, True], ids=["as packed", "relocated"])
def test_a_node_fetches_from_the_layout_by_chunks(
    site: Site, packs: Packs, served: Nginx, tmp_path_factory: pytest.TempPathFactory, *, is_moved: bool
) -> None:
    folder = tmp_path_factory.mktemp("node")
    url = served.url(f"/{FOLDER}/")
    site.pack = {"artifact_url": BASE if is_moved else url}
    dest = str(folder / "out/model.bin")
    site.rest = {"artifacts": [chunked(dest=dest)], "allowed_roots": [str(folder / "out")]}
    packs()
    if is_moved:
        assert cli.main(["relocate", str(site.output), "--artifact-url", url]) == 0
    cfg = (site.output / "boot/grub2/grub.cfg").read_text()
    node = fetch(site, folder, arguments=" ".join(re.findall(r"pxe-fetch\S+", cfg)))
    assert (node.out / "model.bin").read_bytes() == BODY
    assert node.files() == ["model.bin"]
    paths = [asked[3] for asked in served.asked()]
    assert paths.count(f"/{FOLDER}/m#1.bin.chunks") == 1
    assert paths.count(f"/{FOLDER}/m#1.bin") > 1


def sparse(site: Site, name: str, size: int) -> None:
    with (site.folder / name).open("wb") as file:
        file.truncate(size)


def test_large_files_have_chunks_without_being_asked_and_small_ones_have_none(site: Site, packs: Packs) -> None:
    sparse(site, "large", 32 * MiB)
    sparse(site, "small", 32 * MiB - 1)
    sparse(site, "empty", 0)
    site.rest = {"artifacts": [source("large", "large"), source("small", "small"), source("empty", "empty")]}
    packs()
    assert exported(site) == ["empty", "large", "large.chunks", "small"]
    line = hashlib.sha256(bytes(4 * MiB)).hexdigest()
    assert (site.output / FOLDER / "large.chunks").read_text().split() == [line] * 8
    large, small, empty = told(site)
    assert large.chunks is not None
    assert (large.chunks.size, large.digest) == (4 * MiB, None)
    assert (small.chunks, small.digest is None) == (None, False)
    assert (empty.chunks, empty.size) == (None, 0)


def test_a_very_large_file_has_larger_chunks(site: Site, packs: Packs) -> None:
    sparse(site, "disk.img", 600 << 30)
    site.rest = {"artifacts": [source("disk", "disk.img"), source("no", "disk.img", chunks="none")]}
    said = packs("--dry-run")
    assert f"disk.img ({600 << 30:,} bytes, in chunks of 8MiB) as {BASE}disk.img" in said


def test_chunks_can_be_declined(site: Site, packs: Packs) -> None:
    sparse(site, "large", 32 * MiB)
    site.rest = {"artifacts": [source("large", "large", chunks="none")]}
    packs()
    assert exported(site) == ["large"]
    (artifact,) = told(site)
    assert artifact.chunks is None
    assert artifact.digest


def test_of_two_artifacts_of_a_file_one_may_have_its_chunks(site: Site, packs: Packs) -> None:
    site.rest = {"artifacts": [chunked(), source("whole", chunks="none"), source("either")]}
    packs()
    assert exported(site) == ["m#1.bin", "m#1.bin.chunks"]
    model, whole, either = told(site)
    assert whole.chunks is None
    assert whole.digest == Digest(algorithm="sha256", hex=SHA256)
    assert model.chunks
    assert either.chunks == model.chunks


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_that_is_given_too_is_compared_and_not_passed_on(
    algorithm: str, site: Site, packs: Packs, refused: Refused
) -> None:
    wrong, right = hashlib.new(algorithm, b"").hexdigest(), hashlib.new(algorithm, BODY).hexdigest()
    site.rest = {"artifacts": [chunked(**{algorithm: wrong})]}
    said = refused()
    assert "error[source-digest]" in said
    assert f"m#1.bin has {right}" in said
    site.rest = {"artifacts": [chunked(**{algorithm: right})]}
    packs()
    (artifact,) = told(site)
    assert artifact.chunks
    assert artifact.digest is None


def test_a_file_that_is_called_as_the_list_would_be_is_refused(site: Site, refused: Refused) -> None:
    (site.folder / "m#1.bin.chunks").write_bytes(b"of the user's own")
    site.rest = {"artifacts": [chunked(), source("mine", "m#1.bin.chunks")]}
    said = refused()
    assert "error[source-name-clash]" in said
    assert f"{site.folder}/m#1.bin.chunks and the chunk digests of {site.folder}/m#1.bin would both be" in said
    assert f"would both be {FOLDER}/m#1.bin.chunks" in said
    assert "chunks: none" in said


def test_two_sizes_for_the_chunks_of_one_file_are_refused(site: Site, refused: Refused) -> None:
    site.rest = {"artifacts": [chunked(), source("other", chunks={"size": 2 * CHUNK})]}
    said = refused()
    assert "error[source-chunks]" in said
    assert "m#1.bin has artifacts with chunks of 64KiB and 128KiB" in said


def test_too_many_chunks_are_refused_with_the_size_that_would_do(site: Site, refused: Refused) -> None:
    sparse(site, "large", 9 << 30)
    site.rest = {"artifacts": [source("large", "large", chunks={"size": CHUNK})]}
    said = refused()
    assert "error[source-chunks]" in said
    assert "large would have 147456 chunks; the limit is 131072" in said
    assert "`chunks: {size: 128KiB}` or more" in said


def test_a_dry_run_tells_of_chunks(site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]) -> None:
    site.rest = {"artifacts": [chunked()]}
    assert f"m#1.bin ({len(BODY):,} bytes, in chunks of 64KiB) as {BASE}m%231.bin" in packs("--dry-run")
    assert cli.main(site.command("--dry-run", "--json")) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["plan"]["artifacts"] == [
        {
            "source": str(site.folder / "m#1.bin"),
            "names": ["model"],
            "size": len(BODY),
            "url": f"{BASE}m%231.bin",
            "chunks": {"size": CHUNK, "url": f"{BASE}m%231.bin.chunks"},
        }
    ]
