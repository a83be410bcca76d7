"""A configuration by URL on a node that has keys: who may have signed it, how new it is, and what is refused.

The agent runs against a real server; keys and signatures are those of the real minisign.
"""

from __future__ import annotations

import hashlib
import os
import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.faults import Serve, Status, cut
from fakes.minisign import Key, new_key, with_id_of, with_line
from fakes.node import FakeNode, Ran
from fakes.server import Script, Server
from pxe_fetch import __version__, signature
from pxe_fetch.contract import paths
from pxe_fetch.contract.minisign import MinisignError
from pxe_fetch.errors import PolicyError

BODY = random.Random(7).randbytes(5_000)
URL = "/site.yaml"
ETC = paths.CONFIG_ETC
DAY = 86_400


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """The site's key."""
    return new_key(tmp_path_factory.mktemp("keys") / "site")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """A key that nobody trusts, unless a test does."""
    return new_key(tmp_path_factory.mktemp("keys") / "other")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/m": Script(body=BODY)}) as http:
        yield http


def trust(node: FakeNode, *public: bytes) -> None:
    folder = node.root / paths.TRUST_DIR.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(public):
        (folder / f"site{number or ''}.pub").write_bytes(content)


def config(node: FakeNode, server: Server, **others: object) -> str:
    return node.config(node.entry("m", server.url("/m"), BODY), **others)


def publish(server: Server, text: str, signed: bytes | None) -> None:
    server.scripts[URL] = Script(body=text.encode())
    server.scripts[f"{URL}.minisig"] = Script(then=Status(403)) if signed is None else Script(body=signed)


def run(node: FakeNode, server: Server, text: str, signed: bytes | None, *, more: str = "") -> Ran:
    """A run of a node that is told to use `text`, with the signature `signed`."""
    publish(server, text, signed)
    node.boot_with(f"pxe-fetch.config={server.url(URL)}{more}")
    return node.run("run")


def refused(ran: Ran, *words: str) -> None:
    """The run was refused, as a policy of the node and no bug, in one sentence that has all `words`."""
    assert (ran.code, ran.state["cause"]) == (77, "policy"), ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    (line,) = ran.out.splitlines()
    for word in words:
        assert word in line, line


def seen(node: FakeNode) -> str | None:
    file = node.root / paths.SERIAL.lstrip("/")
    return file.read_text() if file.exists() else None


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# Signatures


def test_signed_configuration_by_plain_http_is_used(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    ran = run(node, server, text, key.sign(text))
    assert ran.code == 0, ran.out
    assert node.files() == ["m"]
    assert "(kernel command line, signed by site.pub)" in ran.err.splitlines()[0]


def test_signature_is_looked_for_behind_the_path_and_with_the_query_of_the_configuration(
    node: FakeNode, server: Server, key: Key
) -> None:
    trust(node, key.public)
    text = config(node, server)
    publish(server, text, key.sign(text))
    node.boot_with(f"pxe-fetch.config={server.url(URL)}?for=node7#not-sent")
    assert node.run("run").code == 0
    assert [asked.path for asked in server.asked][:2] == [f"{URL}?for=node7", f"{URL}.minisig?for=node7"]


def test_a_file_of_this_node_needs_a_signature_too(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    file = node.folder / "given.yaml"
    file.write_text(text)
    node.boot_with(f"pxe-fetch.config=file://{file}")
    refused(node.run("run"), "has no signature", f"{file}.minisig")
    file.with_name("given.yaml.minisig").write_bytes(key.sign(text))
    assert node.run("run").code == 0


def of_another_file(key: Key, _other: Key, _text: str) -> bytes:
    return key.sign("version: 1\n")


def tampered_comment(key: Key, _other: Key, text: str) -> bytes:
    return with_line(key.sign(text), 2, b"trusted comment: timestamp:1\tfile:newest.yaml\thashed")


def comment_of_another(key: Key, _other: Key, text: str) -> bytes:
    """With its signature, which is one of another file's signature and the comment."""
    lines = key.sign("version: 1\n", "-t", "a comment").split(b"\n")
    return with_line(with_line(key.sign(text), 2, lines[2]), 3, lines[3])


REFUSED: dict[str, tuple[Callable[[Key, Key, str], bytes], str]] = {
    "by a key that is not trusted": (lambda _, other, text: other.sign(text), "this node trusts"),
    "by another key with the id of the trusted one": (
        lambda key, other, text: with_id_of(other.sign(text), key.public),
        "is not a signature of these bytes by that key",
    ),
    "by the trusted key under another id": (
        lambda key, other, text: with_id_of(key.sign(text), other.public),
        "this node trusts",
    ),
    "of another file": (of_another_file, "is not a signature of these bytes by that key"),
    "with a tampered trusted comment": (tampered_comment, "another trusted comment"),
    "with the trusted comment of another": (comment_of_another, "another trusted comment"),
    "in the legacy format": (lambda key, _, text: key.sign(text, "-l"), "legacy format"),
    "without its last line": (lambda key, _, text: key.sign(text).rpartition(b"\ntrusted")[0], "is not a signature"),
    "cut in the middle of a line": (lambda key, _, text: key.sign(text)[:120], "is not a signature"),
    "with more behind it": (lambda key, _, text: key.sign(text) + b"more\n", "is not a signature"),
    "an empty file": (lambda *_: b"", "is not a signature"),
    "a page of HTML": (lambda *_: b"<!doctype html>\n<title>It works</title>\n\n\n", "is not a signature"),
    "a key": (lambda key, *_: key.public, "is not a signature"),
    "bytes": (lambda *_: random.Random(1).randbytes(300), "is not a signature"),
    "lines of base64 that are too short": (
        lambda *_: b"untrusted comment: x\nRUQ=\ntrusted comment: x\nAAAA\n",
        "is not a signature",
    ),
}


@pytest.mark.parametrize(("make", "word"), REFUSED.values(), ids=REFUSED.keys())
def test_signature_is_refused_and_nothing_is_fetched(
    make: Callable[[Key, Key, str], bytes], word: str, *, node: FakeNode, server: Server, key: Key, other: Key
) -> None:
    trust(node, key.public)
    text = config(node, server, serial=9)
    refused(run(node, server, text, make(key, other, text)), f"{URL}.minisig", word)
    assert not server.asked_for("/m")
    assert (node.out.exists(), seen(node)) == (False, None)


def test_message_names_the_keys_as_minisign_does(node: FakeNode, server: Server, key: Key, other: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    refused(run(node, server, text, other.sign(text)), f"by the key {other.id}", f"{key.id} (site.pub)")


def test_configuration_without_a_signature_is_refused(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    refused(run(node, server, text, None), "has no signature", "403", "minisign -S", "config.sha256=")
    server.scripts[f"{URL}.minisig"] = Script(then=Status(404))
    refused(node.run("run"), "has no signature", "404")
    assert not server.asked_for("/m")


@pytest.mark.parametrize("framing", ["length", "close", "chunked"])
def test_signature_of_gigabytes_is_left_after_some_kilobytes(
    framing: str, node: FakeNode, server: Server, key: Key
) -> None:
    trust(node, key.public)
    publish(server, config(node, server), None)
    huge = node.folder / "huge"
    huge.touch()
    os.truncate(huge, 8 << 30)
    server.scripts[f"{URL}.minisig"] = Script(body=huge, then=Serve(framing=framing))
    node.boot_with(f"pxe-fetch.config={server.url(URL)}")
    refused(node.run("run"), "has no signature", "larger than the 4096 bytes allowed")
    assert server.sent(f"{URL}.minisig") < 64 << 20


def test_signature_that_breaks_off_is_asked_for_again(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    publish(server, text, key.sign(text))
    server.scripts[f"{URL}.minisig"] = Script(body=key.sign(text), faults=[cut(0.5)])
    node.boot_with(f"pxe-fetch.config={server.url(URL)}")
    assert node.run("run").code == 0


def test_pair_of_which_one_is_just_being_replaced_is_asked_for_again(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    publish(server, text, key.sign(text))
    server.scripts[URL] = Script(body=text.encode(), faults=[Serve(body=b"version: 1\n")])
    node.boot_with(f"pxe-fetch.config={server.url(URL)}")
    assert node.run("run").code == 0
    assert len(server.asked_for(URL)) == len(server.asked_for(f"{URL}.minisig")) == 2


def test_either_of_two_keys_may_sign(node: FakeNode, server: Server, key: Key, other: Key) -> None:
    trust(node, key.public, other.public)
    text = config(node, server)
    for one, name in ((key, "site.pub"), (other, "site1.pub")):
        ran = run(node, server, text, one.sign(text))
        assert ran.code == 0, ran.out
        assert f"signed by {name})" in ran.err


def test_untrusted_comment_may_say_anything(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, with_line(key.public, 0, b"untrusted comment: of the site \xff"))
    text = config(node, server)
    assert run(node, server, text, with_line(key.sign(text), 0, b"untrusted comment: \xff")).code == 0


def test_digest_on_the_command_line_needs_no_signature(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert run(node, server, text, None, more=f" pxe-fetch.config.sha256={digest}").code == 0
    assert not server.asked_for(f"{URL}.minisig")
    refused(run(node, server, text, key.sign(text), more=f" pxe-fetch.config.sha256={'0' * 64}"), "does not match")


def test_https_alone_is_not_enough_where_there_are_keys(
    node: FakeNode,
    server: Server,
    key: Key,
    *,
    localhost: ssl.SSLContext,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pxe_fetch.transport.session.CA_BUNDLES", (str(authority.certificate),))
    text = config(node, server)
    with Server(tls=localhost) as secure:
        assert run(node, secure, text, None).code == 0
        trust(node, key.public)
        refused(run(node, secure, text, None), "has no signature")
        assert run(node, secure, text, key.sign(text)).code == 0


def test_other_sources_need_no_signature(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    node.write(ETC, config(node, server))
    assert node.run("run").code == 0
    node.credential(paths.CREDENTIAL, config(node, server, serial=1, expires="2001-01-01"))
    assert node.run("run").code == 0


@pytest.mark.parametrize("what", ["secret", "empty", "huge", "text", "legacy", "dangling"])
def test_damaged_key_is_refused_and_never_shown(
    what: str, node: FakeNode, server: Server, key: Key, other: Key
) -> None:
    contents = {
        "secret": other.secret,
        "empty": b"",
        "huge": key.public + b"\n" * 5000,
        "text": b"untrusted comment: a\nprecious\n",
        "legacy": other.public.replace(b"\nRW", b"\nRU"),
    }
    trust(node, key.public, contents.get(what, b""))
    damaged = node.root / paths.TRUST_DIR.lstrip("/") / "site1.pub"
    if what == "dangling":
        damaged.unlink()
        damaged.symlink_to("nowhere")
    text = config(node, server)
    ran = run(node, server, text, key.sign(text))
    refused(ran, f"{damaged} ", "pack the image again")
    assert not server.asked
    shown = ran.out + ran.err + str(ran.state)
    assert not any(line.decode(errors="replace") in shown for line in contents.get(what, b"").split(b"\n") if line)


def test_folder_without_a_key_is_no_signing(node: FakeNode, server: Server, key: Key) -> None:
    trust(node)
    (node.root / paths.TRUST_DIR.lstrip("/") / "README").write_text("keys go here\n")
    text = config(node, server)
    refused(run(node, server, text, key.sign(text)), "has no digest")


def mutated(content: bytes, chance: random.Random) -> bytes:
    """`content` with a byte changed, removed or added, a part cut off, doubled or made noise: never the same."""
    while True:
        at, to = sorted(chance.choices(range(len(content) + 1), k=2))
        new = chance.choice(
            [
                content[:at] + chance.randbytes(1) + content[at + 1 :],
                content[:at] + chance.randbytes(1) + content[at:],
                content[:at] + content[at + 1 :],
                content[:at],
                content[:at] + content[to:],
                content[:to] + content[at:],
                content[:at] + chance.randbytes(to - at) + content[to:],
                content.swapcase()[:at] + content[at:],
            ]
        )
        if new != content:
            return new


def is_the_same(one: bytes, two: bytes) -> bool:
    """Whether only the untrusted comment, or the end of the last line, is another."""
    is_comment = one.startswith(b"untrusted comment: ")
    return is_comment and one.removesuffix(b"\n").split(b"\n")[1:] == two.removesuffix(b"\n").split(b"\n")[1:]


def test_ten_thousand_mutations_of_signature_and_key_are_all_refused(key: Key, tmp_path: Path) -> None:
    chance, body = random.Random(20_261_130), b"version: 1\n"
    signed = key.sign(body)
    folder = tmp_path / "trust"
    folder.mkdir()
    file = folder / "site.pub"
    for number in range(10_000):
        content, public = (mutated(signed, chance), key.public) if number % 3 else (signed, mutated(key.public, chance))
        file.write_bytes(public)
        try:
            keys = signature.read_keys(folder)
            signer = signature.signer(body, content, keys=keys)
        except (MinisignError, PolicyError):
            continue
        assert is_the_same(content, signed), content
        assert is_the_same(public, key.public), public
        assert signer == "site.pub"


def test_mutations_of_the_signature_are_refused_by_a_run(node: FakeNode, server: Server, key: Key) -> None:
    trust(node, key.public)
    text = config(node, server)
    chance, signed = random.Random(3), key.sign(text)
    for _ in range(20):
        content = mutated(signed, chance)
        if not is_the_same(content, signed):
            refused(run(node, server, text, content))


def test_nacl_is_imported_only_for_a_signature(node: FakeNode, server: Server, key: Key) -> None:
    say = "import atexit, sys\natexit.register(lambda: print('nacl' in sys.modules))\n"
    text = config(node, server)
    publish(server, text, key.sign(text))
    digest = f"pxe-fetch.config.sha256={hashlib.sha256(text.encode()).hexdigest()}"
    trust(node, key.public)
    for arguments, expected in ((digest, "False"), ("", "True")):
        node.boot_with(f"pxe-fetch.config={server.url(URL)} {arguments}")
        with node.start("run", before=say) as process:
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out.splitlines()[-1] == expected


# How new it is


@contextmanager
def signing(node: FakeNode, server: Server, key: Key) -> Iterator[Callable[..., Ran]]:
    """Runs with signed configurations, of the given keys."""
    trust(node, key.public)

    def signed(**others: object) -> Ran:
        text = config(node, server, **others)
        return run(node, server, text, key.sign(text))

    yield signed


def test_serial_lower_than_the_highest_that_was_used_is_refused(node: FakeNode, server: Server, key: Key) -> None:
    with signing(node, server, key) as signed:
        assert signed(serial=7).code == 0
        assert seen(node) == "7\n"
        assert signed(serial=7).code == 0
        assert signed(serial=12).code == 0
        before = node.out.stat().st_mtime_ns
        refused(signed(serial=7), "the serial 7", paths.SERIAL, "12")
        refused(signed(), "has no serial", paths.SERIAL, "12")
        assert seen(node) == "12\n"
        assert (node.files(), node.out.stat().st_mtime_ns) == (["m"], before)


@pytest.mark.parametrize("place", [paths.CONFIG_ETC, paths.CONFIG_USR])
def test_serial_lower_than_the_packed_one_is_refused(place: str, node: FakeNode, server: Server, key: Key) -> None:
    node.write(place, config(node, server, serial=5))
    with signing(node, server, key) as signed:
        refused(signed(serial=4), "the serial 4", place, "5")
        refused(signed(), "has no serial", place, "5")
        assert seen(node) is None
        assert signed(serial=5).code == 0


def test_serial_of_0_counts(node: FakeNode, server: Server, key: Key) -> None:
    with signing(node, server, key) as signed:
        assert signed().code == 0
        assert signed(serial=0).code == 0
        refused(signed(), "has no serial")


def test_serial_of_what_was_refused_or_invalid_is_not_kept(node: FakeNode, server: Server, key: Key) -> None:
    with signing(node, server, key) as signed:
        assert signed(serial=3).code == 0
        refused(signed(serial=9, expires="2020-01-01"), "expired")
        assert signed(serial=9, parallel="many").code == 65
        text = config(node, server, serial=9)
        refused(run(node, server, text, key.sign("version: 1\n")))
        assert seen(node) == "3\n"


def test_serial_and_expiry_hold_for_a_configuration_by_digest_too(node: FakeNode, server: Server) -> None:
    def pinned(**others: object) -> Ran:
        text = config(node, server, **others)
        return run(
            node, server, text, None, more=f" pxe-fetch.config.sha256={hashlib.sha256(text.encode()).hexdigest()}"
        )

    assert pinned(serial=4).code == 0
    refused(pinned(serial=3), "the serial 3")
    refused(pinned(expires=iso(time.time() - 10)), "expired")
    assert pinned().code == 0  # there are no keys, so nobody said that it must have one
    assert seen(node) == "4\n"


def test_what_has_expired_is_refused_by_this_nodes_clock(node: FakeNode, server: Server, key: Key) -> None:
    with signing(node, server, key) as signed:
        assert signed(expires=iso(time.time() + 100)).code == 0
        assert signed(expires=time.strftime("%Y-%m-%d", time.gmtime())).code == 0
        ran = signed(expires=iso(time.time() - 10))
        refused(ran, "expired at ", f"this node's clock says {iso(time.time())[:10]}")
        refused(signed(expires="2026-02-28"), "expired at 2026-02-28T23:59:59Z")


def test_clock_that_is_behind_the_image_is_told_and_does_not_help_what_has_expired(
    node: FakeNode, server: Server, key: Key
) -> None:
    packed = node.write(ETC, config(node, server))
    later = time.time() + 100 * DAY
    os.utime(packed, (later, later))
    with signing(node, server, key) as signed:
        ran = signed(expires=iso(later + 100))
        assert ran.code == 0
        (line,) = [line for line in ran.err.splitlines() if "this node's clock says" in line]
        assert f"{packed} is of {iso(later)}" in line
        refused(signed(expires=iso(later - 100)), "expired", "this node's clock says", f"is of {iso(later)}")
        assert "clock says" not in signed(serial=1).err


def test_damaged_file_of_the_highest_serial_is_refused(node: FakeNode, server: Server, key: Key) -> None:
    with signing(node, server, key) as signed:
        for content in ("", "seven\n", "9" * 100):
            file = node.write(paths.SERIAL, content)
            refused(signed(serial=7), f"{file} cannot be read as a number", "remove it")
            assert file.read_text() == content


def test_serial_that_cannot_be_kept_is_told_and_the_run_goes_on(node: FakeNode, server: Server, key: Key) -> None:
    kept = node.root / paths.SERIAL.lstrip("/")
    kept.with_name("serial.new").mkdir(parents=True)
    with signing(node, server, key) as signed:
        ran = signed(serial=7)
    assert ran.code == 0
    assert f"{kept} cannot be written" in ran.err


def test_packed_configuration_that_is_invalid_leaves_its_serial_unknown(
    node: FakeNode, server: Server, key: Key
) -> None:
    packed = node.write(ETC, "version: 1\nserial: many\n")
    with signing(node, server, key) as signed:
        refused(signed(serial=7), f"the serial in {packed} is unknown")
        packed.unlink()
        packed.symlink_to("nowhere")
        refused(signed(serial=7, expires="2099-01-01"), f"the serial in {packed} is unknown")


def test_no_artifact_goes_to_where_the_serial_is_kept(node: FakeNode, server: Server) -> None:
    entry = {**node.entry("m", server.url("/m"), BODY), "dest": paths.SERIAL}
    ran = node.run_config(entry, allowed_roots=["/var/lib"])
    assert (ran.code, ran.state["cause"]) == (65, "dest-protected")


# What a configuration says about itself


def test_configuration_for_a_newer_agent_is_65_and_says_only_that(node: FakeNode, server: Server, key: Key) -> None:
    with signing(node, server, key) as signed:
        ran = signed(serial=2, min_agent="0.4", quantum=True, parallel="many")
    assert (ran.code, ran.state["cause"]) == (65, "agent-too-old")
    assert f"this configuration needs pxe-fetch 0.4 or later; this is {__version__}" in ran.out
    assert "pack the image again with a newer pxe-pack" in ran.out
    assert "quantum" not in ran.out + ran.err
    assert seen(node) is None


def test_x_keys_are_ignored_by_run_and_check(node: FakeNode, server: Server) -> None:
    entry = {**node.entry("m", server.url("/m"), BODY), "x-owner": ["team", {"a": None}]}
    file = node.folder / "x.yaml"
    file.write_text(node.config(entry, **{"x-site": {"b": 1}}))
    assert node.run("check", str(file)).code == 0
    assert node.run("run", "--config", str(file)).code == 0
