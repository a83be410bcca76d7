"""What goes over the wire: header fields, redirects, proxies, and where secrets do not go."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.faults import Raw, Serve, Status, redirect
from fakes.server import Script, Server
from fakes.transfers import Bench
from fakes.tunnel import Tunnel
from pxe_fetch import __version__
from pxe_fetch.contract.model import Proxy, RetryPolicy, Tls
from pxe_fetch.contract.url import parse
from pxe_fetch.contract.validators import SCHEMES
from pxe_fetch.errors import FetchError, IntegrityError, NetworkError, PolicyError, RefusedError
from pxe_fetch.transport import Transports
from pxe_fetch.transport.sockets import LOOK

BODY = random.Random(6).randbytes(50_000)
FEW = RetryPolicy(attempts_without_progress=2)
SECRET = {"X-Site": "lab", "Authorization": "Bearer s3cr3t"}


@pytest.fixture
def tls(authority: Authority) -> Tls:
    return Tls(ca_file=str(authority.certificate))


@pytest.fixture
def secure(localhost: ssl.SSLContext) -> Iterator[Server]:
    with Server({"/m": Script(body=BODY)}, tls=localhost) as server:
        yield server


def test_asks_for_the_bytes_as_they_are(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m?v=1")], headers=SECRET).download()
        [asked] = server.asked
    assert asked.path == "/m?v=1"
    assert dict(asked.fields) == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": f"pxe-fetch/{__version__}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "x-site": "lab",
        "authorization": "Bearer s3cr3t",
    }


def test_fields_of_the_configuration_do_not_change_what_is_asked_for(tmp_path: Path) -> None:
    headers = {"accept-encoding": "gzip", "Connection": "close", "User-Agent": "site/1"}
    with Server({"/m": Script(body=BODY)}) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], headers=headers).download()
        fields = server.asked[0].fields
    assert (fields["accept-encoding"], fields["connection"]) == ("identity", "keep-alive")
    assert fields["user-agent"] == "site/1"


def test_a_file_stored_compressed_and_labelled_so_is_taken_as_it_is(tmp_path: Path) -> None:
    labelled = Serve(fields={"Content-Encoding": "gzip"})
    with Server({"/m.tar.gz": Script(body=BODY, then=labelled)}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.tar.gz")]).download().attempts == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_follows_a_redirect_with_the_range_and_the_fields_of_the_same_origin(code: int, tmp_path: Path) -> None:
    with Server({"/m": Script(then=redirect("n?x", code=code)), "/n": Script(body=BODY)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], headers=SECRET)
        bench.part.write_bytes(BODY[:10])
        assert bench.download().bytes_received == len(BODY) - 10
        [first, second] = server.asked
    assert second.path == "/n?x"
    assert second.range == "bytes=10-"
    assert second.fields["x-site"] == "lab"
    assert first.connection == second.connection


def test_a_redirect_to_another_copy_costs_no_fresh_start(tmp_path: Path) -> None:
    # Copies on several servers have ETags of their own; If-Range would make the second one send all of it again.
    copies = [Script(body=BODY, faults=[Serve(until=0.5, etag='"1"')]), Script(body=BODY, then=Serve(etag='"2"'))]
    with Server({"/1": copies[0], "/2": copies[1]}) as server:
        server.scripts["/m"] = Script(faults=[redirect("/1")], then=redirect("/2"))
        received = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download()
        assert server.asked_for("/2")[0].if_range is None
    assert received.bytes_received == len(BODY)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/\u00dcbung/\u00e4.bin".encode().decode("latin-1"), "/%C3%9Cbung/%C3%A4.bin"),
        ("/\u00fc", "/%FC"),  # a Latin-1 one
        ("/a%2fb/../c?%7e", "/c?%7e"),
        ("./n", "/a/n"),
        ("../n", "/n"),
        ("?n", "/a/m?n"),
    ],
)
def test_a_redirect_leads_where_its_location_says(location: str, path: str, tmp_path: Path) -> None:
    scripts = {path.partition("?")[0]: Script(body=BODY), "/a/m": Script(faults=[redirect(location)], body=BODY)}
    with Server(scripts) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/a/m")]).download().attempts == 1
        assert [asked.path for asked in server.asked] == ["/a/m", path]


@pytest.mark.parametrize("location", ["///m", "http:///m", "http:m", "http://a b/", "http://h:99999/", "http://[::1/"])
def test_a_redirect_to_what_is_no_url_is_the_servers_failure_and_leads_nowhere(location: str, tmp_path: Path) -> None:
    with Server({"/m": Script(faults=[redirect(location)], body=BODY)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        assert bench.download().attempts == 2
        assert "a redirect (302) whose Location" in str(bench.events.of("retrying")[0]["error"])
        assert [asked.path for asked in server.asked] == ["/m", "/m"]


def test_a_redirect_within_the_origin_keeps_the_urls_own_credentials(tmp_path: Path) -> None:
    with Server() as server:
        server.scripts = {"/m": Script(then=redirect(server.url("/n"))), "/n": Script(body=BODY)}
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m", user="joe:hunter2")]).download()
        first, second = server.asked
        assert first.fields["authorization"] == second.fields["authorization"]


def test_secrets_do_not_follow_a_redirect_to_another_origin(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as other, Server({"/m": Script(then=redirect(other.url("/m")))}) as server:
        url = server.url("/m", user="joe:hunter2")
        Bench(body=BODY, folder=tmp_path, urls=[url], headers={"X-Site": "lab"}).download()
        assert server.asked[0].fields["authorization"].startswith("Basic ")
        assert server.asked[0].fields["x-site"] == "lab"
        assert not {"authorization", "x-site", "cookie", "referer"} & set(other.asked[0].fields)


def test_a_redirect_back_to_the_first_origin_gets_its_fields_again(tmp_path: Path) -> None:
    with Server() as one, Server() as two:
        one.scripts = {"/m": Script(then=redirect(two.url("/m"))), "/n": Script(body=BODY)}
        two.scripts = {"/m": Script(then=redirect(one.url("/n")))}
        Bench(body=BODY, folder=tmp_path, urls=[one.url("/m")], headers={"X-Site": "lab"}).download()
        assert [asked.fields.get("x-site") for asked in (*one.asked, *two.asked)] == ["lab", "lab", None]


def test_ten_redirects_are_followed_and_no_eleventh(tmp_path: Path) -> None:
    scripts = {f"/{number}": Script(then=redirect(f"/{number + 1}")) for number in range(11)}
    with Server(scripts | {"/11": Script(body=BODY)}) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/1")]).download()
        with pytest.raises(NetworkError, match="more than 10 redirects"):
            Bench(body=BODY, folder=tmp_path, urls=[server.url("/0")], name="other").download()


def test_cookies_are_not_kept(tmp_path: Path) -> None:
    cookie = Serve(fields={"Set-Cookie": "id=1"})
    with Server({"/m": Script(body=BODY, then=cookie)}) as server:
        transports = Transports()
        for name in ("a", "b"):
            Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], name=name, transports=transports).download()
        transports.close()
        assert "cookie" not in server.asked[1].fields


def test_a_redirect_to_https_is_followed(secure: Server, tls: Tls, tmp_path: Path) -> None:
    with Server({"/m": Script(then=redirect(secure.url("/m")))}) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], tls=tls).download()


def test_a_redirect_from_https_to_http_is_refused(secure: Server, tls: Tls, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as plain:
        secure.scripts["/m"] = Script(then=redirect(plain.url("/m")))
        with pytest.raises(PolicyError, match="from https to http"):
            Bench(body=BODY, folder=tmp_path, urls=[secure.url("/m")], tls=tls).download()
        assert plain.asked == []


def test_the_environment_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login joe password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Server({"/m": Script(body=BODY)}) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download()
        assert "authorization" not in server.asked[0].fields


def test_http_goes_through_the_proxy(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        proxy = Proxy(http=server.url("", user="joe:hunter2"))
        Bench(body=BODY, folder=tmp_path, urls=["http://site.example/m"], proxy=proxy).download()
        [asked] = server.asked
    assert asked.path == "http://site.example/m"
    assert asked.fields["proxy-authorization"].startswith("Basic ")


def test_https_goes_through_a_tunnel_of_the_proxy(secure: Server, tls: Tls, tmp_path: Path) -> None:
    # The handshake has all of the connect timeout, not the pause between two looks at the clock.
    with Tunnel(delay=2 * LOOK) as tunnel:
        proxy = Proxy(https=tunnel.url)
        bench = Bench(body=BODY, folder=tmp_path, urls=[secure.url("/m")], tls=tls, proxy=proxy, headers=SECRET)
        bench.download()
    [head] = tunnel.asked
    assert head.startswith(f"CONNECT localhost:{secure.port} ")
    assert "s3cr3t" not in head


def test_http_goes_through_a_proxy_that_is_asked_by_https(secure: Server, tls: Tls, tmp_path: Path) -> None:
    proxy = Proxy(http=secure.url("", user="joe:hunter2"))
    Bench(body=BODY, folder=tmp_path, urls=["http://site.example/m"], tls=tls, proxy=proxy).download()
    [asked] = secure.asked
    assert asked.path == "http://site.example/m"
    assert asked.fields["proxy-authorization"].startswith("Basic ")


def test_https_goes_through_a_tunnel_of_a_proxy_that_is_asked_by_https(
    secure: Server, localhost: ssl.SSLContext, tls: Tls, tmp_path: Path
) -> None:
    transports = Transports(tls=tls, proxy=Proxy(https=(tunnel := Tunnel(tls=localhost)).url))
    with tunnel:
        for name in ("a", "b"):
            Bench(body=BODY, folder=tmp_path, urls=[secure.url("/m")], name=name, transports=transports).download()
        transports.close()
    [head] = tunnel.asked
    assert head.startswith(f"CONNECT localhost:{secure.port} ")


@pytest.mark.parametrize(("code", "cause"), [(407, RefusedError), (403, RefusedError), (502, NetworkError)])
def test_a_tunnel_that_is_not_dug_is_explained(code: int, cause: type[Exception], tls: Tls, tmp_path: Path) -> None:
    with Tunnel(refusal=code) as tunnel:
        proxy = Proxy(https=tunnel.url)
        bench = Bench(body=BODY, folder=tmp_path, urls=["https://a.example/m"], tls=tls, proxy=proxy, retry=FEW)
        with pytest.raises(cause, match=f"proxy.*{code}"):
            bench.download()


@pytest.mark.parametrize(
    "answer",
    [
        "201 Created\r\nContent-Length: 0",
        "204 No Content",
        "299 Fine\r\nTransfer-Encoding: gzip",
        "103 Early Hints\r\n\r\nHTTP/1.1 200 OK",
    ],
)
def test_any_success_says_that_the_proxy_has_connected(answer: str, secure: Server, tls: Tls, tmp_path: Path) -> None:
    with Tunnel(status=answer) as tunnel:
        proxy = Proxy(https=tunnel.url)
        Bench(body=BODY, folder=tmp_path, urls=[secure.url("/m")], tls=tls, proxy=proxy).download()
        assert len(tunnel.asked) == 1


@pytest.mark.parametrize("is_asked_by_https", [False, True])
def test_a_tunnels_password_is_sent_to_the_proxy_and_to_nobody_else(
    is_asked_by_https: bool,  # noqa: FBT001
    secure: Server,
    localhost: ssl.SSLContext,
    tls: Tls,
    tmp_path: Path,
) -> None:
    with Tunnel(wants="nöde:p:w %", tls=localhost if is_asked_by_https else None) as tunnel:
        url = tunnel.url.replace("//", "//n%C3%B6de:p%3Aw%20%25@")
        Bench(body=BODY, folder=tmp_path, urls=[secure.url("/m")], tls=tls, proxy=Proxy(https=url)).download()
    assert "proxy-authorization" not in secure.asked[0].fields


def test_a_proxys_password_goes_along_with_plain_requests_to_it_alone(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as origin, Server({}) as proxy:
        proxy.scripts["/m"] = Script(then=redirect(origin.url("/m")))
        settings = Proxy(http=proxy.url("").replace("//", "//u:p@"), no_proxy=("127.0.0.1",))
        Bench(body=BODY, folder=tmp_path, urls=["http://site.example/m"], proxy=settings).download()
    assert proxy.asked[0].fields["proxy-authorization"] == "Basic dTpw"
    assert "proxy-authorization" not in origin.asked[0].fields


@pytest.mark.parametrize(
    ("offers", "said"),
    [
        (("Negotiate", "NTLM"), "offers Negotiate, NTLM, but not Basic authentication"),
        (('Digest realm="a, b", nonce="c"',), "offers Digest, but not Basic authentication"),
        (("Negotiate", 'basic realm="x"'), "wants a user and password"),
    ],
)
def test_a_proxy_that_offers_no_basic_authentication_is_told_as_such(
    offers: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    fields = "".join(f"Proxy-Authenticate: {offer}\r\n" for offer in offers)
    answer = Raw(f"HTTP/1.1 407 No\r\n{fields}Content-Length: 0\r\n\r\n".encode())
    with Server({"/m": Script(then=answer)}) as forward:
        proxy = Proxy(http=forward.url(""))
        with pytest.raises(RefusedError, match=said):
            Bench(body=BODY, folder=tmp_path, urls=["http://site.example/m"], proxy=proxy).download()


def test_a_redirect_may_have_its_location_on_the_next_line(tmp_path: Path) -> None:
    """A field that goes on in a line that begins with a blank (RFC 9112, 5.2)."""
    with Server({"/to": Script(body=BODY)}) as server:
        location = server.url("/to").encode()
        server.scripts["/m"] = Script(
            then=Raw(b"HTTP/1.1 302 F\r\nLocation:\r\n  %b\r\nContent-Length: 0\r\n\r\n" % location)
        )
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=FEW).download()


@pytest.mark.parametrize(
    ("userinfo", "said"), [("", "wants a user and password: .*proxy.credential"), ("u:x@", "does not accept the user")]
)
def test_a_proxy_that_wants_a_password_says_which_key_holds_it(
    userinfo: str, said: str, tls: Tls, tmp_path: Path
) -> None:
    with Tunnel(wants="u:p") as tunnel, Server({"/m": Script(then=Status(407))}) as forward:
        for url, to in (("https://a.example/m", tunnel.url), ("http://site.example/m", forward.url(""))):
            shown = to.replace("//", f"//{userinfo}")
            bench = Bench(body=BODY, folder=tmp_path, urls=[url], tls=tls, proxy=Proxy(http=shown, https=shown))
            with pytest.raises(RefusedError, match=f"^the proxy 127.0.0.1:[0-9]+ {said}"):
                bench.download()


def test_a_tunnel_to_an_address_of_ipv6_is_asked_for_with_its_brackets(tls: Tls, tmp_path: Path) -> None:
    with Tunnel(refusal=502) as tunnel:
        bench = Bench(body=BODY, folder=tmp_path, urls=["https://[::1]:4433/m"], tls=tls, retry=FEW)
        bench.proxy = Proxy(https=tunnel.url)
        with pytest.raises(NetworkError, match=r"did not connect to \[::1\]:4433: it answered 502"):
            bench.download()
    assert tunnel.asked[0].startswith("CONNECT [::1]:4433 ")


@pytest.mark.parametrize("url", ["http://a.example/m", "https://a.example/m"])
@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://127.0.0.1:1", "^the proxy 127.0.0.1:1 refused the connection"),
        ("http://cache.invalid:3128", "^the name of the proxy cache.invalid:3128 cannot be resolved"),
    ],
)
def test_a_proxy_that_is_not_to_be_reached_is_named(proxy: str, said: str, url: str, tls: Tls, tmp_path: Path) -> None:
    ways = Proxy(http=proxy, https=proxy)
    with pytest.raises(NetworkError, match=said):
        Bench(body=BODY, folder=tmp_path, urls=[url], tls=tls, proxy=ways, retry=FEW).download()


def test_a_connection_that_breaks_behind_a_proxy_names_both(tmp_path: Path) -> None:
    with Server({"/m": Script(then=Raw(b""))}) as server:
        proxy = Proxy(http=server.url(""))
        with pytest.raises(NetworkError, match=rf"a\.example \(through the proxy 127\.0\.0\.1:{server.port}\) closed"):
            Bench(body=BODY, folder=tmp_path, urls=["http://a.example/m"], proxy=proxy, retry=FEW).download()


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        (("10.0.0.0/8",), "http://10.1.2.3/m", True),
        (("10.0.0.0/8",), "http://11.1.2.3/m", False),
        (("10.1.2.3",), "http://10.1.2.3:8080/m", True),
        (("fd00::/8",), "http://[fd00::1]/m", True),
        (("10.0.0.0/8",), "http://ten.example/m", False),
        (("0.1",), "http://10.0.0.1/m", False),
        (("*",), "http://10.0.0.1/m", True),
        (("example.com",), "http://example.com/m", True),
        (("example.com",), "http://a.EXAMPLE.com./m", True),
        (("example.com",), "http://badexample.com/m", False),
        ((".example.com",), "http://a.example.com/m", True),
        (("*",), "http://a.example.com/m", True),
        (("*.example.com",), "http://a.example.com/m", True),
        (("10.1.2.3:8080",), "http://10.1.2.3:8080/m", True),
        (("10.1.2.3:8080",), "http://10.1.2.3/m", False),
        (("a.example.com:80",), "http://a.example.com/m", True),
        (("[fd00::1]:8080",), "http://[fd00::1]:8080/m", True),
        (("[fd00::1]:8080",), "http://[fd00::1]/m", False),
        (("[fd00::1]",), "http://[fd00::1]/m", True),
        (("fd00::1",), "http://[fd00::1]/m", True),
        (("",), "http://a.example.com/m", False),
        ((), "https://a.example.com/m", True),  # no proxy for https is given
    ],
)
def test_no_proxy_means_hosts_domains_and_networks(no_proxy: tuple[str, ...], url: str, direct: bool) -> None:  # noqa: FBT001
    chosen = Proxy(http="http://proxy:3128", no_proxy=no_proxy).of(parse(url))
    assert chosen == (None if direct else "http://proxy:3128")


@pytest.mark.parametrize(
    "url", ["http://", "http:///m", "http://[::1/m", "http://a:b:c/m", "http://h:99999/m", "http://a b/m"]
)
def test_a_url_that_is_none_is_refused_at_once(url: str, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[url])
    with pytest.raises(PolicyError):
        bench.download()
    assert bench.clock.waits == []


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", " leading"])
def test_a_header_field_that_is_none_is_refused_at_once(value: str, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        with pytest.raises(PolicyError, match="a header field for it is not valid") as caught:
            Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], headers={"X-Site": value}).download()
        assert server.asked == []
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/a%20b/%C3%BC?x=%26", "/a%20b/%C3%BC?x=%26"),
        ("/\u00fc", "/%C3%BC"),
        ("/100%", "/100%25"),
        ('/a"b|c?d=<e>', "/a%22b%7Cc?d=%3Ce%3E"),
        ("?x", "/?x"),
        # A signature may cover every character: what may be sent is sent as it is written.
        ("/%7Ea/../b/./%2f?sig=%2f+~%7e", "/%7Ea/../b/./%2f?sig=%2f+~%7e"),
        ("/a%2fb?100%", "/a%2fb?100%25"),
        ("/a//b", "/a//b"),
        ("/m?", "/m?"),
    ],
)
def test_what_may_not_stand_in_a_request_is_percent_encoded(written: str, sent: str, tmp_path: Path) -> None:
    with Server({sent.partition("?")[0]: Script(body=BODY)}) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("") + written]).download()
        assert [asked.path for asked in server.asked] == [sent]


@pytest.mark.parametrize("url", ["nfs://h/m", "gopher://h/m", "m", "", "/etc/passwd", "HTTPS"])
def test_a_scheme_that_is_not_in_the_table_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no way to fetch"):
        Bench(body=BODY, folder=tmp_path, urls=[url]).download()


def test_every_scheme_that_a_configuration_may_have_is_in_the_table() -> None:
    transports = Transports()
    for scheme in SCHEMES:
        transports.of(f"{scheme.upper()}://h/m")
    transports.close()


def test_the_text_of_an_error_is_not_the_file(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[Status(503, text=b"x" * 100_000), Status(404, text=BODY)])}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download().bytes_received == len(BODY)


def test_an_interim_answer_is_not_the_answer(tmp_path: Path) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with Server({"/m": Script(faults=[Raw(hints + head + BODY)])}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download().attempts == 1


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    with Server({"/m": Script(body=b"")}) as server:
        assert Bench(body=b"", folder=tmp_path, urls=[server.url("/m")]).download().bytes_received == 0


@pytest.mark.parametrize(
    "coding", ["chunked ", "Chunked\t", "identity, chunked", ",chunked,", "identity\r\nTransfer-Encoding: chunked"]
)
def test_chunks_are_known_however_the_field_is_written(coding: str, tmp_path: Path) -> None:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n{len(BODY):x}\r\n".encode()
    with Server({"/m": Script(then=Raw(head + BODY + b"\r\n0\r\n\r\n"))}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download().attempts == 1


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked"])
def test_a_transfer_coding_that_nobody_asked_for_is_refused(coding: str, tmp_path: Path) -> None:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n".encode()
    wanted = "a transfer coding that was not asked for"
    with Server({"/m": Script(then=Raw(head + BODY))}) as server, pytest.raises(NetworkError, match=wanted):
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=FEW).download()


@pytest.mark.parametrize("length", ["1_1", "+11", "11.0", "0x0b", "11, 12", "9223372036854775808", "11\x1d", "1 1", ""])
def test_a_length_that_is_none_is_the_servers_failure(length: str, tmp_path: Path) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello world".encode()
    with Server({"/m": Script(body=b"hello world", faults=[Raw(answer)])}) as server:
        bench = Bench(body=b"hello world", folder=tmp_path, urls=[server.url("/m")])
        assert bench.download().attempts == (2 if length else 1)


def test_fields_that_mean_nothing_here_are_passed_over_however_many_and_odd(tmp_path: Path) -> None:
    odd = (
        b"".join(b"X-%d: y\r\n" % number for number in range(500))
        + b"X Y: z\r\n: z\r\nX\x01: z\r\n"
        + b"L: %070000d\r\n" % 0
    )
    head = b"HTTP/1.1 200 OK\r\n" + odd + b"Content-Length : %d\r\nConnection: close\r\n\r\n" % len(BODY)
    with Server({"/m": Script(then=Raw(head + BODY))}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download().attempts == 1


@pytest.mark.parametrize("status", [203, 299])
def test_a_success_that_is_not_known_counts_as_one(status: int, tmp_path: Path) -> None:
    with Server({"/m": Script(then=Status(status, text=BODY))}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download().attempts == 1


@pytest.mark.parametrize("status", [201, 202, 204, 205, 304])
def test_a_success_without_the_file_is_no_success(status: int, tmp_path: Path) -> None:
    said = f"{status}, which has no file in it"
    with Server({"/m": Script(then=Status(status, text=BODY))}) as server, pytest.raises(NetworkError, match=said):
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=FEW).download()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"Content-Encoding": "gzip"}, "Content-Encoding gzip, which was not asked for: switch compression off"),
        ({"Content-Type": "text/html; charset=utf-8"}, "text/html: a web page"),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("declared", [(None, None), (len(BODY), None), (None, 10_000)])
def test_a_whole_body_that_is_another_has_the_cause_named_whatever_is_declared(
    declared: tuple[int | None, int | None], framing: str, fields: dict[str, str], said: str, tmp_path: Path
) -> None:
    size, chunk = declared
    other = Serve(fields=fields, framing=framing, body=BODY[:700], ranges=False)
    with Server({"/m": Script(body=BODY, then=other)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], size=size, chunk=chunk, retry=FEW)
        with pytest.raises(IntegrityError, match=f"^wrong (size|sha256): .*{said}"):  # it has not "ended early"
            bench.download()


@pytest.mark.parametrize("code", [600, 999])
def test_a_status_beyond_those_of_http_is_tried_again_and_named(code: int, tmp_path: Path) -> None:
    with Server({"/m": Script(then=Status(code))}) as server, pytest.raises(NetworkError, match=f"{code}, which is no"):
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=FEW).download()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"206 Partial\r\nContent-Range: bytes 2-3/9\r\nContent-Length: 2",
            "the bytes 2 to 3, when all bytes were asked",
        ),
        (b"206 Partial\r\nContent-Length: 2", "a partial answer .206. without a usable Content-Range"),
        (b"101 Switching Protocols\r\nUpgrade: h2c", "answered 101, which has no file in it"),
        (b"305 Use Proxy\r\nLocation: http://a/\r\nContent-Length: 0", "answered 305, which has no file in it"),
        (b"1000 What\r\nContent-Length: 0", "sent what is not HTTP: its first line has no status"),
        (b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"x" * 100_000, "not HTTP: a line that is too long"),
    ],
)
def test_an_answer_that_makes_no_sense_is_told_in_a_sentence_that_does(
    answer: bytes, said: str, tmp_path: Path
) -> None:
    raw = Raw(b"HTTP/1.1 " + answer + b"\r\n\r\nab")
    with Server({"/m": Script(then=raw)}) as server, pytest.raises(NetworkError, match=said):
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=FEW).download()


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_refusal_that_may_be_the_proxys_own_names_it(code: int, tmp_path: Path) -> None:
    with Server({"/m": Script(then=Status(code))}) as server:
        proxy = Proxy(http=server.url(""))
        with pytest.raises(FetchError, match=rf"the proxy 127\.0\.0\.1:{server.port}, or a server behind it,.* {code}"):
            Bench(body=BODY, folder=tmp_path, urls=["http://a.example/m"], proxy=proxy, retry=FEW).download()
