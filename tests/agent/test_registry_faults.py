"""Artifacts in registries that misbehave, and what a configuration may say of one."""

from __future__ import annotations

import hashlib
import json
import ssl
import time

import pytest

from fakes import registry as fake
from fakes.certs import Authority
from fakes.exchange import Exchange, Fault
from fakes.faults import Hang, Serve, Status, drip, redirect
from fakes.layers import (
    BODY,
    CHUNK,
    CHUNK_SIZE,
    CHUNKED,
    CHUNKS,
    CREDENTIAL,
    LAYER,
    LIST,
    LOGIN,
    LOGS_IN,
    PLAIN,
    at,
    entry,
    placed,
    scripts,
)
from fakes.node import FakeNode
from fakes.registry import PASSWORD, USER
from fakes.server import Script, Server


class Tokens:
    """A fault of each request: a token is good for so many requests, and then another one is needed."""

    def __init__(self, server: Server, *, uses: int) -> None:
        self.server, self.uses, self.left, self.given = server, uses, 0, 0

    def answer(self, exchange: Exchange) -> None:
        if exchange.asked.path.startswith("/token"):
            self.left, self.given = self.uses, self.given + 1
            Serve(body=json.dumps({"access_token": f"t{self.given}"}).encode()).answer(exchange)
        elif exchange.asked.fields.get("authorization") != f"Bearer t{self.given}" or not self.left:
            realm = f'Bearer realm="{self.server.url("/token")}",service="s",scope="repository:site/model:pull"'
            Status(401, {"WWW-Authenticate": realm}).answer(exchange)
        else:
            self.left -= 1
            Serve().answer(exchange)


def test_a_token_that_expires_in_the_middle_of_a_blob_is_renewed_there(node: FakeNode) -> None:
    with Server() as server:
        tokens = Tokens(server, uses=3)
        every = {**scripts(CHUNKED, BODY), f"/v2/site/model/blobs/{fake.digest(CHUNKS)}": Script(body=CHUNKS)}
        server.scripts = {path: Script(body=one.body, then=tokens) for path, one in every.items()}
        server.scripts["/token"] = Script(then=tokens)
        ran = node.run_config(entry(node, at(server, CHUNKED)), parallel=4)
        asked = server.asked_for(f"/v2/site/model/blobs/{fake.digest(BODY)}")
    assert (ran.code, placed(node)) == (0, BODY)
    assert tokens.given >= 2
    assert [one.status for one in asked].count(206) >= 3
    assert ran.artifact("m")["attempts"] == 1


def test_a_redirect_to_a_storage_takes_no_authorization_along(node: FakeNode) -> None:
    node.credential(CREDENTIAL, f"{USER}:{PASSWORD}")
    basic = {"WWW-Authenticate": 'Basic realm="site"'}
    with Server({"/bucket": Script(body=BODY)}) as storage, Server() as server:
        there = storage.url("/bucket?X-Amz-Signature=abc")

        class Guard:
            def __init__(self, fault: Fault) -> None:
                self.fault = fault

            def answer(self, exchange: Exchange) -> None:
                is_known = exchange.asked.fields.get("authorization") == LOGIN
                (self.fault if is_known else Status(401, basic)).answer(exchange)

        for path, script in scripts(PLAIN, BODY).items():
            fault = redirect(there, code=307) if "blobs" in path else Serve()
            server.scripts[path] = Script(body=script.body, then=Guard(fault))
        ran = node.run_config(entry(node, at(server, PLAIN), **LOGS_IN))
        assert ["authorization" in asked.fields for asked in storage.asked] == [False]
    assert (ran.code, placed(node)) == (0, BODY)
    assert "abc" not in ran.err


def test_a_manifest_with_another_digest_is_76_and_nothing_is_placed(node: FakeNode) -> None:
    given = f"/v2/site/model/manifests/{fake.digest(PLAIN)}"
    with Server({**scripts(PLAIN, BODY), given: Script(body=PLAIN.replace(b"m.bin", b"n.bin"))}) as server:
        ran = node.run_config(entry(node, at(server, PLAIN)))
    assert (ran.code, ran.state["cause"], node.files()) == (76, "integrity", [])


def test_a_blob_with_other_bytes_is_76_and_the_mirror_with_the_right_ones_serves(node: FakeNode) -> None:
    blob = f"/v2/site/model/blobs/{fake.digest(BODY)}"
    lying = {**scripts(PLAIN, BODY), blob: Script(body=bytes(len(BODY)))}
    with Server(lying) as liar, Server(scripts(PLAIN, BODY)) as server:
        assert node.run_config(entry(node, at(liar, PLAIN))).code == 76
        assert node.files() == []
        ran = node.run_config(entry(node, at(liar, PLAIN), at(server, PLAIN), mirror_order="listed"))
    assert (ran.code, placed(node)) == (0, BODY)
    assert f"attempt 1 at {liar.url(blob)} failed: wrong sha256" in ran.err


def test_a_manifest_that_is_too_large_is_refused_before_it_is_read_to_its_end(node: FakeNode) -> None:
    huge = b'{"layers": [' + b" " * (64 << 20)
    with Server(scripts(huge, BODY)) as server:
        ran = node.run_config(entry(node, at(server, huge)))
        assert server.sent(f"/v2/site/model/manifests/{fake.digest(huge)}") < 32 << 20
    assert (ran.code, node.files()) == (77, [])


INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": fake.INDEX,
        "manifests": [
            {"digest": "sha256:" + "1" * 64, "size": 1, "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": "sha256:" + "2" * 64, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
        ],
    }
).encode()


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (INDEX, f"linux/arm64 sha256:{'1' * 64}, linux/amd64 sha256:{'2' * 64}"),
        (fake.manifest(fake.descriptor(b"x", title="other")), "no layer has the title m.bin; there are: other"),
        (fake.manifest(LAYER, LAYER), "several layers have the title m.bin"),
        (fake.manifest(), "no layer has a title: it may be a container image"),
        (b'{"manifests": []}', "it is an index that names no manifest"),
        (fake.manifest(LAYER | {"size": -1}), "a layer without a size"),
        (fake.manifest(LAYER | {"size": 2**63}), "a layer without a size"),
        (fake.manifest(LAYER | {"size": 10**400}), "a layer without a size"),
        (fake.manifest(LAYER | {"digest": "sha256:../../../etc"}), "a layer without a digest"),
        (fake.manifest({"annotations": 5}), "a layer without a digest"),
        (b"[1, 2]", "it is not the JSON of an image manifest"),
        (b"<html>", "it is not the JSON of an image manifest"),
        (b"[" * 100_000, "it is not the JSON of an image manifest"),
        (fake.manifest(fake.descriptor(b"x", title="\x1b[2J\n")), "there are:  [2J"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_77_and_the_reason_is_told(
    node: FakeNode, manifest: bytes, said: str
) -> None:
    with Server(scripts(manifest, BODY)) as server:
        ran = node.run_config(entry(node, at(server, manifest)))
    assert (ran.code, node.files()) == (77, [])
    assert said in ran.err
    assert "\x1b" not in ran.err


@pytest.mark.parametrize("title", ["../x", "/etc/passwd", "a/../../b", "..", "\u202ecod.exe"])
def test_a_title_says_nothing_about_where_a_file_goes(node: FakeNode, title: str) -> None:
    manifest = fake.manifest(fake.descriptor(BODY, title=title))
    with Server(scripts(manifest, BODY)) as server:
        ran = node.run_config(entry(node, at(server, manifest), title=title))
    assert node.files() == (["m"] if ran.code == 0 else [])
    assert ran.code == (0 if title.isprintable() else 65)


@pytest.mark.parametrize("size", ["", "0", "65537", "1e6", "9" * 40, str(2 * CHUNK)])
def test_a_list_without_a_chunk_size_that_fits_is_left_alone(node: FakeNode, size: str) -> None:
    annotations = {"org.opencontainers.image.title": "m.bin.chunks", CHUNK_SIZE: size}
    manifest = fake.manifest(LAYER, LIST | {"annotations": annotations})
    with Server(scripts(manifest, BODY)) as server:
        ran = node.run_config(entry(node, at(server, manifest)))
    assert (ran.code, placed(node)) == (0, BODY)
    assert f"sha256:{hashlib.sha256(BODY).hexdigest()}" in ran.err


def test_a_login_is_not_sent_by_http_unless_insecure_allows_it(node: FakeNode) -> None:
    node.credential(CREDENTIAL, f"{USER}:{PASSWORD}")
    with Server(scripts(PLAIN, BODY)) as server:
        ran = node.run_config(entry(node, at(server, PLAIN), registry_credential=CREDENTIAL))
        assert (ran.code, ran.state["cause"], server.asked) == (65, "credential-unencrypted", [])


def test_a_registry_by_https_whose_tokens_come_by_http_is_not_told_the_password(
    node: FakeNode, authority: Authority, localhost: ssl.SSLContext
) -> None:
    node.credential(CREDENTIAL, f"{USER}:{PASSWORD}")
    with Server() as tokens:
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url("/token")}",service="s"'}
        guarded = {path: Script(then=Status(401, challenge)) for path in scripts(PLAIN, BODY)}
        with Server(guarded, tls=localhost) as server:
            where = f"localhost:{server.port}/site/model@{fake.digest(PLAIN)}"
            tls = {"ca_file": str(authority.certificate)}
            ran = node.run_config(entry(node, where, registry_credential=CREDENTIAL), tls=tls)
        assert tokens.asked == []
    assert ran.code == 77
    assert "which is unprotected" in ran.err


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Serve(body=b"{}"), "its answer has no token"),
        (Serve(body=b"not json"), "its answer has no token"),
        (Serve(body=b'{"token": "a\\nHost: evil"}'), "its answer has no token"),
        (Serve(body=b" " * (2 << 20)), "its answer is too large"),
        (Status(500), "answered 500"),
    ],
)
def test_a_token_server_without_a_token_is_tried_again_and_then_named(node: FakeNode, answer: Fault, said: str) -> None:
    with Server() as server:
        challenge = {"WWW-Authenticate": f'Bearer realm="{server.url("/token")}",service="s"'}
        server.scripts = {path: Script(then=Status(401, challenge)) for path in scripts(PLAIN, BODY)}
        server.scripts["/token"] = Script(then=answer)
        ran = node.run_config(entry(node, at(server, PLAIN)))
        assert len(server.asked_for("/token?service=s")) == 2
    assert ran.code == 69
    assert said in ran.err
    assert "/token" in ran.err


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        ("", "names no way to log in"),
        ("Negotiate", "names no way to log in"),
        ("Bearer", "names no way to log in"),
        ('Bearer service="s"', "names no token server"),
        ('Bearer realm="/token"', "names a token server whose URL has no scheme"),
        ('Bearer realm="http://[::1/"', "names a token server whose URL has an invalid host or port"),
        ('Bearer realm="ftp://x/"', "names a token server by ftp, which is neither http nor https"),
    ],
)
def test_a_registry_with_another_way_to_log_in_is_refused(node: FakeNode, challenge: str, said: str) -> None:
    with Server() as server:
        fault = Status(401, {"WWW-Authenticate": challenge} if challenge else {})
        server.scripts = {path: Script(then=fault) for path in scripts(PLAIN, BODY)}
        ran = node.run_config(entry(node, at(server, PLAIN)))
    assert ran.code == 77
    assert said in ran.err


@pytest.mark.parametrize("code", [401, 403])
def test_a_token_server_that_does_not_accept_the_credential_says_so(node: FakeNode, code: int) -> None:
    node.credential(CREDENTIAL, f"{USER}:wrong")
    with Server({"/token": Script(then=Status(code))}) as tokens, Server(wants_token(tokens)) as server:
        ran = node.run_config(entry(node, at(server, PLAIN), **LOGS_IN))
        said = f"the token server {tokens.url('/token')}: the server answered {code}: it does not accept"
    assert ran.code == 77
    assert f"{said} registry_credential" in ran.err


def test_a_long_challenge_is_read_quickly(node: FakeNode) -> None:
    with Server() as server:
        fault = Status(401, {"WWW-Authenticate": "Bearer " + "a" * 50_000})
        server.scripts = {path: Script(then=fault) for path in scripts(PLAIN, BODY)}
        began = time.monotonic()
        ran = node.run_config(entry(node, at(server, PLAIN)))
    assert (ran.code, time.monotonic() - began < 10) == (77, True)
    assert "names no token server" in ran.err


QUICK = {"retry": {"attempts_without_progress": 2, "base": "1ms", "max": "5ms"}, "timeouts": {"read": "500ms"}}


def wants_token(tokens: Server) -> dict[str, Script]:
    """What a registry has that answers nothing without a token of `tokens`."""
    challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url("/token")}"'}
    return {path: Script(then=Status(401, challenge)) for path in scripts(PLAIN, BODY)}


def test_a_token_that_comes_byte_by_byte_is_not_waited_for(node: FakeNode) -> None:
    with Server({"/token": Script(body=bytes(1000), then=drip(0, every=0.1))}) as tokens:
        with Server(wants_token(tokens)) as server:
            ran = node.run_config(entry(node, at(server, PLAIN)), defaults=QUICK)
        assert len(tokens.asked) == 2
        assert all(asked.sent < 100 for asked in tokens.asked)
    assert (ran.code, ran.state["cause"]) == (69, "network")
    assert "its answer was not complete within 0.50 s" in ran.err


def test_a_token_server_that_is_silent_holds_up_its_own_registry_alone_and_is_asked_once_for_all(
    node: FakeNode,
) -> None:
    names = [f"m{number}" for number in range(4)]
    with (
        Server({"/token": Script(then=Hang())}) as silent,
        Server(wants_token(silent)) as held_up,
        Server() as server,
    ):
        tokens = Tokens(server, uses=9)
        server.scripts = {path: Script(body=one.body, then=tokens) for path, one in scripts(PLAIN, BODY).items()}
        server.scripts["/token"] = Script(then=tokens)
        entries = [entry(node, at(held_up, PLAIN), name=name) for name in names]
        other = entry(node, at(server, PLAIN), name="other")
        ran = node.run_config(*entries, other, parallel=5, defaults={**QUICK, "timeouts": {"read": "2s"}})
        assert 2 <= len(silent.asked) <= 4
        assert server.asked[-1].at < silent.asked[0].at + 1.9
    assert (ran.code, placed(node, "other")) == (69, BODY)
    assert all("was silent for 2 s" in str(ran.artifact(name)["error"]) for name in names)


# What the configuration may say


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"oci": "registry.lan/site/model:v1"}, "oci-tag"),
        ({"oci": "registry.lan/site/model"}, "oci-invalid"),
        ({"oci": f"model@sha256:{'0' * 64}"}, "oci-invalid"),
        ({"oci": f"site/model@sha256:{'0' * 64}"}, "oci-invalid"),
        ({"oci": "registry.lan/site/model@sha256:123"}, "oci-invalid"),
        ({"oci": f"registry.lan/Site/model@sha256:{'0' * 64}"}, "oci-invalid"),
        ({"oci": f"registry.lan/../model@sha256:{'0' * 64}"}, "oci-invalid"),
        ({"oci": f"registry.lan:99999/model@sha256:{'0' * 64}"}, "oci-invalid"),
        ({"oci": f"registry.lan/m@sha256:{'0' * 64}", "title": None}, "title-missing"),
        ({"oci": f"registry.lan/m@sha256:{'0' * 64}", "sha256": "0" * 64}, "checksum-of-oci"),
        ({"oci": [f"a.lan/m@sha256:{'0' * 64}", f"b.lan/m@sha256:{'1' * 64}"]}, "oci-digests"),
        ({"oci": [f"a.lan/m@sha256:{'0' * 64}", "b.lan/m:v1"]}, "oci-digests"),
        ({"oci": []}, "source-unclear"),
        ({"url": "http://a.lan/m", "sha256": "0" * 64}, "title-misplaced"),
    ],
)
def test_what_is_wrong_with_a_reference_is_told_at_its_line(
    node: FakeNode, keys: dict[str, object], problem: str
) -> None:
    ran = node.run_config({"name": "m", "title": "m.bin", "dest": str(node.out / "m")} | keys)
    assert ran.code == 65
    assert f"error[{problem}]" in ran.err


def test_the_size_of_the_configuration_has_to_be_that_of_the_layer(node: FakeNode) -> None:
    with Server(scripts(PLAIN, BODY)) as server:
        assert node.run_config(entry(node, at(server, PLAIN), size=len(BODY))).code == 0
        ran = node.run_config(entry(node, at(server, PLAIN), name="n", size=5))
    assert ran.code == 77
    assert "has 400000 bytes, but the configuration has `size: 5`" in ran.err


def test_check_names_the_reference_and_the_title(node: FakeNode) -> None:
    place = f"registry.lan/site/model@sha256:{'0' * 64}"
    file = node.folder / "fetch.yaml"
    file.write_text(node.config(entry(node, [f"http://cache-a.lan/site/model@sha256:{'0' * 64}"], place)))
    ran = node.run("check", str(file))
    assert ran.code == 0
    assert f"m: m.bin of http://cache-a.lan/site/model@sha256:{'0' * 64} and 1 mirror ->" in ran.out


def test_a_registry_in_a_tier_behind_a_cache_is_asked_while_the_cache_is_down(node: FakeNode) -> None:
    with Server(scripts(PLAIN, BODY)) as cache, Server(scripts(PLAIN, BODY)) as origin:
        assert node.run_config(entry(node, [at(cache, PLAIN)], at(origin, PLAIN))).code == 0
        assert origin.asked == []
        cache.down()
        ran = node.run_config(entry(node, [at(cache, PLAIN)], at(origin, PLAIN), name="n"))
        assert len(origin.asked) == 2
    assert (ran.code, placed(node, "n")) == (0, BODY)


def test_tiers_of_a_registrys_base_put_a_cache_before_it(node: FakeNode) -> None:
    with Server(scripts(PLAIN, BODY)) as cache, Server(scripts(PLAIN, BODY)) as origin:
        ran = node.run_config(entry(node, at(origin, PLAIN), tiers={origin.url("/"): [cache.url("/")]}))
        assert (len(cache.asked), origin.asked) == (2, [])
    assert (ran.code, placed(node)) == (0, BODY)
    assert f"{at(origin, PLAIN)} has m.bin" in ran.err


@pytest.mark.parametrize("where", ["/", "/docker/", "/v2/docker/", "file:"])
def test_a_cache_is_not_believed_wherever_it_is(node: FakeNode, where: str) -> None:
    evil = bytes(len(BODY))
    lie = fake.manifest(fake.descriptor(evil, title="m.bin"))
    given, blobs = f"v2/site/model/manifests/{fake.digest(PLAIN)}", "v2/site/model/blobs"
    lies = {given: lie, f"{blobs}/{fake.digest(evil)}": evil, f"{blobs}/{fake.digest(BODY)}": evil}
    with (
        Server({f"{where}{path}": Script(body=body) for path, body in lies.items()}) as cache,
        Server(scripts(PLAIN, BODY)) as origin,
    ):
        for path, body in lies.items():
            file = node.folder / "cache" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        base = f"file://{node.folder}/cache/" if where == "file:" else cache.url(where)
        ran = node.run_config(entry(node, at(origin, PLAIN), tiers={origin.url("/"): [base]}))
        assert len(origin.asked) >= 2
    assert (ran.code, placed(node)) == (0, BODY)
    assert "wrong sha256" in ran.err


def test_a_cache_below_a_path_serves(node: FakeNode) -> None:
    below = {f"/docker{path}": script for path, script in scripts(PLAIN, BODY).items()}
    with Server(below) as cache, Server(scripts(PLAIN, BODY)) as origin:
        ran = node.run_config(entry(node, at(origin, PLAIN), tiers={origin.url("/"): [cache.url("/docker/")]}))
        assert (len(cache.asked), origin.asked) == (2, [])
    assert (ran.code, placed(node)) == (0, BODY)


def test_a_cache_whose_urls_name_no_manifest_is_refused(node: FakeNode) -> None:
    with Server(scripts(PLAIN, BODY)) as origin, Server() as cache:
        tiers = {origin.url("/v2/site/"): [cache.url("/files/")]}
        ran = node.run_config(entry(node, at(origin, PLAIN), tiers=tiers))
        assert (cache.asked, origin.asked) == ([], [])
    assert (ran.code, node.files()) == (77, [])
    assert f"which `tiers` puts before {origin.url('/v2/site/model/manifests/')}" in ran.err


def test_a_reference_that_is_moved_to_where_it_has_no_digest_is_refused(node: FakeNode) -> None:
    served = f"/files/model/manifests/{fake.digest(PLAIN)}"
    with Server(scripts(PLAIN, BODY)) as origin, Server({served: Script(body=PLAIN)}) as other:
        node.boot_with(f"pxe-fetch.artifact_url={other.url('/files/')}")
        ran = node.run_config(entry(node, at(origin, PLAIN)), artifact_url=origin.url("/v2/site/"))
        assert other.asked == []
    assert (ran.code, ran.state["cause"], node.files()) == (77, "policy", [])
    assert "it has no digest" in ran.err
