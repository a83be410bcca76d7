"""`pxe-pack serve`: real dnsmasq and nginx, asked by a node in a network of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.collector import report
from fakes.wire import NODE, SERVER, Wire, environment, wire
from packing.keys import KeyPair
from packing.site import Site
from pxe_pack import cli

Packs = Callable[..., str]
ISO_URL = "http://10.0.0.1:8080/images/liveos.iso"
EVENTS = 20.0  # seconds that anything may take


@pytest.fixture(scope="module")
def net() -> Iterator[Wire]:
    """A server with two addresses, and a node."""
    with wire("10.0.0.1/24", "2001:db8::1/64") as made:
        yield made


@pytest.fixture
def layout(site: Site, packs: Packs) -> Site:
    (site.folder / "m.bin").write_bytes(b"weights " * 1000)
    site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
    packs()
    return site


@dataclass(kw_only=True)
class Served:
    """A running `pxe-pack serve --json`: what it printed, and its end."""

    process: subprocess.Popen[str]
    output: Path
    temporary: Path
    result: dict[str, object] = field(default_factory=dict)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]

    def wait_for(self, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """The first event that is `wanted`."""
        until = time.monotonic() + EVENTS
        while time.monotonic() < until:
            if found := next((event for event in self.events() if wanted(event)), None):
                return found
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.05)
        raise AssertionError(self.output.read_text())

    def children(self) -> dict[str, int]:
        """The pids of the servers, by their programs' names."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in task}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        return self.process.wait(EVENTS)


@contextlib.contextmanager
def serving(net: Wire, site: Site, *arguments: str | Path, folder: Path | None = None) -> Iterator[Served]:
    """Serve the site's layout, or `folder`, until the context ends."""
    temporary, output = site.folder / "tmp", site.folder / "served.jsonl"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pxe_pack", "serve", folder or site.output, "--json", *arguments]
    with output.open("w") as out:
        process = subprocess.Popen(
            net.at_server(*command), stdout=out, stderr=out, text=True, env={**environment(), "TMPDIR": str(temporary)}
        )
    served = Served(process=process, output=output, temporary=temporary)
    try:
        served.result = served.wait_for(lambda event: event["event"] == "result")
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(EVENTS)


def refused(net: Wire, folder: Path, *arguments: str | Path) -> str:
    """What stderr gets of a `serve` that is refused."""
    command = net.at_server(sys.executable, "-m", "pxe_pack", "serve", folder, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def check_gone(net: Wire, served: Served, children: dict[str, int]) -> None:
    """No server, no port, no file is left."""
    assert not [name for name, pid in children.items() if Path(f"/proc/{pid}").exists()]
    assert net.run(net.at_server("ss", "-Hlnut")) == ""
    assert not [*served.temporary.iterdir()]


def test_a_node_gets_addresses_boot_files_and_everything_else(net: Wire, layout: Site) -> None:
    options = ["--dhcp", "full", "--interface", SERVER, "--range", "10.0.0.60,10.0.0.60"]
    with serving(net, layout, *options) as served:
        assert net.offers(7) == ["10.0.0.60 10.0.0.1 bootx64.efi -"]
        assert net.offers(7, "iPXE") == ["10.0.0.60 10.0.0.1 http://10.0.0.1:8080/boot.ipxe -"]
        assert net.offers(16) == ["10.0.0.60 10.0.0.1 http://10.0.0.1:8080/bootx64.efi HTTPClient"]
        loader = (layout.output / "bootx64.efi").read_bytes()
        assert net.fetch("tftp://10.0.0.1/bootx64.efi") == loader
        assert net.fetch("http://10.0.0.1:8080/bootx64.efi") == loader
        iso = layout.iso.read_bytes()
        assert net.fetch(ISO_URL) == iso
        assert net.fetch(ISO_URL, "--range", "32768-32799") == iso[32768:32800]
        artifacts = str(layout.manifest()["artifact_url"])
        assert net.fetch(f"{artifacts}m.bin") == b"weights " * 1000
        assert served.result["dhcp"] == "full"
        clients = served.result["clients"]
        assert isinstance(clients, list)
        assert [client["loads"] for client in clients] == [
            "tftp://10.0.0.1/bootx64.efi",
            "http://10.0.0.1:8080/boot.ipxe",
            "http://10.0.0.1:8080/bootx64.efi",
        ]
        assert net.run(net.at_server("ss", "-Hln", "sport = :8080")).split()[4] == "10.0.0.1:8080"
        children = served.children()
        assert {"nginx", "dnsmasq"} <= children.keys()
        assert served.end(signal.SIGINT) == 0
    check_gone(net, served, children)


def test_a_proxy_answers_beside_another_server_and_full_dhcp_is_refused_there(net: Wire, layout: Site) -> None:
    other = net.at_node(
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", f"--interface={NODE}", "--bind-dynamic"),
        *("--dhcp-range=10.0.0.200,10.0.0.210", "--no-ping", f"--dhcp-leasefile={layout.folder}/leases", "--user="),
    )
    with subprocess.Popen(other, env=environment(), stderr=subprocess.DEVNULL) as process:
        try:
            said = refused(net, layout.output, "--dhcp", "full", "--interface", SERVER)
            assert "error[serve-second-dhcp]: a DHCP server answers on nodes already: 10.0.0.50" in said
            with serving(net, layout, "--dhcp", "proxy") as served:
                assert not [event for event in served.events() if event["event"] == "problem"]
                found = net.run(net.at_server(sys.executable, "-m", "fakes.dhcpv4", SERVER, "7")).splitlines()
                assert any(line.startswith("10.0.0.2") for line in found), found
        finally:
            process.kill()


def test_a_proxy_offers_the_boot_file_only(net: Wire, layout: Site) -> None:
    with serving(net, layout, "--dhcp", "proxy", "--interface", SERVER) as served:
        assert [offer.split()[1:3] for offer in net.offers(7)] == [["10.0.0.1", "bootx64.efi"]]
        assert [offer.split()[2] for offer in net.offers(7, "iPXE")] == ["http://10.0.0.1:8080/boot.ipxe"]
        problems = [event["reference"] for event in served.events() if event["event"] == "problem"]
        assert problems == ["serve-no-dhcp"]


def test_without_dhcp_nobody_is_answered_and_the_options_are_told(net: Wire, layout: Site) -> None:
    command = net.at_server(sys.executable, "-m", "pxe_pack", "serve", layout.output)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout
        lines = []
        while "Ctrl-C" not in (line := process.stdout.readline()):
            assert line, "it ended"
            lines.append(line)
        assert "Nodes:  http://127.0.0.1:8787/" in "".join(lines)
        assert "pack with --report auto" in "".join(lines)
        assert net.fetch("tftp://10.0.0.1/boot.ipxe") == (layout.output / "boot.ipxe").read_bytes()
        assert "UDP" not in (text := "".join(lines)) or "UDP 67" not in text
        assert "next-server (siaddr) 10.0.0.1, boot file (option 67) bootx64.efi" in text
        assert "vendor class (option 60) HTTPClient, boot file (option 67) http://10.0.0.1:8080/bootx64.efi" in text
        assert ":67 " not in net.run(net.at_server("ss", "-Hlnu"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(EVENTS) == 0


def test_a_server_that_dies_ends_all_and_is_named_with_its_last_lines(net: Wire, layout: Site) -> None:
    logs = layout.folder / "logs"
    with serving(net, layout, "--log-dir", logs) as served:
        net.fetch("tftp://10.0.0.1/boot.ipxe")
        until = time.monotonic() + EVENTS  # it logs a transfer after the node has all
        while "boot.ipxe to 10.0.0.50" not in (logs / "dnsmasq.log").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        children = served.children()
        os.kill(children["dnsmasq"], signal.SIGKILL)
        assert served.process.wait(EVENTS) == 4
        problem = served.events()[-1]
        assert problem["reference"] == "server-ended"
        assert str(problem["message"]).startswith("dnsmasq has ended with signal SIGKILL")
        assert "boot.ipxe to 10.0.0.50" in str(problem["label"])
    check_gone(net, served, children)


def test_servers_end_with_a_program_that_is_killed(net: Wire, layout: Site) -> None:
    with serving(net, layout) as served:
        children = served.children()
        served.end(signal.SIGKILL)
        until = time.monotonic() + EVENTS
        while net.run(net.at_server("ss", "-Hlnut")):
            assert time.monotonic() < until, children
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("kind", "port", "told"),
    [("tcp", 8080, "TCP 8080 (HTTP)"), ("udp", 69, "UDP 69 (TFTP)"), ("tcp", 8787, "TCP 8787 (collector)")],
)
def test_a_port_that_is_in_use_is_told_with_its_holder(
    net: Wire, layout: Site, kind: str, port: int, told: str
) -> None:
    hold = (
        "import socket, sys, time\n"
        f"held = socket.socket(type=socket.{'SOCK_STREAM' if kind == 'tcp' else 'SOCK_DGRAM'})\n"
        f"held.bind(('', {port}))\n"
        f"{'held.listen()' if kind == 'tcp' else ''}\n"
        "print(flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(net.at_server(sys.executable, "-c", hold), stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        (layout.folder / "tokens").write_text("0123456789abcdef" * 2)
        said = refused(net, layout.output, "--token-file", layout.folder / "tokens")
        assert f"cannot listen at {told}: Address already in use" in said
        assert f"(pid {holder.pid}) does" in said
        assert ("another --interface" in said) == (port != 8787)
        holder.kill()


@pytest.fixture
def readable(layout: Site) -> Iterator[Path]:
    """A folder that every user can read, with a copy of the layout and room for temporary files."""
    with tempfile.TemporaryDirectory(prefix="served-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(layout.output, folder / "pxe")
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o777)
        yield folder


def test_an_ordinary_user_serves_http_alone(readable: Path) -> None:
    """On this machine's loopback, by a user without any capability."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/liveos.iso"
    moved = ["--boot-url", url, "--artifact-url", f"http://127.0.0.1:{port}/files/"]
    assert cli.main(["relocate", str(readable / "pxe"), *moved, "--quiet"]) == 0
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    command: list[str | Path] = [sys.executable, "-m", "pxe_pack", "serve", readable / "pxe"]
    env = {**environment(), "TMPDIR": str(readable / "tmp"), "HOME": "/nonexistent"}
    user = drop if os.geteuid() == 0 else []
    if subprocess.run([*user, sys.executable, "-c", "import pxe_pack"], capture_output=True, check=False).returncode:
        pytest.skip("another user cannot read this project, or this Python")
    done = subprocess.run([*user, *command], capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, "error[serve-privileges]" in done.stderr) == (2, True), done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        page = f"127.0.0.1:{free.getsockname()[1]}"
    can_start_python = "import os, sys; sys.exit(not os.access(sys.executable, os.X_OK))"
    has_page = subprocess.run([*user, sys.executable, "-c", can_start_python], check=False).returncode == 0
    http_only = [*user, *command, "--unprivileged", *(["--page-listen", page] if has_page else [])]
    with subprocess.Popen(http_only, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout
        while "Ctrl-C" not in (line := process.stdout.readline()):
            assert line, "it ended"
        got = subprocess.run(["curl", "-sS", "--fail", url], capture_output=True, check=True).stdout
        if has_page:
            subprocess.run(["curl", "-sS", "--fail", "-o", "/dev/null", f"http://{page}/"], check=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(EVENTS) == 0
    assert got == (readable / "pxe/liveos.iso").read_bytes()
    if user:
        fleet = readable / "fleet.yaml"
        fleet.write_text("version: 1\nartifacts: []\n")
        assert cli.main(["pin", str(readable / "pxe"), str(fleet), "--url", f"{url}.yaml", "--quiet"]) == 0
        fleet.chmod(0o600)
        pinned = [*user, *command, "--unprivileged", "--pinned", fleet]
        done = subprocess.run(pinned, capture_output=True, text=True, check=False, env=env)
        assert f"error[serve-pinned]: nginx cannot read {fleet}" in done.stderr
    assert not [*(readable / "tmp").iterdir()]


def test_rollback_is_served_at_once_without_a_restart(net: Wire, site: Site, tmp_path: Path) -> None:
    top = tmp_path / "published"
    top.mkdir()

    def publish(content: str, *arguments: str) -> None:
        (site.folder / "m.bin").write_text(content)
        site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
        assert cli.main(site.command("--quiet", "--publish", str(top), *arguments)) == 0

    publish("one")
    artifact = "http://10.0.0.1:8080/images/other-user-artifacts/m.bin"
    logs = tmp_path / "logs"
    with serving(net, site, "--log-dir", logs, folder=top) as served:
        children = served.children()
        first = str(served.result["version"])
        assert net.fetch(artifact) == b"one"
        publish("two")
        assert net.fetch(artifact) == b"two"
        assert cli.main(["rollback", str(top), "--quiet"]) == 0
        assert net.fetch(artifact) == b"one"
        script = net.fetch("tftp://10.0.0.1/boot.ipxe")
        publish("three", "--boot-url", "http://10.0.0.1:8081/other.iso")
        served.wait_for(lambda event: event["event"] == "say" and "serving version" in str(event["text"]))
        until = time.monotonic() + EVENTS
        while not net.run(net.at_server("ss", "-Hlnt", "sport = :8081")):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert net.fetch("http://10.0.0.1:8081/other-user-artifacts/m.bin") == b"three"
        assert net.fetch("tftp://10.0.0.1/boot.ipxe") != script
        assert served.children() == children, "nothing has to be restarted without DHCP"
        assert served.end() == 0
    assert f"/versions/{first}" in (logs / "nginx-access.log").read_text()


def test_https_is_served_with_a_certificate_that_it_makes_once(net: Wire, site: Site, packs: Packs) -> None:
    packs()
    site.name_iso_at("https://10.0.0.1/liveos.iso")
    tls: list[str | Path] = ["--tls-cert", site.folder / "cert.pem", "--tls-key", site.folder / "key.pem"]
    assert "error[snippet-scheme]: nginx needs a certificate" in refused(net, site.output)
    assert "error[tls-unreadable]" in refused(net, site.output, *tls)
    trust = ["--cacert", str(site.folder / "cert.pem")]
    for _ in range(2):
        with serving(net, site, *tls, "--tls-self-signed") as served:
            assert net.fetch("https://10.0.0.1/liveos.iso", *trust) == site.iso.read_bytes()
            assert served.result["ports"] == [
                {"port": 443, "protocol": "tcp", "purpose": "HTTPS"},
                {"port": 8080, "protocol": "tcp", "purpose": "HTTP"},
                {"port": 69, "protocol": "udp", "purpose": "TFTP"},
            ]
            clients = served.result["clients"]
            assert isinstance(clients, list)
            assert [client["loads"] for client in clients if client["name"] == "iPXE"] == ["tftp://10.0.0.1/boot.ipxe"]
            made = (site.folder / "cert.pem").read_bytes()
    assert (site.folder / "cert.pem").read_bytes() == made
    assert (site.folder / "key.pem").stat().st_mode & 0o777 == 0o600
    strict = (
        "import socket, ssl\n"
        f"context = ssl.create_default_context(cafile={str(site.folder / 'cert.pem')!r})\n"
        "context.verify_flags |= ssl.VERIFY_X509_STRICT\n"
        "with socket.create_connection(('10.0.0.1', 443)) as plain:\n"
        "    context.wrap_socket(plain, server_hostname='10.0.0.1').close()\n"
    )
    site.name_iso_at("https://boot.lan/liveos.iso")
    with serving(net, site, *tls) as served:
        problems = {event["reference"] for event in served.events() if event["event"] == "problem"}
        assert problems == {"tls-host", "serve-address"}
        net.run(net.at_node(sys.executable, "-c", strict))
        by_name = ["--resolve", "boot.lan:443:10.0.0.1", "--insecure"]
        assert net.fetch("https://boot.lan/liveos.iso", *by_name) == site.iso.read_bytes()


def test_ipv6_is_served_and_dhcp_follows_a_version_with_other_urls(net: Wire, site: Site, tmp_path: Path) -> None:
    top = tmp_path / "published"
    top.mkdir()
    site.pack = {"boot_url": "http://[2001:db8::1]:8080/liveos.iso"}
    assert cli.main(site.command("--quiet", "--publish", str(top))) == 0
    net.run(net.at_node("ip", "address", "replace", "2001:db8::50/64", "dev", NODE, "nodad"))
    firmware, ipxe = (net.at_node(sys.executable, "-m", "fakes.dhcpv6", NODE, "7", *more) for more in ([], ["iPXE"]))
    with serving(net, site, "--dhcp", "full", folder=top) as served:
        iso = (top / "current/liveos.iso").read_bytes()
        assert net.fetch("http://[2001:db8::1]:8080/liveos.iso") == iso
        assert net.fetch("tftp://[2001:db8::1]/boot.ipxe") == (top / "current/boot.ipxe").read_bytes()
        assert net.run(firmware).strip() == "tftp://[2001:db8::1]/bootx64.efi"
        assert net.run(ipxe).strip() == "http://[2001:db8::1]:8080/boot.ipxe"
        moved = ["--boot-url", "http://[2001:db8::1]:8082/liveos.iso"]
        assert cli.main(site.command("--quiet", "--publish", str(top), *moved)) == 0
        served.wait_for(lambda event: event["event"] == "say" and "serving version" in str(event["text"]))
        assert net.run(ipxe).strip() == "http://[2001:db8::1]:8082/boot.ipxe"
        assert net.fetch("http://[2001:db8::1]:8082/liveos.iso") == iso
        assert served.end() == 0


def test_server_that_does_not_start_again_for_another_version_ends_all(
    net: Wire, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, programs, broken = tmp_path / "published", tmp_path / "programs", tmp_path / "broken"
    top.mkdir()
    programs.mkdir()
    program = shutil.which("dnsmasq", path=environment()["PATH"])
    (programs / "dnsmasq").write_text(f'#!/bin/sh\n[ ! -e {broken} ] || exit 3\nexec {program} "$@"\n')
    (programs / "dnsmasq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{environment()['PATH']}")
    assert cli.main(site.command("--quiet", "--publish", str(top))) == 0
    with serving(net, site, "--dhcp", "full", folder=top) as served:
        broken.touch()
        moved = ["--boot-url", "http://10.0.0.1:8082/liveos.iso"]
        assert cli.main(site.command("--quiet", "--publish", str(top), *moved)) == 0
        assert served.process.wait(EVENTS) == 4
        assert "dnsmasq has ended with exit code 3, so all servers are stopped" in served.output.read_text()
        assert "is served with the URLs of the one before it" not in served.output.read_text()


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        (["--interface", "eth99"], "serve-interface"),
        (["--dhcp", "full", "--interface", "lo", "--subnet", "192.0.2.0/24"], "serve-interface"),
        (["--range", "10.0.0.5,10.0.0.9"], "serve-range"),
        (["--dhcp", "full", "--range", "10.0.1.5,10.0.1.9"], "serve-range"),
        (["--dhcp", "full", "--range", "10.0.0.9,10.0.0.5"], "serve-range"),
        (["--dhcp", "proxy", "--unprivileged"], "serve-privileges"),
        (["--tls-cert", "x.pem"], "tls-incomplete"),
        (["--tls-self-signed"], "tls-incomplete"),
    ],
)
def test_what_cannot_be_served_is_refused(net: Wire, layout: Site, arguments: list[str], reference: str) -> None:
    assert f"error[{reference}]" in refused(net, layout.output, *arguments)


@pytest.mark.parametrize(
    "flags", [["--log-dir"], ["--token-file"], ["--password-file"], ["--database"], ["--tls-cert", "--tls-key"]]
)
def test_secrets_and_logs_in_the_layout_are_refused(net: Wire, layout: Site, flags: list[str]) -> None:
    prefix = "sqlite:///" if flags == ["--database"] else ""
    words = [word for flag in flags for word in (flag, f"{prefix}{layout.output}/own")]
    said = refused(net, layout.output, *words)
    assert f"error[serve-exposed]: {flags[-1]} {layout.output}/own is in the layout" in said


def posted(net: Wire, body: str, token: str = "") -> str:
    """The status of the answer to a report from the node."""
    ask = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-d", body, "http://10.0.0.1:8080/report"]
    return net.run(net.at_node(*ask, *(["-H", f"Authorization: Bearer {token}"] if token else [])))


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


def known(net: Wire, *options: str | Path) -> list[dict[str, object]]:
    """The nodes that the collector knows."""
    listing = net.at_server(sys.executable, "-m", "pxe_pack", "nodes", "--json", *options)
    (found,) = [json.loads(one) for one in net.run(listing, check=False).splitlines() if '"result"' in one]
    nodes: list[dict[str, object]] = found["nodes"]
    return nodes


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


def test_log_says_which_version_a_file_was_sent_from_even_if_another_one_is_current_by_then(
    net: Wire, site: Site, tmp_path: Path
) -> None:
    top, ready, large = tmp_path / "published", tmp_path / "ready", 40 << 20
    top.mkdir()
    for content in (b"one", b"two"):
        (site.folder / "m.bin").write_bytes(content.ljust(large, b"."))
        site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin", "chunks": "none"}]}
        assert cli.main(site.command("--quiet", "--publish", str(top))) == 0
    slow = (
        "import pathlib, sys, time, urllib.request\n"
        f"body = urllib.request.urlopen('http://10.0.0.1:8080/images/other-user-artifacts/m.bin')\n"
        "print(body.read(3).decode(), flush=True)\n"
        f"while not pathlib.Path({str(ready)!r}).exists(): time.sleep(0.05)\n"
        "print(3 + len(body.read()), flush=True)\n"
    )
    with serving(net, site, "--log-dir", tmp_path / "logs", folder=top) as served:
        with subprocess.Popen(net.at_node(sys.executable, "-c", slow), stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout
            assert node.stdout.readline() == "two\n"
            assert cli.main(["rollback", str(top), "--quiet"]) == 0
            ready.touch()
            assert node.stdout.readline() == f"{large}\n"
        assert served.end() == 0
    (line,) = (tmp_path / "logs/nginx-access.log").read_text().splitlines()
    assert line.endswith(
        f'200 {large} "-" "Python-urllib/{sys.version_info[0]}.{sys.version_info[1]}" '
        f'"{large}" "-" "{top}/versions/{served.result["version"]}"'
    )


@pytest.mark.parametrize("signed", [False, True])
def test_a_pinned_configuration_is_served_at_its_url(
    net: Wire,
    site: Site,
    packs: Packs,
    keys: KeyPair,
    signed: bool,  # noqa: FBT001
) -> None:
    packs(*(["--trust", keys.public] if signed else []))
    fleet = site.folder / "fleet.yaml"
    fleet.write_text("version: 1\nserial: 1\nartifacts: []\n")
    pin = ["pin", str(site.output), str(fleet), "--url", "http://10.0.0.1:8080/conf/fleet.yaml", "--quiet"]
    assert cli.main([*pin, *(["--sign", str(keys.secret)] if signed else [])]) == 0
    with serving(net, site) as served:
        (problem,) = [event for event in served.events() if event["event"] == "problem"]
        assert problem["reference"] == "serve-pinned"
        assert "http://10.0.0.1:8080/conf/fleet.yaml, which is not served" in str(problem["message"])
    with serving(net, site, "--pinned", fleet) as served:
        assert not [event for event in served.events() if event["event"] == "problem"]
        assert net.fetch("http://10.0.0.1:8080/conf/fleet.yaml") == fleet.read_bytes()
        if signed:
            signature = fleet.with_name("fleet.yaml.minisig")
            assert net.fetch("http://10.0.0.1:8080/conf/fleet.yaml.minisig") == signature.read_bytes()
    if not signed:
        fleet.write_text("version: 1\nserial: 2\nartifacts: []\n")
        assert "is not the configuration that was pinned" in refused(net, site.output, "--pinned", fleet)
    assert "is not a file" in refused(net, site.output, "--pinned", site.folder / "absent.yaml")
    assert cli.main(["pin", str(site.output), "--remove", "--quiet"]) == 0
    assert "has no pinned configuration" in refused(net, site.output, "--pinned", fleet)


def test_missing_programs_are_named_with_their_packages(net: Wire, layout: Site) -> None:
    (layout.folder / "bin").mkdir()
    (layout.folder / "bin/ip").symlink_to("/usr/sbin/ip")
    isolated = "import sys; from pxe_pack import cli, tools; tools.SEARCH_PATH = sys.argv.pop(1); sys.exit(cli.main())"
    command = net.at_server(sys.executable, "-c", isolated, layout.folder / "bin", "serve", layout.output)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "nginx is required to serve the layout" in said
    assert "install dnsmasq-base" in said


def test_a_folder_that_does_not_exist_is_told_before_a_missing_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pxe_pack", "serve", tmp_path / "nope"],
        env={**environment(), "PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nope" in done.stderr
    assert "tool-missing" not in done.stderr
