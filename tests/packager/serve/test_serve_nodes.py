"""The collector and the page that `pxe-pack serve` brings: reports, logs, and who may read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.collector import report
from fakes.wire import NODE, Wire, environment
from packing.served import EVENTS, known, posted, refused, serving
from packing.site import Site
from pxe_pack import cli

Packs = Callable[..., str]
ASKING = """
import socket, struct
with socket.create_server(("127.0.0.1", 5432)) as listener:
    print("listening", flush=True)
    stream = listener.accept()[0].makefile("rwb", buffering=0)

    def message():
        (size,) = struct.unpack("!i", stream.read(4))
        return stream.read(size - 4)

    while struct.unpack("!i", message()[:4])[0] in (80877103, 80877104):  # SSLRequest, GSSENCRequest
        stream.write(b"N")
    stream.write(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
    assert stream.read(1) == b"p"
    print(message().rstrip(bytes(1)).decode(), flush=True)
"""


def test_reports_reach_the_collector(net: Wire, layout: Site) -> None:
    (layout.folder / "tokens").write_text("0123456789abcdef" * 2)
    with serving(net, layout, "--token-file", layout.folder / "tokens") as served:
        assert served.result["nodes"] == "http://127.0.0.1:8787/"
        assert posted(net, "{}") == "401"
        assert posted(net, "{}", "0123456789abcdef" * 2) == "422"
        assert served.end() == 0


@pytest.mark.parametrize(("forwarded", "address"), [("192.0.2.1, 10.0.0.77", "10.0.0.77"), ("10.0.0.77", "10.0.0.77")])
def test_node_behind_a_cache_is_known_by_the_address_that_the_cache_tells(
    net: Wire, layout: Site, forwarded: str, address: str
) -> None:
    (layout.folder / "tokens").write_text("0123456789abcdef" * 2)
    listing = net.at_server(sys.executable, "-m", "pxe_pack", "nodes", "--json")
    with serving(net, layout, "--token-file", layout.folder / "tokens", "--proxy", "10.0.0.50") as served:
        url = "http://10.0.0.1:8080/boot/vmlinuz"
        ask = net.at_node("curl", "-sS", "-o", "/dev/null", "-H", f"X-Forwarded-For: {forwarded}")
        net.run([*ask, "--path-as-is", "--globoff", "http://10.0.0.1:8080//[/x"])  # what is no URL ends nothing
        net.run([*ask, url])
        until = time.monotonic() + EVENTS
        while not (nodes := json.loads(net.run(listing).splitlines()[-1])["nodes"]):
            assert time.monotonic() < until
        assert [(node["address"], node["stage"]) for node in nodes] == [(address, "kernel")]
        assert served.end() == 0


def test_password_of_a_database_is_told_to_it_alone(net: Wire, layout: Site) -> None:
    """PostgreSQL's manual, "Message Formats"."""
    (layout.folder / "tokens").write_text("0123456789abcdef" * 2)
    url = "postgresql://collector:s3%40cret@127.0.0.1/nodes"
    command = net.at_server(sys.executable, "-m", "pxe_pack", "-v", "serve", layout.output)
    command += ["--token-file", str(layout.folder / "tokens"), "--database", url]
    with subprocess.Popen(net.at_server(sys.executable, "-c", ASKING), stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        assert asking.stdout.readline() == "listening\n"
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=60)
        assert asking.stdout.readline() == "s3@cret\n"
    assert "--database postgresql://collector@127.0.0.1/nodes" in done.stderr
    assert "s3%40cret" not in done.stderr + done.stdout
    assert done.returncode == 4, done.stderr


def test_node_that_has_its_address_from_another_server_is_known_by_its_mac_address(net: Wire, layout: Site) -> None:
    """And a file that it is refused is named by its path in the layout."""
    (layout.folder / "tokens").write_text("0123456789abcdef" * 2)
    mac = json.loads(net.run(net.at_node("ip", "-json", "link", "show", NODE)))[0]["address"]
    listing = net.at_server(sys.executable, "-m", "pxe_pack", "nodes", "--json")
    with serving(net, layout, "--token-file", layout.folder / "tokens") as served:
        net.fetch("tftp://10.0.0.1/bootx64.efi")
        net.run(net.at_node("curl", "-sS", "--max-time", "20", "tftp://10.0.0.1/boot/absent.img"), check=False)
        until = time.monotonic() + EVENTS
        while not (nodes := json.loads(net.run(listing).splitlines()[-1])["nodes"]) or not nodes[0]["message"]:
            assert time.monotonic() < until
        (node,) = nodes
        assert (node["mac"], node["address"], node["stage"]) == (mac, "10.0.0.50", "shim")
        assert node["message"] == "the TFTP server does not have boot/absent.img"
        assert served.end() == 0


def test_a_layout_that_reports_to_its_server_brings_the_collector_and_the_tokens_of_all_versions(
    net: Wire, site: Site, tmp_path: Path
) -> None:
    top, file, tokens = tmp_path / "lab", site.config.with_name("fetch.report-token"), []

    def publish() -> None:
        assert cli.main(site.command("--quiet", "--publish", str(top), "--report", "auto")) == 0
        tokens.append(file.read_text().strip())

    top.mkdir()
    publish()
    with serving(net, site, "--log-dir", tmp_path / "logs", folder=top) as served:
        assert served.result["nodes"] == "http://127.0.0.1:8787/"
        assert posted(net, json.dumps(report(1, phase="done")), tokens[0]) == "204"
        file.unlink()  # to have another token
        publish()
        until = time.monotonic() + EVENTS
        while posted(net, json.dumps(report(2, phase="done")), tokens[1]) != "204":
            assert time.monotonic() < until
            time.sleep(0.2)
        assert tokens[0] != tokens[1]
        assert posted(net, json.dumps(report(3)), tokens[0]) == "204"
        assert posted(net, json.dumps(report(3)), "wrong") == "401"
        listing = [sys.executable, "-m", "pxe_pack", "nodes", "--json"]
        (found,) = [json.loads(one) for one in net.run(net.at_server(*listing)).splitlines() if '"result"' in one]
        assert {one["layout"] for one in found["nodes"]} == {"lab"}
        assert served.end() == 0
    logs = "".join(one.read_text(errors="replace") for one in (tmp_path / "logs").glob("*.log"))
    assert not [token for token in tokens if token in logs + site.folder.joinpath("served.jsonl").read_text()]


def test_a_layout_that_reports_elsewhere_is_served_without_a_collector(net: Wire, site: Site, packs: Packs) -> None:
    packs("--report", "http://10.0.0.9:8787/report")
    with serving(net, site) as served:
        assert served.result["nodes"] is None
        assert posted(net, "{}") == "404"


def test_a_layout_that_reports_nothing_has_a_page_of_what_the_servers_sent(net: Wire, layout: Site) -> None:
    with serving(net, layout) as served:
        assert served.result["nodes"] == "http://127.0.0.1:8787/"
        net.fetch("tftp://10.0.0.1/bootx64.efi")
        until = time.monotonic() + EVENTS
        while [node["stage"] for node in known(net)] != ["shim"]:
            assert time.monotonic() < until
            time.sleep(0.2)
        ask = ["curl", "-sS", "-d", "{}", "http://10.0.0.1:8080/report"]
        assert "no reports are taken here: the layout was packed without `report: auto`" in net.run(net.at_node(*ask))
        assert posted(net, "{}", "0123456789abcdef" * 2) == "401"
        assert served.end() == 0


def test_page_has_a_password_and_a_webhook_and_is_elsewhere_if_asked(net: Wire, layout: Site, tmp_path: Path) -> None:
    token, password = "0123456789abcdef" * 2, tmp_path / "password"
    (tmp_path / "tokens").write_text(token)
    password.write_text("correct horse battery")
    everywhere: list[str | Path] = ["--page-listen", "0.0.0.0:8788", "--token-file", tmp_path / "tokens"]
    assert "error[serve-page]" in refused(net, layout.output, *everywhere)
    hook = (
        "import http.server, sys\n"
        "class Hook(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        print(self.rfile.read(int(self.headers['content-length'])).decode(), flush=True)\n"
        "        self.send_response(204)\n"
        "        self.end_headers()\n"
        "server = http.server.HTTPServer(('127.0.0.1', 8789), Hook)\n"
        "server.timeout = 30\n"
        "print(flush=True)\n"
        "server.handle_request()\n"
    )
    told_to = ["--failure-webhook", "http://127.0.0.1:8789/", "--keep", "720h"]
    with subprocess.Popen(net.at_server(sys.executable, "-c", hook), stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout
        told.stdout.readline()
        with serving(net, layout, *everywhere, "--password-file", password, *told_to) as served:
            assert served.result["nodes"] == "http://127.0.0.1:8788/"
            assert posted(net, json.dumps(report(1, phase="failed")), token) == "204"
            assert json.loads(told.stdout.readline())["hostname"] == "node1"
            (node,) = known(net, "--url", "http://127.0.0.1:8788/", "--password-file", password)
            assert (node["name"], node["address"]) == ("node1", "10.0.0.50")
            page = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} ", "http://10.0.0.1:8788/"]
            asked = net.run(net.at_node(*page)) + net.run(net.at_node(*page, "-u", ":correct horse battery"))
            assert asked == "401 200 "
            assert served.end() == 0


def test_page_is_at_https_with_a_certificate_of_its_own(
    net: Wire, layout: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, password = "0123456789abcdef" * 2, tmp_path / "password"
    (tmp_path / "tokens").write_text(token)
    password.write_text("correct horse battery")
    authority = Authority(tmp_path / "ca")
    page = authority.issue("page", alternative="IP:127.0.0.1,IP:10.0.0.1")
    options: list[str | Path] = ["--page-listen", "0.0.0.0:8788", "--token-file", tmp_path / "tokens"]
    options += ["--password-file", password, "--page-tls-cert", page.certificate]
    assert "--page-tls-cert is given alone" in refused(net, layout.output, *options)
    with serving(net, layout, *options, "--page-tls-key", page.key) as served:
        assert served.result["nodes"] == "https://127.0.0.1:8788/"
        assert posted(net, json.dumps(report(1, phase="failed")), token) == "204"
        ask: list[str | Path] = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} ", "https://10.0.0.1:8788/"]
        ask += ["--cacert", authority.certificate]
        asked = net.run(net.at_node(*ask)) + net.run(net.at_node(*ask, "-u", ":correct horse battery"))
        assert asked == "401 200 "
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
        (node,) = known(net, "--url", "https://127.0.0.1:8788/", "--password-file", password)
        assert (node["name"], node["address"]) == ("node1", "10.0.0.50")
        assert served.end() == 0


def test_logs_are_bounded_and_the_collector_reads_on(net: Wire, layout: Site) -> None:
    logs, largest = layout.folder / "logs", 16 << 10
    with serving(net, layout, "--log-dir", logs, "--log-size", "16KiB") as served:
        burst = "http://10.0.0.1:8080/absent?[1-150]"
        for _ in range(3):
            net.run(net.at_node("curl", "-sS", "-o", "/dev/null", burst))
            time.sleep(0.5)
        net.fetch("http://10.0.0.1:8080/boot.ipxe")
        until = time.monotonic() + EVENTS
        while not (logs / "nginx-access.log.1").exists() or (logs / "nginx-access.log").stat().st_size > largest:
            assert time.monotonic() < until
            time.sleep(0.1)
        while [node["stage"] for node in known(net)] != ["GRUB"]:
            assert time.monotonic() < until, known(net)
            time.sleep(0.2)
        assert served.end() == 0
    written = (logs / "nginx-access.log.1").read_text() + (logs / "nginx-access.log").read_text()
    assert written.splitlines()[-1].split('"')[1] == "GET /boot.ipxe HTTP/1.1"
    assert all(log.stat().st_size <= largest for log in logs.glob("*.log"))
    assert sorted(log.name for log in logs.glob("nginx-access*")) == ["nginx-access.log", "nginx-access.log.1"]
