"""The network a node gets so that the layout's own URLs reach this machine."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pxe_pack.boot.network import HOST, plan_network
from pxe_pack.tools import InputError


def test_production_host_and_this_machine_are_both_in_the_nodes_subnet_when_they_are_near() -> None:
    net = plan_network(["http://10.0.0.1/liveos.iso", "http://10.0.0.1:8080/files/a"])
    assert IPv4Address("10.0.0.1") in net.subnet
    assert net.host == HOST
    assert HOST in net.subnet
    assert {str(endpoint) for endpoint in net.endpoints.values()} == {"10.0.0.1:80", "10.0.0.1:8080"}


@pytest.mark.parametrize(
    "host", ["192.168.7.2", "192.168.7.3", "192.168.7.4", "192.168.7.15", "10.0.2.2", "172.16.0.255"]
)
def test_nobody_else_has_the_production_hosts_address(host: str) -> None:
    net = plan_network([f"http://{host}/liveos.iso"])
    others = [net.host, net.dns, net.node, net.report.address]
    assert IPv4Address(host) not in others
    assert len(set(others)) == 4
    assert all(address in net.subnet for address in [*others, IPv4Address(host)])


def test_subnet_far_from_the_default_stays_small() -> None:
    assert str(plan_network(["http://192.168.7.9/a.iso"]).subnet) == "192.168.7.0/24"
    assert str(plan_network(["http://10.200.0.1/a.iso"]).subnet) == "10.200.0.0/24"


def test_layout_without_urls_still_has_a_network() -> None:
    assert plan_network([]).host == HOST


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("https://10.0.0.1/a.iso", "no certificate"),
        ("ftp://10.0.0.1/a.iso", "it can only serve http"),
        ("http://no-such-host.invalid/a.iso", "does not resolve to an IPv4 address"),
        ("http://localhost/a.iso", "a node reaches only itself"),
        ("http://127.0.0.1:8000/a.iso", "a node reaches only itself"),
        ("http://[2001:db8::1]/a.iso", "does not resolve to an IPv4 address"),
    ],
)
def test_url_this_machine_cannot_serve_is_refused_with_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        plan_network([url, url])
    (problem,) = refused.value.problems
    assert sentence in problem.message
    assert problem.hint


def test_hosts_too_far_apart_are_refused() -> None:
    with pytest.raises(InputError, match="too far apart"):
        plan_network(["http://10.0.0.1/a.iso", "http://192.168.0.1/files/b"])


def test_commas_in_paths_do_not_end_a_qemu_option(tmp_path: Path) -> None:
    net = plan_network(["http://10.0.0.1/a.iso"])
    value = net.netdev(tftp=tmp_path / "a,b", boot_file="bootx64.efi", server=tmp_path / "c,d" / "http")
    assert f"tftp={tmp_path}/a,,b," in value
    assert "c,,d/http" in value
