"""Object stores: presigned URLs, whose query is a credential, and repositories that want a bearer token."""

from __future__ import annotations

import json
import random
import re
import ssl
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from urllib3.exceptions import InsecureRequestWarning

from fakes.certs import Authority
from fakes.chunks import chunk_digests
from fakes.faults import Demand, Status, redirect
from fakes.node import FakeNode, Ran
from fakes.s3 import BUCKET, S3, s3
from fakes.server import Script, Server

BODY = random.Random(16).randbytes(300_000)
CHUNK = 65_536
PAGE = (Path(__file__).parents[2] / "docs/object-stores.md").read_text()
HELLO = b"hello\n"  # what the digests of the page are of


@pytest.fixture
def store(localhost: ssl.SSLContext) -> Iterator[S3]:
    with s3(tls=localhost) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)  # boto3 uploads here; the agent verifies
        store.put("releases/m 1+2.bin", BODY)
        yield store


def fetched(node: FakeNode, authority: Authority, url: str, **others: object) -> Ran:
    secret = {"query_credential": "pxe-fetch.s3"} | others
    entry = {key: value for key, value in node.entry("model", url, BODY, **secret).items() if value is not None}
    return node.run_config(entry, tls={"ca_file": str(authority.certificate)})


def left_behind(node: FakeNode) -> str:
    """All that a run has written, but for credentials and the configuration."""
    files = [one for one in node.folder.rglob("*") if one.is_file() and one.parent.name != "credentials"]
    return "".join(f"{one}\n{one.read_bytes()!r}\n" for one in files)


def test_a_presigned_url_is_sent_as_it_was_signed_and_written_nowhere(
    node: FakeNode, store: S3, authority: Authority
) -> None:
    url, query = store.presigned("releases/m 1+2.bin")
    node.credential("pxe-fetch.s3", query + "\n")
    ran = fetched(node, authority, url)
    assert ran.code == 0, ran.err
    assert (node.out / "model").read_bytes() == BODY
    assert [asked.query for asked in store.asked] == [query]
    signature = query.rpartition("X-Amz-Signature=")[2]
    assert len(signature) == 64
    assert signature not in ran.out + ran.err + json.dumps(ran.state) + left_behind(node)


def test_a_presigned_download_that_breaks_resumes_by_a_range(node: FakeNode, store: S3, authority: Authority) -> None:
    url, query = store.presigned("releases/m 1+2.bin")
    node.credential("pxe-fetch.s3", query)
    store.cuts = [100_000]
    ran = fetched(node, authority, url)
    assert ran.code == 0, ran.err
    assert [(asked.range, asked.status) for asked in store.asked] == [(None, 200), ("bytes=100000-", 206)]
    assert {asked.query for asked in store.asked} == {query}


def test_chunks_of_a_presigned_url_come_by_ranges(node: FakeNode, store: S3, authority: Authority) -> None:
    url, query = store.presigned("releases/m 1+2.bin")
    node.credential("pxe-fetch.s3", query)
    digests = chunk_digests(BODY, size=CHUNK)
    entry = {**node.entry("model", url, BODY, query_credential="pxe-fetch.s3"), "size": len(BODY)}
    del entry["sha256"]
    chunked = entry | {"chunks": {"size": CHUNK, "sha256": digests}}
    ran = node.run_config(chunked, tls={"ca_file": str(authority.certificate)})
    assert ran.code == 0, ran.err
    assert {asked.query for asked in store.asked} == {query}
    assert (node.out / "model").read_bytes() == BODY


def test_a_file_that_is_right_already_is_right_with_another_signature(
    node: FakeNode, store: S3, authority: Authority
) -> None:
    for expires in (600, 700):
        url, query = store.presigned("releases/m 1+2.bin", expires=expires)
        node.credential("pxe-fetch.s3", query)
        assert fetched(node, authority, url).code == 0
    assert len(store.asked) == 1


def test_a_presigned_url_that_has_expired_is_refused_with_the_name_of_its_credential(
    node: FakeNode, store: S3, authority: Authority
) -> None:
    url, query = store.presigned("releases/m 1+2.bin", expires=1)
    node.credential("pxe-fetch.s3", query)
    time.sleep(2.1)
    ran = fetched(node, authority, url)
    assert (ran.code, ran.state["cause"]) == (77, "refused")
    assert [asked.status for asked in store.asked] == [403]  # another attempt would be refused too
    assert "answered 403: the credential pxe-fetch.s3 may have expired, or not be for this file" in ran.err
    assert "X-Amz" not in ran.out + ran.err + json.dumps(ran.state)


def test_a_session_that_has_expired_is_told_too_though_amazon_answers_400(
    node: FakeNode, store: S3, authority: Authority
) -> None:
    url, query = store.presigned("releases/m 1+2.bin", session="FwoGZXIvYXdzEXAMPLE")
    store.session = "FwoGZXIvYXdzEXAMPLE"
    node.credential("pxe-fetch.s3", query)
    ran = fetched(node, authority, url)
    assert (ran.code, [asked.status for asked in store.asked]) == (77, [400])
    assert "answered 400: the credential pxe-fetch.s3 may have expired" in ran.err


def test_a_signature_for_another_object_is_refused(node: FakeNode, store: S3, authority: Authority) -> None:
    url, query = store.presigned("releases/m 1+2.bin")
    node.credential("pxe-fetch.s3", query)
    ran = fetched(node, authority, url.replace("releases", "secrets"))
    assert ran.code == 77
    assert "not be for this file" in ran.err


def test_a_refusal_elsewhere_is_not_blamed_on_a_credential_that_was_not_sent_there(
    node: FakeNode, localhost: ssl.SSLContext, authority: Authority
) -> None:
    node.credential("pxe-fetch.token", "Authorization: Bearer s3cret\n")
    with Server({"/m": Script(faults=[Status(403)] * 9)}, tls=localhost) as other:
        scripts = {"/m": Script(faults=[redirect(other.url("/m"))] * 9)}
        with Server(scripts, tls=localhost) as server:
            token = {"header_credential": "pxe-fetch.token", "query_credential": None}
            ran = fetched(node, authority, server.url("/m"), **token)
        assert {asked.fields.get("authorization") for asked in other.asked} == {None}
    assert ran.code == 77
    assert "the server answered 403" in ran.err
    assert "the credential" not in ran.err


def recipe(title: str) -> tuple[dict[str, Any], str]:
    """The configuration in a section of the page, and its command."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    (config,), (command,) = (re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("yaml", "sh"))
    loaded = yaml.safe_load(config)
    assert isinstance(loaded, dict)
    return loaded, command


def run_recipe(node: FakeNode, authority: Authority, config: dict[str, Any], *, at: tuple[str, str]) -> Ran:
    """Run the page's configuration with its server moved to this machine, and its destinations to the node."""
    file = node.folder / "fetch.yaml"
    text = json.dumps({**config, "allowed_roots": [str(node.out)], "tls": {"ca_file": str(authority.certificate)}})
    file.write_text(text.replace(*at).replace("/srv/models", str(node.out)))
    return node.run("run", "--config", str(file))


class Repository(NamedTuple):
    """A section of the page, and what its server demands when the command has been given these secrets."""

    title: str
    host: str
    secrets: dict[str, str]
    field: str


REPOSITORIES = (
    Repository("JFrog Artifactory", "https://artifactory.lan", {"ARTIFACTORY_TOKEN": "eyJ2ZXIi"}, "Bearer eyJ2ZXIi"),
    Repository("Sonatype Nexus", "https://nexus.lan", {"NEXUS_USER": "u", "NEXUS_PASS": "p:w"}, "Basic dTpwOnc="),
)


@pytest.mark.parametrize("repository", REPOSITORIES, ids=lambda one: one.title.split()[-1])
def test_recipe_of_a_repository_sends_what_it_demands(
    node: FakeNode, localhost: ssl.SSLContext, authority: Authority, repository: Repository
) -> None:
    title, host, secrets, field = repository
    config, command = recipe(title)
    environment = {"PATH": "/usr/bin:/bin", **secrets}
    subprocess.run(["sh", "-ec", command], cwd=node.folder, env=environment, check=True)
    (made,) = node.folder.glob("pxe-fetch.*")
    node.credential(made.name, made.read_text())
    made.unlink()
    base = config["defaults"]["base_url"].removeprefix(host)
    path = f"{base}{config['artifacts'][0]['url']}"
    with Server({path: Script(body=HELLO, then=Demand(name="Authorization", value=field))}, tls=localhost) as server:
        ran = run_recipe(node, authority, config, at=(host, server.url("")))
        assert ran.code == 0, ran.err
        assert (node.out / "model.bin").read_bytes() == HELLO
        assert field.split()[1] not in ran.out + ran.err + json.dumps(ran.state)
        (node.out / "model.bin").unlink()
        node.credential(made.name, "Authorization: Bearer old\n")
        refused = run_recipe(node, authority, config, at=(host, server.url("")))
    assert refused.code == 77
    assert f"answered 401: the credential {made.name} may have expired" in refused.err


def test_recipe_of_azure_has_one_token_for_all_blobs_of_a_container(
    node: FakeNode, localhost: ssl.SSLContext, authority: Authority
) -> None:
    config, _ = recipe("Azure Blob Storage")
    query = "se=2027-01-31T00%3A00Z&sp=r&spr=https&sv=2022-11-02&sr=c&sig=rQ8%2BzT%2Fexample%3D"
    node.credential("pxe-fetch.sas", f"?{query}\r\n")
    paths = [f"/models/releases/{name}" for name in ("model.bin", "tokenizer.json")]
    with Server({path: Script(body=HELLO) for path in paths}, tls=localhost) as server:
        ran = run_recipe(node, authority, config, at=("https://sitemodels.blob.core.windows.net", server.url("")))
        assert {asked.path for asked in server.asked} == {f"{path}?{query}" for path in paths}
    assert ran.code == 0, ran.err


def test_recipe_of_s3_takes_what_stands_before_the_query(node: FakeNode, store: S3, authority: Authority) -> None:
    config, command = recipe("Amazon S3, MinIO, Ceph")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)
        store.put("releases/model.bin", HELLO)
    url, query = store.presigned("releases/model.bin")
    cut = command.split("|")[1].split(">")[0]  # what it does to the presigned URL
    made = subprocess.run(["sh", "-c", cut], input=f"{url}?{query}\n", capture_output=True, text=True, check=True)
    assert made.stdout == f"{query}\n"
    node.credential("pxe-fetch.model", made.stdout)
    there = "https://site-models.s3.eu-central-1.amazonaws.com"
    ran = run_recipe(node, authority, config, at=(there, f"{store.url}/{BUCKET}"))
    assert ran.code == 0, ran.err
