"""A node is seen from its first DHCP packet: what the logs of dnsmasq and nginx say of its stage."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from fakes import ports
from fakes.collector import Collector, Document, collector, mac_of, report, run_id
from fakes.dnsmasq import dnsmasq
from fakes.process import Process, program, running
from fakes.waiting import until
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.urls import Urls

FIRMWARE = "vendor class: PXEClient:Arch:00007:UNDI:003016"


@dataclass(kw_only=True)
class Logs:
    """The logs that a collector follows, written by hand, and the node that a test is about."""

    collecting: Collector
    dnsmasq: Path
    nginx: Path
    number: int = 0

    @property
    def mac(self) -> str:
        return mac_of(self.number)

    @property
    def other_mac(self) -> str:
        return mac_of(self.number + 50)

    @property
    def address(self) -> str:
        return f"10.0.{self.number}.5"

    @property
    def other_address(self) -> str:
        return f"10.0.{self.number}.6"

    def dhcp(self, text: str, *, transaction: int = 1) -> None:
        self.append(self.dnsmasq, f"Nov 30 07:41:09 dnsmasq-dhcp[12]: {self.number}{transaction} {text}\n")

    def tftp(self, text: str) -> None:
        self.append(self.dnsmasq, f"Nov 30 07:41:09 dnsmasq-tftp[12]: {text}\n")

    def http(self, path: str, *, address: str = "", status: int = 200, size: int = 1000, more: str = "") -> None:
        """`more` is what follows in the format of `pxe-pack serve`."""
        line = f'"GET {path} HTTP/1.1" {status} {size} "-" "curl/8"{more}'
        self.append(self.nginx, f"{address or self.address} - - [30/Nov/2026:07:41:09 +0000] {line}\n")

    def append(self, file: Path, text: str) -> None:
        with file.open("a") as stream:
            stream.write(text)

    def boot(self, *, address: str = "", mac: str = "") -> None:
        """Firmware gets an address."""
        self.dhcp(FIRMWARE)
        self.dhcp(f"DHCPDISCOVER(eth1) {mac or self.mac} ")
        self.dhcp(f"DHCPACK(eth1) {address or self.address} {mac or self.mac} ")

    def report(self, *, run: str = "", seconds: float = 2.0) -> None:
        """The node has done all."""
        document = report(self.number, phase="done", run=run or run_id(), seconds=seconds)
        assert self.collecting.post(document, headers={"X-Forwarded-For": self.address}).status_code == 204

    def wait_for(self, **values: object) -> Document:
        """The test's node once it has these values."""
        return self.collecting.wait_for(self.mac, **values)


@pytest.fixture(scope="module")
def collecting_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logs]:
    folder = tmp_path_factory.mktemp("logs")
    nginx, dnsmasq_log = folder / "access.log", folder / "dnsmasq.log"
    with collector(folder / "c", "--nginx-log", str(nginx), "--dnsmasq-log", str(dnsmasq_log)) as collecting:
        yield Logs(collecting=collecting, dnsmasq=dnsmasq_log, nginx=nginx)


@pytest.fixture
def logs(collecting_logs: Logs) -> Logs:
    """The logs of one collector, with nodes that no other test has."""
    collecting_logs.number += 1
    return collecting_logs


def test_node_is_shown_at_each_stage_of_its_boot_and_is_the_one_that_reports(logs: Logs) -> None:
    logs.boot()
    logs.wait_for(stage="DHCP", state="booting", address=logs.address)
    logs.tftp(f"sent /srv/pxe/bootx64.efi to {logs.address}")
    logs.wait_for(stage="shim")
    logs.tftp(f"sent /srv/pxe/grubx64.efi to {logs.address}")
    logs.wait_for(stage="GRUB")
    logs.tftp(f"sent /srv/pxe/boot/vmlinuz-6.6 to {logs.address}")
    logs.wait_for(stage="kernel")
    logs.tftp(f"sent /srv/pxe/boot/initrd.img to {logs.address}")
    logs.wait_for(stage="initrd")
    logs.dhcp(f"DHCPDISCOVER(eth1) {logs.mac} ", transaction=2)  # that of the initrd
    logs.http("/liveos.iso")
    logs.wait_for(stage="ISO")
    logs.report()
    found = logs.collecting.node(f"node{logs.number}")
    assert [one["stage"] for one in found["timeline"]] == ["DHCP", "shim", "GRUB", "kernel", "initrd", "ISO", "done"]
    assert found["mac"] == logs.mac
    assert len(logs.collecting.nodes(q=logs.mac)) == 1


def test_node_that_never_gets_past_tftp_is_shown_there_with_the_servers_words(logs: Logs) -> None:
    logs.boot()
    logs.tftp(f"file /srv/pxe/bootx64.efi not found for {logs.address}")
    found = logs.wait_for(message="the TFTP server does not have /srv/pxe/bootx64.efi")
    assert (found["stage"], found["state"]) == ("DHCP", "booting")
    logs.tftp(f"failed sending /srv/pxe/bootx64.efi to {logs.address}")
    logs.wait_for(message="the TFTP server could not send /srv/pxe/bootx64.efi")
    logs.tftp(f"sent /srv/pxe/bootx64.efi to {logs.address}")
    logs.wait_for(stage="shim", message="")


@pytest.mark.parametrize("target", ["//[", "http://[x/", "//a[b]/initrd", "http://["])
def test_request_for_what_is_no_url_does_not_keep_the_next_line_from_being_read(logs: Logs, target: str) -> None:
    logs.boot()
    logs.http(target, address="10.9.9.9", status=404)
    logs.http("/liveos.iso")
    logs.wait_for(stage="ISO")
    assert logs.collecting.process.printed().count("Traceback") == 0


def test_target_with_a_host_or_a_query_is_the_file_of_its_path(logs: Logs) -> None:
    logs.boot()
    logs.http("HTTP://boot.lan:8080/boot/vmlinuz-6.6?try=1/x")
    logs.wait_for(stage="kernel", message="")


def test_line_with_a_number_that_no_file_has_says_no_part(logs: Logs) -> None:
    logs.boot()
    logs.http("/liveos.iso", more=f' "{"9" * 5000}" "-" "/srv/pxe"')
    logs.wait_for(stage="ISO")
    assert logs.collecting.node(logs.mac)["timeline"][-1]["text"] == "/liveos.iso by HTTP"


def test_files_that_boot_loaders_can_do_without_are_no_trouble(logs: Logs) -> None:
    logs.boot()
    logs.tftp(f"sent /srv/pxe/bootx64.efi to {logs.address}")
    for name in ("revocations_sku.efi", "shim_certificate_0.efi", "grub.cfg-01-52-54-00-12-34-56", "x86_64-efi/fs.lst"):
        logs.tftp(f"file /srv/pxe/{name} not found for {logs.address}")
        logs.http(f"/{name}", status=404)
    logs.tftp(f"file /srv/pxe/grub.cfg not found for {logs.address}")
    logs.wait_for(stage="shim", message="the TFTP server does not have /srv/pxe/grub.cfg")
    assert len(logs.collecting.node(logs.mac)["timeline"]) == 3
    logs.http("/grubx64.efi", status=404)
    logs.wait_for(message="the HTTP server answered 404 for /grubx64.efi")


def test_node_that_stops_is_shown_as_silent_at_its_stage_with_the_time_since(logs: Logs) -> None:
    logs.boot()
    logs.tftp(f"sent /srv/boot/initrd.img to {logs.address}")
    number = logs.wait_for(stage="initrd", state="booting")["id"]
    with sqlite3.connect(logs.collecting.folder / "nodes.db", timeout=20) as connection:  # as if it were later
        ago = "UPDATE nodes SET seen = seen - 600, stage_since = stage_since - 600 WHERE id = ?"
        connection.execute(ago, (number,))
    found = logs.wait_for(stage="initrd", state="silent")
    assert 600 <= found["stage_seconds"] < 700
    assert "did not ask for its root filesystem" in found["advice"]
    assert [*logs.collecting.nodes(state="silent", stage="initrd")] == [logs.mac]
    assert logs.collecting.get("summary")["states"]["silent"] == 1
    logs.http("/liveos.iso")
    logs.wait_for(stage="ISO", state="booting")


@pytest.mark.parametrize(
    ("lines", "percent"),
    [
        (['200 1000 "4000" "-"'], 25.0),
        (['200 1000 "4000" "-"', '206 1000 "3000" "bytes 1000-3999/4000"'], 50.0),  # resumed, and cut again
        (
            ['200 1000 "4000" "-"', '206 1000 "3000" "bytes 1000-3999/4000"', '206 2000 "2000" "bytes 2000-3999/4000"'],
            100,
        ),
        (['200 1000 "4000" "-"', '206 1000 "1000" "bytes 3000-3999/4000"'], 25.0),  # what is in between is missing
        (['206 1000 "1000" "bytes 3000-3999/4000"'], None),
        (['200 3000 "4000" "-"', '200 1000 "4000" "-"'], 75.0),  # begun again
        (["200 4000"], None),  # the format "combined"
        (['200 4000 "0" "-"'], None),
        (['206 4000 "4000" "multipart; x"'], None),
    ],
)
def test_percentage_of_the_iso_comes_from_the_ranges_that_were_sent(
    logs: Logs, lines: list[str], percent: float | None
) -> None:
    for line in lines:
        status, size, *more = line.split(" ", 2)
        logs.http("/os/live.iso", status=int(status), size=int(size), more=f' {more[0]} "/srv/pxe"' if more else "")
    logs.collecting.wait_for(logs.address, stage="ISO", percent=percent)


def test_node_and_its_run_have_the_version_that_it_booted(logs: Logs) -> None:
    name, versions = f"node{logs.number}", ("20261130T074501Z-1a2b3c4d", "20261130T080000Z-0badcafe")
    for shown, version in zip((logs.mac, name), versions, strict=True):
        logs.boot()
        logs.collecting.wait_for(shown, stage="DHCP", version="")
        logs.http("/liveos.iso", more=f' "1000" "-" "/srv/lab/versions/{version}"')
        logs.collecting.wait_for(shown, stage="ISO", version=version)
        logs.report()
        # what the node fetches once it is up says nothing of its boot
        logs.http("/other.iso", more=' "1000" "-" "/srv/lab/versions/20261130T090000Z-00000000"')
        logs.http("/liveos.iso", address=f"10.1.{logs.number}.{versions.index(version)}")
        logs.collecting.wait_for(f"10.1.{logs.number}.{versions.index(version)}")  # so the line before has been read
    found = logs.collecting.wait_for(name, state="done", version=versions[1])
    assert [one["version"] for one in logs.collecting.node(found["name"])["runs"]] == [versions[1], versions[0]]


@pytest.mark.parametrize(
    ("programs", "stages"),
    [
        (["bootx64.efi"], ["DHCP", "initrd", "ISO"]),  # the firmware starts it
        (["grubx64.efi"], ["DHCP", "shim", "initrd", "ISO"]),  # shim does
        ([], ["DHCP", "shim", "GRUB", "ISO"]),
    ],
)
def test_signed_program_brings_kernel_and_initrd(
    logs: Logs, tmp_path: Path, programs: list[str], stages: list[str]
) -> None:
    pxe, nginx, dnsmasq_log = tmp_path / "pxe", tmp_path / "access.log", tmp_path / "dnsmasq.log"
    pxe.mkdir()
    layout = Layout(root=pxe, urls=Urls(boot_url="http://10.0.0.1/live.iso", artifact_url=""))
    for name in programs:
        layout.write(name, [b"x"])
    layout.finish({"pxe_pack": "0.1.0", "secure_boot": {"programs": programs}})
    options = ("--nginx-log", str(nginx), "--dnsmasq-log", str(dnsmasq_log), "--layout", str(pxe))
    with collector(tmp_path / "c", *options) as collecting:
        own = replace(logs, collecting=collecting, nginx=nginx, dnsmasq=dnsmasq_log)
        own.boot()
        own.wait_for(stage="DHCP")
        own.tftp(f"sent {pxe}/bootx64.efi to {own.address}")
        own.wait_for(stage=stages[1])
        own.tftp(f"sent {pxe}/grubx64.efi to {own.address}")
        own.wait_for(stage=stages[-2])
        own.http("/live.iso")
        own.wait_for(stage="ISO")
        assert [one["stage"] for one in collecting.node(own.mac)["timeline"]] == stages


def test_node_whose_iso_is_missing_is_shown_at_the_initrd(logs: Logs) -> None:
    logs.boot()
    logs.tftp(f"sent /srv/boot/initrd.img to {logs.address}")
    logs.http("/liveos.iso", status=404)
    found = logs.wait_for(message="the HTTP server answered 404 for /liveos.iso")
    assert found["stage"] == "initrd"


def test_node_that_boots_again_starts_at_dhcp_and_its_operating_systems_dhcp_changes_nothing(logs: Logs) -> None:
    logs.boot()
    run, name = run_id(), f"node{logs.number}"
    logs.wait_for(stage="DHCP")
    logs.report(run=run)
    logs.dhcp(f"DHCPDISCOVER(eth1) {logs.mac} ", transaction=7)
    logs.dhcp(f"DHCPACK(eth1) {logs.other_address} {logs.mac} {name}", transaction=7)
    logs.collecting.wait_for(name, address=logs.other_address, state="done")
    logs.boot(address=logs.other_address)
    found = logs.collecting.wait_for(name, stage="DHCP", state="booting", run=None)
    assert found["message"] == ""
    logs.report(run=run, seconds=2.5)  # late, of the boot before
    assert logs.collecting.nodes()[name]["state"] == "booting"


def test_address_that_another_node_gets_is_no_longer_the_first_ones(logs: Logs) -> None:
    logs.boot()
    logs.boot(mac=logs.other_mac)
    logs.tftp(f"sent /srv/boot/vmlinuz to {logs.address}")
    logs.collecting.wait_for(logs.other_mac, stage="kernel")
    assert logs.collecting.nodes()[logs.mac]["stage"] == "DHCP"


def test_node_that_only_nginx_has_seen_is_the_one_that_reports_from_that_address(logs: Logs) -> None:
    logs.http("/pxe/bootx64.efi", address="2001:db8::5")
    logs.collecting.wait_for("2001:db8::5", stage="shim")
    logs.collecting.post(report(99), headers={"X-Forwarded-For": "2001:db8::5"})
    assert [*logs.collecting.nodes(q="2001:db8::5")] == ["node99"]
    assert [one["stage"] for one in logs.collecting.node("node99")["timeline"]] == ["shim", "artifacts"]


@pytest.mark.parametrize("how", ["renamed", "copied and truncated", "truncated"])
def test_rotated_log_is_read_to_its_end_and_then_the_new_one(logs: Logs, how: str) -> None:
    logs.boot()
    logs.tftp(f"sent /srv/bootx64.efi to {logs.address}")
    logs.wait_for(stage="shim")
    copy = logs.dnsmasq.with_name(f"{logs.dnsmasq.name}.1")
    copy.unlink(missing_ok=True)
    if how == "renamed":
        logs.tftp(f"sent /srv/boot/vmlinuz to {logs.address}")
        logs.dnsmasq.rename(copy)
    else:
        os.kill(pid := logs.collecting.process.pid, signal.SIGSTOP)  # its lines come between two looks
        logs.tftp(f"sent /srv/boot/vmlinuz to {logs.address}")
        if how != "truncated":
            shutil.copy(logs.dnsmasq, copy)
        os.truncate(logs.dnsmasq, 0)
        os.kill(pid, signal.SIGCONT)
    logs.tftp(f"sent /srv/boot/initrd.img to {logs.address}")
    logs.wait_for(stage="initrd")
    stages = [one["stage"] for one in logs.collecting.node(logs.mac)["timeline"]]
    assert ("kernel" in stages) is (how != "truncated")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_in_the_place_of_a_log_holds_up_nothing(logs: Logs, kind: str) -> None:
    logs.boot()
    logs.wait_for(stage="DHCP")
    place, away = logs.nginx, logs.nginx.with_name("away")
    place.rename(away)
    try:
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        else:
            place.symlink_to("/dev/zero")
        logs.tftp(f"sent /srv/bootx64.efi to {logs.address}")
        logs.wait_for(stage="shim")
        logs.report()
    finally:
        if kind == "folder":
            place.rmdir()
        away.rename(place)
    logs.http("/boot/vmlinuz", address=logs.other_address)
    logs.collecting.wait_for(logs.other_address)


def test_line_is_read_when_it_is_complete(logs: Logs) -> None:
    logs.boot()
    logs.append(logs.dnsmasq, "Nov 30 07:41:09 dnsmasq-tftp[12]: sent /srv/boot/vmlinuz to 10.0.")
    logs.wait_for(stage="DHCP")
    logs.append(logs.dnsmasq, f"{logs.number}.5\n")
    logs.wait_for(stage="kernel")


def test_lines_written_while_the_collector_was_down_are_read_when_it_is_back_and_none_twice(logs: Logs) -> None:
    logs.boot()
    logs.tftp(f"file /srv/x.efi not found for {logs.address}")
    logs.wait_for(message="the TFTP server does not have /srv/x.efi")
    logs.collecting.process.kill()
    logs.tftp(f"sent /srv/boot/vmlinuz to {logs.address}")
    logs.collecting.restart()
    logs.wait_for(stage="kernel")
    texts = [one["text"] for one in logs.collecting.node(logs.mac)["timeline"]]
    assert len(texts) == 3


def test_hostile_lines_say_nothing_of_other_nodes(logs: Logs) -> None:
    logs.boot()
    logs.boot(address=logs.other_address, mac=logs.other_mac)
    sent = f"sent /boot/vmlinuz to {logs.address}"
    lines = [
        f"Nov 30 07:41:09 dnsmasq-dhcp[12]: 9 vendor class: x dnsmasq-tftp[12]: {sent}",
        f"Nov 30 07:41:09 dnsmasq-tftp[12]: file /boot/vmlinuz to {logs.address} not found for {logs.other_address}",
        "Nov 30 07:41:09 dnsmasq-tftp[12]: sent /boot/vmlinuz to 10.0.0.999",
        "x" * 100_000 + f" dnsmasq-tftp[12]: {sent}",
        "\x1b[2J\x00\udcff".encode(errors="surrogateescape").decode(errors="replace"),
    ]
    for line in lines:
        logs.append(logs.dnsmasq, f"{line}\n")
    agent = '"-" "x\\x22 - - [x] \\x22GET /liveos.iso HTTP/1.1\\x22 200 1"'
    logs.append(logs.nginx, f'{logs.other_address} - - [30/Nov/2026:07:41:09 +0000] "GET /x HTTP/1.1" 200 5 {agent}\n')
    logs.append(logs.nginx, f'{logs.other_address} - {logs.address} - - [x] "GET /liveos.iso HTTP/1.1" 200 5 "-" "-"\n')
    logs.tftp(f"sent /srv/grubx64.efi to {logs.other_address}")
    logs.collecting.wait_for(logs.other_mac, stage="GRUB")
    assert logs.collecting.nodes()[logs.mac]["stage"] == "DHCP"


def test_real_dnsmasq_and_nginx_are_understood(tmp_path: Path) -> None:
    root, folder, port = tmp_path / "pxe", tmp_path / "nginx", ports.free()
    for name in ("bootx64.efi", "boot/vmlinuz", "liveos.iso"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 5000)
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"{'user root;' if Path(folder).owner() == 'root' else ''}"
        f"http {{ access_log {folder}/access.log; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;"
        f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
    )
    nginx = Process(
        command=[program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"],
        is_ready=lambda: ports.accepts(port),
    )
    options = ("--dnsmasq-log", str(tmp_path / "dnsmasq/log"), "--nginx-log", str(folder / "access.log"))
    with (
        collector(tmp_path / "c", *options) as collecting,
        dnsmasq(tmp_path / "dnsmasq", root=root) as server,
        running(nginx),
    ):
        fetch = [*server.inside, "curl", "-sS", "-o", "/dev/null"]
        subprocess.run([*fetch, server.url("/absent.efi")], check=False)
        collecting.wait_for("127.0.0.1", message=f"the TFTP server does not have {root}/absent.efi")
        subprocess.run([*fetch, server.url("/bootx64.efi")], check=True)
        collecting.wait_for("127.0.0.1", stage="shim")
        subprocess.run([*fetch, server.url("/boot/vmlinuz")], check=True)
        collecting.wait_for("127.0.0.1", stage="kernel")
        assert requests.get(f"http://127.0.0.1:{port}/liveos.iso", timeout=20).ok
        collecting.wait_for("127.0.0.1", stage="ISO")
        until(lambda: collecting.node("127.0.0.1")["timeline"][-1]["text"] == "/liveos.iso by HTTP")


def test_what_the_agent_or_a_check_fetches_is_no_stage_of_a_boot(logs: Logs) -> None:
    logs.boot()
    fetched = (
        f'{logs.address} - - [30/Nov/2026:07:41:09 +0000] "GET /liveos.iso HTTP/1.1" 206 1 "-" "pxe-fetch/0.1.0"\n'
    )
    logs.append(logs.nginx, fetched)
    logs.http("/grub.cfg")  # the line after it
    logs.wait_for(stage="GRUB")
    assert "ISO" not in {one["stage"] for one in logs.collecting.node(logs.mac)["timeline"]}
