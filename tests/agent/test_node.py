"""Facts of a node in urls, destinations, headers and `when`."""

from __future__ import annotations

import os
import random
import re

import pytest

from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.node import Node

BODY = random.Random(1).randbytes(2_000)


def give_facts(node: FakeNode) -> None:
    node.write("proc/sys/kernel/hostname", "n17\n")
    node.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    node.write("sys/class/dmi/id/product_serial", "VMware-56 4d/9a\n")
    node.write("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8052-B4C04F4A4D32\n")
    for index, (name, mac) in enumerate({"lo": "00:00:00:00:00:00", "ens3": "52:54:00:AA:BB:03"}.items()):
        node.write(f"sys/class/net/{name}/address", mac + "\n")
        node.write(f"sys/class/net/{name}/ifindex", f"{index + 1}\n")
    node.write("sys/class/net/ens3/device/vendor", "0x1af4\n")
    node.write("sys/class/net/ens4/address", "52:54:00:aa:bb:04\n")
    node.write("sys/class/net/ens4/ifindex", "3\n")
    node.write("sys/class/net/ens4/device/vendor", "0x1af4\n")


def facts_of(node: FakeNode, arguments: str = "") -> Node:
    node.boot_with(arguments)
    return Node(root=node.root)


def test_mac_is_of_the_interface_with_the_default_route(node: FakeNode) -> None:
    give_facts(node)
    assert facts_of(node).fact("mac") == "52:54:00:aa:bb:03"  # without a route: the first that is hardware
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    routes = ["ens3\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"]
    routes += ["ens3\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0"]
    routes += ["ens4\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0"]
    node.write("proc/net/route", head + "\n".join(routes) + "\n")
    assert facts_of(node).fact("mac") == "52:54:00:aa:bb:04"


def test_mac_is_found_by_the_ipv6_default_route_too(node: FakeNode) -> None:
    give_facts(node)
    zero = "0" * 32
    node.write("proc/net/ipv6_route", f"{zero} 00 {zero} 00 fe80{'0' * 27}2 00000400 00000001 00000000 00000003 ens4\n")
    assert facts_of(node).fact("mac") == "52:54:00:aa:bb:04"


def test_facts_are_filled_into_url_destination_and_header(node: FakeNode) -> None:
    give_facts(node)
    node.boot_with("role=gpu")
    entry = node.entry(
        "m",
        "${arch}/${cmdline.role}/${serial}/${mac}/m",
        BODY,
        dest=str(node.out / "${hostname}-${machine_id}"),
        headers={"X-Node": "${uuid}"},
    )
    path = f"/{os.uname().machine}/gpu/VMware-56%204d%2F9a/52:54:00:aa:bb:03/m"
    with Server({path: Script(body=BODY)}) as server:
        ran = node.run_config(entry, defaults={"base_url": server.url("/")})
        assert [asked.path for asked in server.asked] == [path]
        assert server.asked[0].fields["x-node"] == "4c4c4544-0042-3510-8052-b4c04f4a4d32"
    assert ran.code == 0
    assert node.files() == ["n17-0123456789abcdef0123456789abcdef"]
    facts = {"hostname": "n17", "arch": os.uname().machine, "mac": "52:54:00:aa:bb:03"}
    facts |= {"uuid": "4c4c4544-0042-3510-8052-b4c04f4a4d32", "machine_id": "0123456789abcdef0123456789abcdef"}
    assert ran.state["node"] == facts


@pytest.mark.parametrize(
    ("fact", "origin"),
    [
        ("serial", "/sys/class/dmi/id/product_serial"),
        ("uuid", "/sys/class/dmi/id/product_uuid"),
        ("machine_id", "/etc/machine-id"),
        ("mac", "default route"),
        ("cmdline.role", "role=VALUE"),
    ],
)
def test_empty_fact_is_65_and_says_where_it_would_come_from(node: FakeNode, fact: str, origin: str) -> None:
    ran = node.run_config(node.entry("m", f"http://127.0.0.1/${{{fact}}}", BODY))
    assert ran.code == 65
    assert ran.state["cause"] == "fact-empty"
    assert f"${{{fact}}}" in ran.err
    assert origin in ran.err


def test_optional_artifact_whose_fact_is_empty_is_left_out_and_says_where_it_would_come_from(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY),
            node.entry("o", server.url("/${cmdline.role}"), BODY, required=False),
            node.entry("p", server.url("/m"), BODY, required=False, header_credential="pxe-fetch.token", insecure=True),
        )
    assert ran.code == 2
    assert node.files() == ["m"]
    assert (ran.artifact("o")["cause"], ran.artifact("p")["cause"]) == ("fact-empty", "credential-missing")
    assert re.search(r"o: failed: \$\{cmdline.role\} is used, .*\(hint: add role=VALUE .*the run continues", ran.err)


@pytest.mark.parametrize("value", ["..", "a/../../b", "."])
def test_fact_that_is_no_file_name_is_refused_in_a_destination(node: FakeNode, value: str) -> None:
    node.boot_with(f"role={value}")
    ran = node.run_config(node.entry("m", "http://127.0.0.1/m", BODY, dest=str(node.out / "${cmdline.role}/m")))
    assert ran.code == 77
    assert not node.out.exists()


def test_two_artifacts_for_one_place_on_this_node_are_65(node: FakeNode) -> None:
    node.boot_with("role=a x=a")
    ran = node.run_config(
        node.entry("m", "http://127.0.0.1/m", BODY, dest=str(node.out / "${cmdline.role}")),
        node.entry("n", "http://127.0.0.1/n", BODY, dest=str(node.out / "a")),
        node.entry("o", "http://127.0.0.1/o", BODY, dest=str(node.out / "${cmdline.x}/inside")),
    )
    assert ran.code == 65
    assert "n and m have the same destination" in ran.err
    assert "o goes to" in ran.err


def test_when_wants_every_fact_and_one_glob_of_each(node: FakeNode) -> None:
    give_facts(node)
    node.boot_with("role=gpu site=lab1")
    wanted: dict[str, object] = {
        "yes": {"mac": ["aa:*", "52:54:00:AA:*"], "hostname": "n?7", "cmdline": {"role": "gpu", "site": "lab*"}},
        "no-fact": {"hostname": "n18", "cmdline": {"role": "gpu"}},
        "no-argument": {"cmdline": {"role": "gpu", "rack": "*"}},
        "no-value": {"cmdline": {"role": "cpu"}},
    }
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(*(node.entry(name, server.url("/m"), BODY, when=when) for name, when in wanted.items()))
    assert ran.code == 0
    assert node.files() == ["yes"]


def test_a_fact_that_could_steer_a_terminal_is_refused_and_not_shown(node: FakeNode) -> None:
    node.write("sys/class/dmi/id/product_serial", "A\x1b[31mB\x07\n")
    node.write("proc/sys/kernel/hostname", "n\x1b]0;x\x0717\n")
    node.boot_with("role=a\x1b[2J pxe-fetch.debug")
    for fact in ("serial", "cmdline.role"):
        ran = node.run_config(node.entry("m", "http://127.0.0.1/m", BODY, dest=str(node.out / f"${{{fact}}}")))
        assert (ran.code, ran.state["cause"]) == (65, "fact-unprintable")
        assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())
        assert node.run("status").out.replace("\n", " ").isprintable()
        assert not node.out.exists()


@pytest.mark.parametrize("argument", [b"\xff\xfe", b"a\xc3"])
def test_a_fact_that_is_not_utf_8_is_refused(node: FakeNode, argument: bytes) -> None:
    (node.root / "proc/cmdline").write_bytes(b"role=" + argument)
    ran = node.run_config(node.entry("m", "http://127.0.0.1/m", BODY, dest=str(node.out / "${cmdline.role}")))
    assert (ran.code, ran.state["cause"]) == (65, "fact-unprintable")


@pytest.mark.parametrize("argument", ["=\x1b[2J", ".config=file:///a%00b", ".deadline=\x1b[2J", ".\x1b[2J=1"])
def test_a_kernel_argument_that_cannot_be_used_is_a_printable_sentence(node: FakeNode, argument: str) -> None:
    node.boot_with(f"pxe-fetch{argument}")
    ran = node.run("run")
    assert ran.code == 65
    assert "a bug" not in ran.out + ran.err
    for text in (ran.out, ran.err, node.run("status").out):
        assert all(line.isprintable() for line in text.splitlines())
