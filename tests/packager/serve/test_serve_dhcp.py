"""`pxe-pack serve` and DHCP: who gets an answer, and what it says."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.wire import NODE, SERVER, Wire, environment
from packing.served import EVENTS, check_gone, refused, serving
from packing.site import Site
from pxe_pack import cli

ISO_URL = "http://10.0.0.1:8080/images/liveos.iso"


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
