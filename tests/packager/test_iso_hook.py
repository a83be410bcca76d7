"""The hook that verifies the ISO, run for real: in Debian's initrd, over which the hook's archive is unpacked."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import ports
from fakes.certs import Authority
from fakes.daemons import tftpd
from fakes.exchange import Fault
from fakes.faults import Flip, Serve, Status, cut, reset, stall
from fakes.server import Script, Server
from fakes.tftp import LossyTftp, Trouble
from packing.iso_hook import SHELLS, Hook, Ran, unpacked_initrd, with_dracut_of

BODY = bytes(range(256)) * 4096 + b"the end"  # 1 MiB and a little
DIGEST = hashlib.sha256(BODY).hexdigest()
PATH = "/images/liveos.iso"
RIGHT = f"pxe-fetch.iso.sha256={DIGEST}"


@pytest.fixture(scope="session")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the initrd is unpacked."""
    return unpacked_initrd(tmp_path_factory.mktemp("hook"))


@dataclass(frozen=True)
class Node(Hook):
    """A node whose kernel command line has the digest of BODY, if not said otherwise."""

    def run(self, url: str, *, arguments: str = RIGHT) -> Ran:
        return super().run(url, arguments=arguments)


@pytest.fixture(scope="session")
def newer_initrd(initrd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the dracut of Debian 13, release 106, where netroot.sh belongs to no network module."""
    return with_dracut_of("trixie", initrd, tmp_path_factory.mktemp("newer"))


@pytest.fixture(params=[*SHELLS, "dash and dracut 106"])
def hook(request: pytest.FixtureRequest) -> Node:
    """The hook, in each shell that an initrd may have as /bin/sh, with dracut 059; and with the dracut of Debian 13."""
    if request.param in SHELLS:
        return Node(root=request.getfixturevalue("initrd"), shell=SHELLS[request.param])
    return Node(root=request.getfixturevalue("newer_initrd"), shell=SHELLS["dash"])


def served(*faults: Fault, then: Fault | None = None) -> Server:
    return Server({PATH: Script(body=BODY, faults=faults, then=then)})


def test_an_iso_with_the_right_digest_is_mounted(hook: Node) -> None:
    with served() as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    assert len(server.asked_for(PATH)) == 1


@pytest.mark.parametrize("fault", [Status(503), cut(0.5), reset(0.6)], ids=["503", "truncated", "reset"])
def test_it_goes_on_where_the_transfer_ended(hook: Node, fault: Fault) -> None:
    with served(fault) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    # less than a tenth comes twice: what was on its way when the connection broke
    assert len(BODY) <= server.sent(PATH) < 1.1 * len(BODY)


def test_a_stalled_transfer_is_given_up_and_resumed(initrd: Path) -> None:
    with served(stall(0.7)) as server:
        ran = Node(root=initrd, shell=SHELLS["dash"]).run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    assert server.sent(PATH) < 1.1 * len(BODY)


def test_a_server_without_ranges_is_asked_for_everything_again(hook: Node) -> None:
    with served(cut(0.5), then=Serve(ranges=False)) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said


def test_a_wrong_iso_is_fetched_again(hook: Node) -> None:
    with served(Flip()) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    assert "fetching it again" in ran.console
    assert ran.console.endswith("dracut: pxe-pack: the ISO has the sha256 that the kernel command line says\n")
    assert [asked.range for asked in server.asked_for(PATH)] == [None, None]


def test_an_iso_that_changed_in_the_middle_is_fetched_again(hook: Node) -> None:
    with served(Serve(body=b"x" * len(BODY), until=0.5)) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said


def test_an_iso_that_stays_wrong_is_never_mounted_and_one_line_says_so(hook: Node) -> None:
    with served(then=Flip()) as server:
        url = server.url(PATH, user="user:secret")
        ran = hook.run(url)
    assert ran.mounted is None
    assert ran.code != 0
    assert len(server.asked_for(PATH)) == 3
    (line,) = [line for line in ran.console.splitlines() if "FATAL" in line]
    assert f"pxe-pack: the ISO at {server.url(PATH)} has the sha256 " in line
    assert f"not {DIGEST} as the kernel command line says; it was fetched 3 times, and is not booted" in line
    assert "secret" not in ran.console + ran.said
    assert not list((hook.root / "tmp").rglob("*.iso"))
    assert not (hook.root / "rebooted").exists()


def test_rd_emergency_is_respected(hook: Node) -> None:
    with served(then=Flip()) as server:
        ran = hook.run(server.url(PATH), arguments=f"{RIGHT} rd.emergency=reboot")
    assert ran.mounted is None
    assert (hook.root / "rebooted").exists(), ran.said


def test_a_digest_that_is_none_is_never_right(hook: Node) -> None:
    with served() as server:
        ran = hook.run(server.url(PATH), arguments="pxe-fetch.iso.sha256=none")
    assert ran.mounted is None
    assert "not none as the kernel command line says" in ran.console


def test_a_dead_network_ends_after_as_many_attempts_as_in_dracut(hook: Node) -> None:
    ran = hook.run(f"http://127.0.0.1:{ports.free()}{PATH}")
    assert (ran.mounted, ran.code) == (None, 1)
    assert "failed to download live image after 4 attempts." in ran.console


def test_a_network_that_comes_back_is_waited_for(hook: Node) -> None:
    with served(Status(404), Status(503), reset(0.0)) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said


def test_without_the_argument_dracuts_own_script_runs(hook: Node) -> None:
    with served(then=Flip()) as server:
        ran = hook.run(server.url(PATH), arguments="")
    assert ran.mounted not in (None, BODY), ran.said
    assert len(server.asked_for(PATH)) == 1


def test_a_second_interface_does_not_fetch_again(hook: Node) -> None:
    with served() as server:
        assert hook.run(server.url(PATH)).mounted == BODY
        assert hook.again(server.url(PATH)).code == 0
    assert len(server.asked_for(PATH)) == 1


def test_https_needs_a_certificate_that_the_initrd_trusts(hook: Node, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("localhost", alternative="DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    (hook.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    with Server({PATH: Script(body=BODY)}, tls=context) as server:
        refused = hook.run(server.url(PATH))
        assert refused.mounted is None
        lax = hook.run(server.url(PATH), arguments=f"{RIGHT} rd.noverifyssl")
        assert lax.mounted == BODY, lax.said
        bundle = hook.root / "etc/ssl/certs/ca-certificates.crt"
        before = bundle.read_bytes()
        bundle.write_bytes(before + authority.certificate.read_bytes())
        trusted = hook.run(server.url(PATH))
        bundle.write_bytes(before)
        assert trusted.mounted == BODY, trusted.said


def test_tftp_begins_again_and_is_verified(hook: Node, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/liveos.iso").write_bytes(BODY)
    with tftpd(tmp_path) as daemon:
        assert hook.run(daemon.url(PATH)).mounted == BODY
    with LossyTftp(BODY, Trouble(error_at=100, times=1)) as broken:
        ran = hook.run(f"{broken.url}/liveos.iso")
    assert ran.mounted == BODY, ran.said
    with LossyTftp(BODY[:-1], Trouble()) as short:
        assert hook.run(f"{short.url}/liveos.iso").mounted is None
