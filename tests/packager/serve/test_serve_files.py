"""The files that `pxe-pack serve` sends: versions, https, a pinned configuration, the log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.wire import Wire, environment
from packing.keys import KeyPair
from packing.served import EVENTS, refused, serving
from packing.site import Site
from pxe_pack import cli

Packs = Callable[..., str]


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
