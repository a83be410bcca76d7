"""fetch.yaml as its users meet it: text in, a configuration or every problem out."""

from __future__ import annotations

import pytest

from pxe_fetch import __version__
from pxe_fetch.contract import reader
from pxe_fetch.contract.problem import Problem, ProblemError, show, show_all
from pxe_pack import config
from pxe_pack.config import Document

SHA256 = "0" * 64
ARTIFACT = f"""
  - name: a
    url: http://h/a
    sha256: {SHA256}
    dest: /srv/a
"""


def read(text: str) -> Document:
    return config.read(text, name="fetch.yaml")


def problems(text: str) -> dict[str, Problem]:
    """The problems of `text` by their references; fails where there are none or two of one kind."""
    with pytest.raises(ProblemError) as caught:
        read(text)
    found = {problem.reference: problem for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems), show_all(caught.value.problems)
    return found


def only_problem(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, list(found)
    return next(iter(found.values()))


def artifact(lines: str) -> str:
    """A document of one right artifact with `lines` more in it (or in place of its own)."""
    keys = {line.split(":")[0].strip() for line in lines.splitlines()}
    kept = [line for line in ARTIFACT.strip("\n").splitlines() if line.split(":")[0].strip(" -") not in keys]
    first, *rest = [line.strip(" -") for line in [*kept, *lines.splitlines()]]
    return "\n".join(["version: 1", "artifacts:", f"  - {first}", *(f"    {line}" for line in rest)]) + "\n"


def test_reads_what_the_design_shows() -> None:
    document = read(f"""
version: 1
pack: {{image: liveos.iso, boot_url: http://10.0.0.1/liveos.iso, artifact_url: http://10.0.0.1/x, output: pxe/}}
defaults:
  base_url: http://10.0.0.1/
  retry: {{attempts_without_progress: 3, base: 500ms, max: 1m, deadline: 1h, retry_after_max: 5m}}
  timeouts: {{connect: 1s, read: 2s, min_rate: 16KiB, min_rate_window: 3s}}
parallel: 8
start_jitter: 1500ms
allowed_roots: [/srv]
tls: {{ca_file: /etc/pki/site.pem}}
proxy: {{https: "http://cache:3128", no_proxy: [10.0.0.0/8]}}
artifacts:
  - name: model
    url: models/${{arch}}/m.bin
    sha256: {SHA256}
    size: 1GiB
    dest: /srv/models/m.bin
    mode: "0640"
    owner: root
    group: app
    when: {{arch: x86_64, cmdline: {{my-role: gpu}}, mac: ["52:54:*"]}}
    required: false
    headers: {{X-Site: lab}}
    header_credential: pxe-fetch.token
    insecure: true
    start: [app.service]
    retry: {{base: 2s}}
on_failure: reboot
report: {{url: "http://10.0.0.1/report"}}
""")
    fetch, (model,) = document.fetch, document.fetch.artifacts
    assert document.pack.artifact_url == "http://10.0.0.1/x/"
    assert (fetch.base_url, fetch.parallel, fetch.start_jitter) == ("http://10.0.0.1/", 8, 1.5)
    assert fetch.allowed_roots == ("/srv",)
    assert fetch.proxy.no_proxy == ("10.0.0.0/8",)
    assert (fetch.on_failure, fetch.report.url) == ("reboot", "http://10.0.0.1/report")
    assert model.urls == ("models/${arch}/m.bin",)
    assert (model.size, model.mode, model.owner, model.group) == (1 << 30, 0o640, "root", "app")
    assert model.when.facts == {"arch": ("x86_64",), "mac": ("52:54:*",)}
    assert model.when.cmdline == {"my_role": ("gpu",)}
    assert (model.retry.base, model.retry.max, model.retry.attempts_without_progress) == (2.0, 60.0, 3)
    assert (model.timeouts.connect, model.timeouts.min_rate) == (1.0, 16384)
    assert (model.required, model.start) == (False, ("app.service",))


def test_shows_all_problems_at_once_each_at_its_line() -> None:
    with pytest.raises(ProblemError) as caught:
        read("version: 1\nparralel: 3\nartifacts:\n  - {name: a, url: gopher://h/a, dest: relative}\n")
    places = [(p.reference, p.where.line if p.where else 0) for p in caught.value.problems]
    assert places == [("unknown-key", 2), ("checksum-missing", 4), ("scheme-unknown", 4), ("path-invalid", 4)]
    assert show_all(caught.value.problems).endswith("4 problems found")


def test_a_problem_is_shown_with_its_line_carets_and_hint() -> None:
    problem = only_problem(artifact("sha256: deadbeef"))
    assert show(problem) == (
        "error[checksum-invalid]: artifacts[0].sha256 is not a SHA-256 digest\n"
        "  --> fetch.yaml:6:13\n"
        "   |\n"
        " 6 |     sha256: deadbeef\n"
        "   |             ^^^^^^^^ expected 64 hexadecimal digits, found 8\n"
        "\n"
        "hint: `sha256sum FILE` prints it; or give `source:` and pxe-pack computes it"
    )


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("version: 2", "number-out-of-range"),
        ("parallel: 4", "version-missing"),
        ("version: 1\nversion: 1", "duplicate-key"),
        ("version: 1\nparallel: many", "wrong-type"),
        ("version: 1\nparallel: 1000", "number-out-of-range"),
        ("- a", "wrong-type"),
        ("version: 1\n\tparallel: 1", "yaml-syntax"),
        ("version: 1\nparallel: [", "yaml-syntax"),
        ("version: 1\n---\nversion: 1", "yaml-syntax"),
        ("version: 1\nartifacts: !!python/object:os.system []", "yaml-tag"),
        ("version: 1\non_failure: explode", "choice-invalid"),
        ("version: 1\nallowed_roots: [/]", "root-invalid"),
        ("version: 1\nstart_jitter: 5", "duration-invalid"),
        ("version: 1\nstart_jitter: 0.1ms", "duration-invalid"),
        ("version: 1\nreport: {url: file:///x}", "url-invalid"),
        ("version: 1\ntls: {client_key: /etc/k.pem}", "tls-incomplete"),
        ("version: 1\ntls: {ca_file: '/etc/pki/${cmdline.site}.pem'}", "fact-misplaced"),
        ("version: 1\nproxy: {http: 'http://${cmdline.cache}:3128'}", "fact-misplaced"),
        ("version: 1\nproxy: {no_proxy: '10.0.0.0/8,.lan'}", "no-proxy-invalid"),
        ("version: 1\nproxy: {no_proxy: ['http://cache.lan']}", "no-proxy-invalid"),
        ("version: 1\nproxy: {no_proxy: [10.0.0.0/33]}", "no-proxy-invalid"),
        ("version: 1\npack: {inject: magic}", "choice-invalid"),
        ("version: 1\nkey with \x01: 1", "yaml-syntax"),
    ],
)
def test_refuses_a_document(text: str, reference: str) -> None:
    assert only_problem(text).reference == reference


@pytest.mark.parametrize(
    ("lines", "reference"),
    [
        ("dest: /etc/passwd", "dest-outside-roots"),
        ("dest: /srv", "dest-outside-roots"),
        ("dest: /srvx/a", "dest-outside-roots"),
        ("dest: /srv/../etc/a", "path-climbs"),
        ("dest: /srv/${arch}/../../etc", "path-climbs"),
        ("dest: /srv/${speed}", "fact-unknown"),
        ("dest: /srv/${arch", "fact-unknown"),
        ("mode: 640", "wrong-type"),
        ('mode: "rw-"', "mode-invalid"),
        ('mode: "4755"', "mode-invalid"),
        ("owner: no such user", "account-invalid"),
        ("url: http://user:secret@h/a", "url-secret"),
        ("url: http:///a", "url-invalid"),
        ("url: http://h:port/a", "url-invalid"),
        ("url: http://h:0/a", "url-invalid"),
        ("url: http://[zz]/a", "url-invalid"),
        ("url: http://h\u00e9/a", "url-invalid"),
        ("url: http://h/a b", "url-invalid"),
        ("url: //h/a", "url-invalid"),
        ("url: gopher://h/a", "scheme-unknown"),
        ("url: nfs://h/a", "scheme-unknown"),
        ("url: ftp://user:secret@h/a", "url-secret"),
        ("url: ftp://h/a?b", "url-invalid"),
        ("url: tftp:///a", "url-invalid"),
        ("urls: [http://h/a]", "source-unclear"),
        ("url: [http://h/a]", "wrong-type"),
        (f"sha512: {SHA256}", "checksum-invalid"),
        (f"sha512: {'0' * 128}", "checksum-unclear"),
        ("size: -1", "size-invalid"),
        ("size: lots", "size-invalid"),
        ("size: true", "wrong-type"),
        ("extract: zip", "choice-invalid"),
        ("when: {mac: 52:54:00:00:00:01, cpu: many}", "unknown-key"),
        ("when: {arch: []}", "when-empty"),
        ("when: {mac: }", "when-empty"),
        ("when: {cmdline: {role: []}}", "when-empty"),
        ("when: {cmdline: {gpu: }}", "when-empty"),
        ("headers: {Range: bytes=0-}", "header-invalid"),
        ("headers: {Proxy-Authorization: Basic eA==}", "header-invalid"),
        ("headers: {X: 1}", "wrong-type"),
        ("start_required: true", "start-missing"),
        ("insecure: maybe", "wrong-type"),
        ("header_credential: token", "credential-invalid"),
        ("start: app", "unit-invalid"),
        ("name: a/b", "name-invalid"),
        ("retry: {base: soon}", "duration-invalid"),
        ("retry: {bse: 1s}", "unknown-key"),
        ("timeouts: {read: 0s}", "duration-out-of-range"),
        ("timeouts: {read: 501h}", "duration-out-of-range"),
        ("retry: {deadline: 999999999h}", "duration-out-of-range"),
        ("timeouts: {min_rate: 1PiB}", "size-invalid"),
        ("timeouts: {min_rate: 1024TiB}", "rate-out-of-range"),
        ("timeouts: {min_rate: 1073741825}", "rate-out-of-range"),
        ("size: 8388608TiB", "size-invalid"),
        ("size: 9223372036854775808", "size-invalid"),
        ('owner: "4294967295"', "account-invalid"),
        ('group: "9999999999"', "account-invalid"),
    ],
)
def test_refuses_an_artifact(lines: str, reference: str) -> None:
    assert reference in problems(artifact(lines))


@pytest.mark.parametrize(
    ("dest", "reference", "said"),
    [
        (f"/srv/{'n' * 256}", "path-too-long", "has a name of 256 bytes"),
        (f"/srv/{'n' * 256}/m", "path-too-long", "has a name of 256 bytes"),
        (f"/srv/{'é' * 128}", "path-too-long", "has a name of 256 bytes"),
        (f"/srv/{'n' * 256}${{mac}}", "path-too-long", "has a name of 256 bytes"),
        (f"/srv{'/n' * 2046}", "path-too-long", "has 4096 bytes"),
        (r"/srv/a\0b", "path-invalid", r"'\x00'"),
        (r"/srv/a\nb", "path-invalid", r"'\n'"),
        (r"/srv/a\eb", "path-invalid", r"'\x1b'"),
        (r"/srv/a\u202Eb", "path-invalid", r"'\u202e'"),
        (r"/srv/a\u200Bb", "path-invalid", r"'\u200b'"),
        (r"/srv/a\uFEFFb", "path-invalid", r"'\ufeff'"),
        (r"/srv/a\u3164b", "path-invalid", r"'\u3164'"),
    ],
)
def test_a_destination_that_no_file_can_have_is_refused_at_its_place(dest: str, reference: str, said: str) -> None:
    problem = only_problem(f"version: 1\nartifacts:{ARTIFACT.replace('/srv/a', chr(34) + dest + chr(34))}")
    assert problem.reference == reference
    assert said in problem.message
    assert problem.where


def test_the_longest_destinations_are_allowed() -> None:
    for dest in (f"/srv/{'n' * 255}", f"/srv{'/n' * 2045}", f"/srv/{'n' * 255}/${{hostname}}"):
        assert read(f"version: 1\nartifacts:{ARTIFACT.replace('/srv/a', dest)}").fetch.artifacts[0].dest == dest


@pytest.mark.parametrize(
    "entry",
    ["*", ".lan", "*.lan", "cache.lan:80", "10.1.2.3:80", "10.0.0.0/8", "::1", "fd00::/8", "[fd00::1]", "[fd00::1]:80"],
)
def test_no_proxy_takes_hosts_domains_and_networks(entry: str) -> None:
    assert read(f'version: 1\nproxy: {{no_proxy: "{entry}"}}').fetch.proxy.no_proxy == (entry,)


def test_an_artifact_needs_a_digest_unless_it_is_a_local_file() -> None:
    assert only_problem("version: 1\nartifacts: [{name: a, url: a, dest: /srv/a}]").reference == "checksum-missing"


def test_a_local_file_is_not_looked_up_in_a_list_of_sums() -> None:
    text = "version: 1\nartifacts: [{name: a, source: a, sha256_url: SHA256SUMS, dest: /srv/a}]"
    assert only_problem(text).reference == "checksum-of-source"
    (local,) = read("version: 1\nartifacts: [{name: a, source: a, dest: /srv/a}]").fetch.artifacts
    assert (local.source, local.urls, local.digest) == ("a", (), None)


@pytest.mark.parametrize(
    ("key", "reference"),
    [("name", "name-missing"), ("dest", "dest-missing"), ("sha256", "checksum-missing"), ("url", "source-unclear")],
)
def test_a_key_with_nothing_behind_it_is_as_good_as_none(key: str, reference: str) -> None:
    assert only_problem(artifact(f"{key}:")).reference == reference


@pytest.mark.parametrize("mode", ['"0640"', "0640", "'640'"])
def test_a_mode_is_octal_however_it_is_quoted(mode: str) -> None:
    assert read(artifact(f"mode: {mode}")).fetch.artifacts[0].mode == 0o640


def test_names_and_destinations_are_distinct() -> None:
    found = problems(f"version: 1\nartifacts:{ARTIFACT}{ARTIFACT}")
    assert set(found) == {"name-taken", "dest-taken"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_destination_inside_another_one_is_taken(order: int) -> None:
    inner = ARTIFACT.replace("name: a", "name: b").replace("dest: /srv/a", "dest: /srv/a/b/c")
    problem = only_problem("version: 1\nartifacts:" + "".join([ARTIFACT, inner][::order]))
    assert problem.reference == "dest-taken"
    assert "/srv/a/b/c is inside /srv/a, the destination of artifacts[" in problem.message


def test_several_artifacts_may_share_a_destination_when_the_node_chooses() -> None:
    second = ARTIFACT.replace("name: a", "name: b") + "    when: {arch: aarch64}\n"
    assert len(read(f"version: 1\nartifacts:{ARTIFACT}{second}").fetch.artifacts) == 2


def test_a_misspelt_key_is_answered_with_the_nearest() -> None:
    assert only_problem("version: 1\nparalel: 2").hint == "did you mean `parallel`?"


def test_the_second_of_two_equal_keys_is_shown_with_the_first() -> None:
    problem = only_problem("version: 1\nparallel: 1\nparallel: 2")
    assert problem.where
    assert (problem.where.line, problem.label) == (3, "first given in line 2")


def test_defaults_reach_every_artifact_and_give_way_to_its_own() -> None:
    document = read(f"""
version: 1
defaults: {{mode: "0600", owner: app, required: false, headers: {{A: "1", B: "1"}}, timeouts: {{read: 5s}}}}
artifacts:
  - {{name: a, url: a, sha256: "{SHA256}", dest: /srv/a}}
  - {{name: b, url: b, sha256: "{SHA256}", dest: /srv/b, mode: "0644", required: true, headers: {{B: "2"}}}}
""")
    first, second = document.fetch.artifacts
    assert (first.mode, first.owner, first.required, dict(first.headers)) == (0o600, "app", False, {"A": "1", "B": "1"})
    assert (second.mode, second.required, dict(second.headers)) == (0o644, True, {"A": "1", "B": "2"})
    assert first.timeouts.read == second.timeouts.read == 5.0


def test_an_artifacts_own_base_url_makes_its_urls_absolute() -> None:
    (only,) = read(artifact("url: sub/a\nbase_url: http://other/dir")).fetch.artifacts
    assert only.urls == ("http://other/dir/sub/a",)


def test_aliases_that_multiply_are_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert only_problem("\n".join(lines)).reference == "document-too-large"


def test_an_alias_to_its_own_parent_is_stopped() -> None:
    assert only_problem("version: 1\nartifacts: &a [*a]").reference == "yaml-syntax"


def test_nesting_without_end_is_stopped() -> None:
    assert only_problem("[" * 5000).reference in {"document-too-large", "yaml-syntax"}
    assert only_problem("a: " + "[" * 500 + "]" * 500).reference == "document-too-large"


@pytest.mark.parametrize("text", ["proxy: {https: 'http://u:p@h'}", "defaults: {headers: {Proxy-Authorization: x}}"])
def test_a_proxys_password_is_led_to_its_key(text: str) -> None:
    assert "proxy.credential" in only_problem(f"version: 1\n{text}\n").hint


def test_the_agent_passes_over_what_pxe_pack_alone_reads() -> None:
    text = "version: 1\npack: {image: [1], anything: {else: 2}}\n"
    assert reader.read(text, name="fetch.yaml").version == 1
    assert set(problems(text)) == {"unknown-key", "wrong-type"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("expires: 2027-01-31", 1_801_439_999),
        ("expires: 2027-01-31T12:00:00Z", 1_801_396_800),
        ("expires: '2028-02-29'", 1_835_481_599),
        ("serial: 9007199254740992", 2**53),
        ("serial: 0", 0),
        ("min_agent: 0.1", "0.1"),
        ("min_agent: '0.1.0'", "0.1.0"),
        ("min_agent: 0", "0"),
    ],
)
def test_serial_expiry_and_oldest_agent_are_read(line: str, expected: object) -> None:
    found = reader.read(f"version: 1\n{line}\n", name="fetch.yaml")
    assert getattr(found, line.partition(":")[0]) == expected


@pytest.mark.parametrize(
    ("line", "reference"),
    [
        ("expires: 2027-02-30", "time-invalid"),
        ("expires: 2027-1-1", "time-invalid"),
        ("expires: 2027-01-31T25:00:00Z", "time-invalid"),
        ("expires: 2027-01-31T12:00:00", "time-invalid"),
        ("expires: 2027-01-31T12:00:00+01:00", "time-invalid"),
        ("expires: 20270131", "wrong-type"),
        ("serial: -1", "number-out-of-range"),
        ("serial: 9007199254740993", "number-out-of-range"),
        ("serial: '1'", "wrong-type"),
        ("serial: 1.5", "wrong-type"),
        ("min_agent: newest", "version-invalid"),
        ("min_agent: 1.", "version-invalid"),
        ("min_agent: true", "wrong-type"),
        ("min_agent: [99]", "wrong-type"),
    ],
)
def test_serial_expiry_and_oldest_agent_that_are_none_are_refused(line: str, reference: str) -> None:
    assert only_problem(f"version: 1\n{line}\n").reference == reference


@pytest.mark.parametrize("needed", ["0.4", "'0.4'", "0.9.1", "0.10", "1"])
def test_that_a_newer_agent_is_needed_is_the_only_problem_told(needed: str) -> None:
    text = f"version: 2\nmin_agent: {needed}\nparallel: many\nnew_key: 1\nartifacts: [{{quantum: true}}]\n"
    problem = only_problem(text)
    told = f"this configuration needs pxe-fetch {needed.strip(chr(39))} or later; this is {__version__}"
    assert problem.message == told
    assert problem.hint == "pack the image again with a newer pxe-pack"
    assert (problem.where and problem.where.line) == 2


def test_keys_that_begin_with_x_are_passed_over_in_every_section() -> None:
    odd = "x-site: {a: [1, {b: null}], 2: 3}"
    text = (
        artifact(f"{odd}\nwhen: {{arch: x86_64, x-why: null, {odd}}}\nretry: {{base: 1s, {odd}}}")
        + f"{odd}\npack: {{image: a.iso, {odd}}}\ntls: {{{odd}}}\ndefaults: {{{odd}}}\nreport: {{x-: 1}}\n"
    )
    (found,) = read(text).fetch.artifacts
    assert (dict(found.when.facts), found.retry.base) == ({"arch": ("x86_64",)}, 1.0)


def test_a_header_and_a_kernel_argument_may_begin_with_x() -> None:
    text = artifact("headers: {x-site: lab}\nwhen: {cmdline: {x-role: gpu}}")
    (found,) = read(text).fetch.artifacts
    assert (dict(found.headers), dict(found.when.cmdline)) == ({"x-site": "lab"}, {"x_role": ("gpu",)})
    assert only_problem(artifact("when: {cmdline: {x-role: []}}")).reference == "when-empty"


def test_keys_that_begin_with_x_count_for_the_limits_of_a_document() -> None:
    text = "version: 1\nx-many: [" + "1, " * 100_001 + "]\n"
    assert only_problem(text).reference == "document-too-large"
    assert only_problem("version: 1\nx-a: 1\nx-a: 2\n").reference == "duplicate-key"
