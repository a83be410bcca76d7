"""How `pxe-pack serve` starts and ends its servers, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.wire import Wire, environment
from packing.served import EVENTS, check_gone, refused, serving
from packing.site import Site


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_server_that_has_become_another_user_ends_with_a_program_that_is_killed(readable: Path) -> None:
    """In a network of its own, but not among other users: in a namespace of those, there is nobody to become."""
    network = 'ip link set lo up && ip address add 10.0.0.1/24 dev lo && exec "$@"'
    command = ["unshare", "--net", "sh", "-c", network, "sh", sys.executable, "-m", "pxe_pack", "serve", "--json"]
    env = {**environment(), "TMPDIR": str(readable / "tmp")}
    with subprocess.Popen([*command, readable / "pxe"], stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout
        while '"event": "result"' not in (line := process.stdout.readline()):
            assert line, "it ended"
        task = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        others = [pid for pid in task if Path(f"/proc/{pid}").stat().st_uid != 0]
        assert [Path(f"/proc/{pid}/comm").read_text() for pid in others] == ["dnsmasq\n"]
        process.kill()
    until = time.monotonic() + EVENTS
    while left := [pid for pid in task if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


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
