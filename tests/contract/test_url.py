"""URLs as the agent and the packager take them apart, join them and show them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxe_fetch.contract import url
from pxe_fetch.contract.url import Origin, UrlError


def test_takes_a_url_apart() -> None:
    found = url.parse("HTTPS://joe:s%40cret@Mirror.LAN:8443/a/../b%7e.bin;v=1?sig=%2f&x#top")
    assert (found.scheme, found.host, found.port) == ("https", "mirror.lan", 8443)
    assert found.origin == Origin("https", "mirror.lan", 8443)
    assert found.host_and_port == "Mirror.LAN:8443"
    assert found.userinfo == "joe:s%40cret"
    assert found.path_and_query == "/a/../b%7e.bin;v=1?sig=%2f&x"
    assert found.request_url == "https://Mirror.LAN:8443/a/../b%7e.bin;v=1?sig=%2f&x"
    assert found.fragment == "top"


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("http://h/", 80),
        ("https://h", 443),
        ("ftp://h/", 21),
        ("tftp://h/", 69),
        ("http://h:/", 80),
        ("http://h:08/", 8),
    ],
)
def test_a_port_that_is_not_written_is_the_schemes_own(text: str, port: int) -> None:
    assert url.parse(text).port == port


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("", "/"),
        ("?", "/?"),
        ("/a%20b/%C3%BC?x=%26", "/a%20b/%C3%BC?x=%26"),
        ("/%7Ea/./../%2f%2F", "/%7Ea/./../%2f%2F"),
        ("/[a]@!$&'()*+,;=:~", "/[a]@!$&'()*+,;=:~"),
        ("/\u00fc?\u00fc", "/%C3%BC?%C3%BC"),
        ("/100%", "/100%25"),
        ("/%zz", "/%25zz"),
        ('/a"b|c\\d e?d=<e>', "/a%22b%7Cc%5Cd%20e?d=%3Ce%3E"),
    ],
)
def test_a_request_asks_for_what_was_written_but_for_what_may_not_be_sent(written: str, asked: str) -> None:
    assert url.parse(f"http://h{written}").path_and_query == asked


@pytest.mark.parametrize(
    ("place", "host"),
    [
        ("[::1]:8080", "::1"),
        ("[fe80::1%25eth0]", "fe80::1%eth0"),
        ("%31%32%37.0.0.1", "127.0.0.1"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("b%C3%BCcher.example", "xn--bcher-kva.example"),
        ("my_host.lan.", "my_host.lan."),
    ],
)
def test_a_host_is_as_dns_has_it(place: str, host: str) -> None:
    assert url.parse(f"http://{place}/").host == host


def test_hosts_with_and_without_the_final_dot_are_one_origin() -> None:
    assert url.parse("http://H.lan.:80/").origin == url.parse("http://h.lan/x").origin


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no scheme"),
        ("/a", "has no scheme"),
        ("//h/a", "has no scheme"),
        ("http:", "names no host"),
        ("http:a", "names no host"),
        ("http:/a", "names no host"),
        ("http:///a", "names no host"),
        ("http://:80/", "names no host"),
        ("http://user@/", "names no host"),
        ("http://h:port/", "invalid host or port"),
        ("http://h:1:2/", "invalid host or port"),
        ("http://[::1", "invalid host or port"),
        ("http://[::1]x/", "invalid host or port"),
        ("http://[zz]/", "IPv6"),
        ("http://h:0/", "from 1 to 65535"),
        ("http://h:65536/", "from 1 to 65535"),
        ("http://a b/", "invalid characters"),
        ("http:\\\\h\\a", "names no host"),
        ("http://a..b/", "empty or longer"),
        (f"http://{'a' * 64}.b/", "empty or longer"),
        ("http://%FF/", "invalid host name"),
        ("http://fa\u00df.example/", "xn--"),
        ("http://a\0b/", "control character"),
        ("http://h/a\tb", "control character"),
        ("http://h/\ud800", "an invalid character"),
    ],
)
def test_says_why_a_text_is_no_url(text: str, said: str) -> None:
    with pytest.raises(UrlError, match=said):
        url.parse(text)


def test_a_file_url_needs_no_host() -> None:
    found = url.parse("file:///mnt/%FF%e9%20b.bin")
    assert (found.host, found.port, found.path_bytes) == ("", 0, b"/mnt/\xff\xe9 b.bin")


# RFC 3986, 5.4, as far as a path and query tell; `http:g` is looked at below.
@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("g:h", "g:h"),
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q#s"),
        ("g#s", "http://a/b/c/g#s"),
        ("g?y#s", "http://a/b/c/g?y#s"),
        (";x", "http://a/b/c/;x"),
        ("g;x", "http://a/b/c/g;x"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../g", "http://a/g"),
        ("../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        ("..g", "http://a/b/c/..g"),
        ("./../g", "http://a/b/g"),
        ("./g/.", "http://a/b/c/g/"),
        ("g/./h", "http://a/b/c/g/h"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
    ],
)
def test_joins_as_the_rfc_does(reference: str, target: str) -> None:
    assert url.join(url.parse("http://a/b/c/d;p?q"), reference).raw == target


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("m.bin", "tftp://h:1069/x/m.bin"),
        ("/m.bin", "tftp://h:1069/m.bin"),
        ("%7E/a%2Fb", "tftp://h:1069/x/%7E/a%2Fb"),
    ],
)
def test_joins_by_every_scheme_alike(reference: str, target: str) -> None:
    assert url.join(url.parse("tftp://h:1069/x/"), reference).raw == target


def test_a_whole_url_keeps_its_dots_wherever_it_was_found() -> None:
    base = url.parse("http://a/b")
    assert url.join(base, "https://c/x/../y?s=1").path_and_query == "/x/../y?s=1"
    assert url.join(base, "//c/x/../y").path_and_query == "/x/../y"


@pytest.mark.parametrize("reference", ["///x", "http:g", "http:/g", "http:///x", "http://"])
def test_a_reference_that_names_no_host_leads_nowhere(reference: str) -> None:
    with pytest.raises(UrlError, match="names no host"):
        url.join(url.parse("http://a/b"), reference)


@pytest.mark.parametrize(
    ("reference", "asked"),
    [
        (b"/\xc3\x9cbung/\xc3\xa4.bin", "/%C3%9Cbung/%C3%A4.bin"),
        (b"/\xe4.bin?\xe4", "/%E4.bin?%E4"),
        ("/\u00dcbung/\u00e4.bin", "/%C3%9Cbung/%C3%A4.bin"),
        (b"/%c3%9c/%7e", "/%c3%9c/%7e"),
    ],
)
def test_a_reference_beyond_ascii_is_encoded_once_and_only_there(reference: bytes | str, asked: str) -> None:
    assert url.join(url.parse("http://a/b"), reference).path_and_query == asked


def test_an_international_host_in_a_header_is_as_dns_has_it() -> None:
    assert url.join(url.parse("http://a/"), "http://b\u00fccher.example/".encode()).host == "xn--bcher-kva.example"


def test_a_relative_reference_stays_with_the_credentials_of_its_base_and_another_host_does_not_get_them() -> None:
    base = url.parse("http://joe:secret@a/b")
    assert url.join(base, "c").userinfo == "joe:secret"
    assert url.join(base, "//b/c").userinfo is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://joe:secret@h:8080/a%20b?sig=secret#secret", "http://h:8080/a%20b"),
        ("http://joe:sec@ret@h/a", "http://h/a"),
        ("a/${arch}/m.bin?secret", "a/${arch}/m.bin"),
        ("mailto:secret@h", "(not a URL)"),
        ("http:/joe:secret@h/a", "(not a URL)"),
        ("http://h/\x1b[2J", "(not a URL)"),
    ],
)
def test_shows_no_secrets(text: str, shown: str) -> None:
    assert url.redact(text) == shown


def test_a_url_in_a_message_or_a_traceback_shows_no_secrets() -> None:
    found = url.parse("http://joe:secret@h/a?sig=secret#secret")
    assert str(found) == "http://h/a"
    assert "secret" not in repr(found)


@given(
    st.text() | st.text("htp:/@[]%?#.0aZ \\\u00fc", max_size=30), st.text() | st.text("htp:/@[]%?#.0aZ", max_size=20)
)
def test_no_text_brings_anything_but_a_url_or_a_url_error(text: str, reference: str) -> None:
    url.redact(text)
    for whole in (text, f"http://{text}"):
        try:
            found = url.parse(whole)
            assert found.request_url.isascii()
            if found.scheme in url.DEFAULT_PORTS:
                assert url.parse(found.request_url).path_and_query == found.path_and_query
            url.join(found, reference)
            url.join(found, reference.encode(errors="surrogatepass"))
        except UrlError:
            pass
