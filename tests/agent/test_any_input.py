"""Whatever a configuration or a kernel command line has: problems with an exit code, never a bug of the agent's."""

from __future__ import annotations

from collections.abc import Mapping

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fakes.node import FakeNode
from pxe_fetch.contract import reader
from pxe_fetch.contract.problem import ProblemError, show_all

KEYS = [
    *(
        "version",
        "pack",
        "defaults",
        "base_url",
        "retry",
        "timeouts",
        "parallel",
        "start_jitter",
        "allowed_roots",
        "tls",
    ),
    *("proxy", "artifacts", "on_failure", "report", "name", "url", "urls", "source", "sha256", "sha512", "sha256_url"),
    *(
        "size",
        "chunks",
        "dest",
        "mode",
        "owner",
        "group",
        "extract",
        "when",
        "required",
        "headers",
        "header_credential",
    ),
    *("start", "mirror_order", "attempts_without_progress", "base", "max", "deadline", "connect", "read", "min_rate"),
    *("ca_file", "client_cert", "client_key", "http", "https", "no_proxy", "arch", "cmdline", "mac", "image", "inject"),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers() | st.sampled_from([1, 0, -1, 1 << 70]),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=5),
    st.sampled_from(
        ["http://h/x", "${mac}", "${", "/srv/x", "/", "0640", "5s", "1GiB", "a" * 64, "tar", "m", "../x", "\0"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
artifacts = st.fixed_dictionaries(
    {"name": st.just("m"), "dest": st.just("/srv/m")},
    optional=dict.fromkeys(("url", "urls", "source", "sha256", "size", "chunks", "mode", "when", "headers"), values),
)
documents = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional=dict.fromkeys(KEYS[1:16], values) | {"artifacts": st.lists(artifacts | values, max_size=3)},
)


@settings(max_examples=300, deadline=None)
@given(documents)
def test_no_document_brings_anything_but_problems(document: Mapping[str, object]) -> None:
    text = yaml.dump(document, allow_unicode=True, sort_keys=False)
    try:
        reader.read(text, name="fetch.yaml")
    except ProblemError as error:
        show_all(error.problems)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
@example(b"\xff\xfeversion: 1")
@example(b"\xef\xbb\xbfversion: 1\nartifacts: []\n")
@example("version: 1".encode("utf-16"))
@example(b"[" * 20_000)
@example(b"{a: " * 20_000)
@example(b"- " * 20_000)
@example(b"a0: &a0 [1]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)))
@example(b"&a [*a]")
@example(b"version: 1\nartifacts: &a\n  - *a\n")
@example(b"!!python/object/apply:os.system [true]")
@example(b"? " * 1000)
@example(b"\0")
def test_no_bytes_in_a_file_are_a_bug_of_the_agents(node: FakeNode, data: bytes) -> None:
    file = node.folder / "fetch.yaml"
    file.write_bytes(data)
    for command in (("check", str(file)), ("run", "--config", str(file))):
        ran = node.run(*command)
        assert ran.code in {0, 65}, ran.err
        assert "Traceback" not in ran.err + ran.out


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b" pxe-fetch.debug", b' pxe-fetch.deadline="', b" pxe-fetch=", b" pxe-fetch."]),
)
@example(b"\xff\xfe pxe-fetch.config=http://\xff/", b"")
@example(b'"' * 101, b" pxe-fetch.config.sha256=")
def test_no_bytes_on_the_kernel_command_line_are_a_bug_of_the_agents(node: FakeNode, data: bytes, own: bytes) -> None:
    (node.root / "proc/cmdline").write_bytes(own + data)
    ran = node.run("run")
    assert ran.code in {0, 65, 77}, ran.err  # 77: a configuration by http that nothing pins
    assert "Traceback" not in ran.err + ran.out
