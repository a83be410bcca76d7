"""The hook that verifies the ISO, run for real: in Debian's initrd, over which the hook's archive is unpacked.

The shells, dracut's functions, curl and sha256sum are those of the initrd. Only what needs a kernel of its own is
replaced: losetup, and what mounts the ISO, which notes what it is given.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
from collections.abc import Sequence
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
from liveos import shapes
from packing.site import Site, files_of, small_agent
from pxe_pack import cli

BODY = bytes(range(256)) * 4096 + b"the end"  # 1 MiB and a little
DIGEST = hashlib.sha256(BODY).hexdigest()
PATH = "/images/liveos.iso"
# busybox's shell prefers its own commands to those in PATH
BUSYBOX = 'losetup() { /sbin/losetup "$@"; }; reboot() { /sbin/reboot; }; . /sbin/livenetroot'
SHELLS = {
    "dash": ["/usr/bin/dash", "/sbin/livenetroot"],
    "bash": ["/usr/bin/bash", "/sbin/livenetroot"],
    "busybox": ["/busybox", "sh", "-c", BUSYBOX, "livenetroot"],
}
# in namespaces of its own, for what it does to the machine when it gives up
APART = ["unshare", "--map-root-user", "--pid", "--fork", "chroot"]
REPLACED = {
    "usr/sbin/losetup": '[ "$1" = -f ] && echo /dev/loop7 || echo "$2" > /looped\n',
    "usr/sbin/dmsquash-live-root": 'echo "$1" > /mounted\n',
    "usr/sbin/reboot": "echo > /rebooted\n",
}


@pytest.fixture(scope="session")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the initrd of a packed layout is unpacked."""
    folder = tmp_path_factory.mktemp("hook")
    site = Site(folder=folder, image=shapes.cached(shapes.SHAPES["ic16"]), agent=small_agent(folder / "agent"))
    assert cli.main(site.command("--quiet")) == 0
    (packed,) = site.output.glob("boot/initramfs-*.img")
    whole, before = packed.read_bytes(), len(files_of(site.image)[f"boot/{packed.name}"])
    root = folder / "root"
    root.mkdir()
    for part in (whole[:before], whole[before:].lstrip(b"\0")):
        archive = subprocess.run(["zstd", "-dcq"], input=part, capture_output=True, check=False).stdout
        command = ["cpio", "-idu", "--quiet", "--no-preserve-owner", "-D", str(root)]
        subprocess.run(command, input=archive, capture_output=True, check=False)  # only root can make device nodes
    shutil.copyfile("/bin/busybox", root / "busybox")
    (root / "busybox").chmod(0o755)
    for name, text in REPLACED.items():
        (root / name).unlink(missing_ok=True)
        (root / name).write_text(f"#!/bin/sh\n{text}")
        (root / name).chmod(0o755)
    return root


@dataclass(frozen=True)
class Ran:
    """What came of the hook."""

    root: Path
    code: int
    said: str

    @property
    def mounted(self) -> bytes | None:
        """The bytes of the file that was mounted; None if it has not come to that."""
        if not (self.root / "mounted").exists():
            return None
        assert (self.root / "mounted").read_text() == "/dev/loop7\n"
        return (self.root / (self.root / "looped").read_text().strip().lstrip("/")).read_bytes()

    @property
    def console(self) -> str:
        """The last that the kernel's log, and so the console, was told."""
        return (self.root / "dev/kmsg").read_text()


@dataclass(frozen=True)
class Hook:
    """The hook in one shell."""

    root: Path
    shell: Sequence[str]

    def run(self, url: str, *, arguments: str = f"pxe-fetch.iso.sha256={DIGEST}") -> Ran:
        """Have it fetch `url`, as dracut's netroot.sh does."""
        for name in ("mounted", "looped", "rebooted", "run/initramfs", "tmp", "dev"):
            path = self.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in ("tmp", "dev", "proc"):
            (self.root / name).mkdir(exist_ok=True)
        for name in ("dev/null", "dev/kmsg"):  # files do, and are there without a device node
            (self.root / name).touch()
        (self.root / "proc/cmdline").write_text(f"root=live:{url} rd.shell=0 {arguments}\n")
        return self.again(url)

    def again(self, url: str) -> Ran:
        """Have it run once more on the same node, as for another interface."""
        ran = subprocess.run(
            [*APART, str(self.root), *self.shell, "eth0", f"livenet:{url}"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SLEEP": "0", "RETRIES": "4", "SILENCE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ran(root=self.root, code=ran.returncode, said=ran.stdout + ran.stderr)


@pytest.fixture(params=SHELLS)
def hook(initrd: Path, request: pytest.FixtureRequest) -> Hook:
    """The hook, in each shell that an initrd may have as /bin/sh."""
    return Hook(root=initrd, shell=SHELLS[request.param])


def served(*faults: Fault, then: Fault | None = None) -> Server:
    return Server({PATH: Script(body=BODY, faults=faults, then=then)})


def test_an_iso_with_the_right_digest_is_mounted(hook: Hook) -> None:
    with served() as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    assert len(server.asked_for(PATH)) == 1


@pytest.mark.parametrize("fault", [Status(503), cut(0.5), reset(0.6)], ids=["503", "truncated", "reset"])
def test_it_goes_on_where_the_transfer_ended(hook: Hook, fault: Fault) -> None:
    with served(fault) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    # less than a tenth comes twice: what was on its way when the connection broke
    assert len(BODY) <= server.sent(PATH) < 1.1 * len(BODY)


def test_a_stalled_transfer_is_given_up_and_resumed(initrd: Path) -> None:
    with served(stall(0.7)) as server:
        ran = Hook(root=initrd, shell=SHELLS["dash"]).run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    assert server.sent(PATH) < 1.1 * len(BODY)


def test_a_server_without_ranges_is_asked_for_everything_again(hook: Hook) -> None:
    with served(cut(0.5), then=Serve(ranges=False)) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said


def test_a_wrong_iso_is_fetched_again(hook: Hook) -> None:
    with served(Flip()) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said
    assert "fetching it again" in ran.said
    assert [asked.range for asked in server.asked_for(PATH)] == [None, None]


def test_an_iso_that_changed_in_the_middle_is_fetched_again(hook: Hook) -> None:
    with served(Serve(body=b"x" * len(BODY), until=0.5)) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said


def test_an_iso_that_stays_wrong_is_never_mounted_and_one_line_says_so(hook: Hook) -> None:
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


def test_rd_emergency_is_respected(hook: Hook) -> None:
    with served(then=Flip()) as server:
        ran = hook.run(server.url(PATH), arguments=f"pxe-fetch.iso.sha256={DIGEST} rd.emergency=reboot")
    assert ran.mounted is None
    assert (hook.root / "rebooted").exists(), ran.said


def test_a_digest_that_is_none_is_never_right(hook: Hook) -> None:
    with served() as server:
        ran = hook.run(server.url(PATH), arguments="pxe-fetch.iso.sha256=none")
    assert ran.mounted is None
    assert "not none as the kernel command line says" in ran.console


def test_a_dead_network_ends_after_as_many_attempts_as_in_dracut(hook: Hook) -> None:
    ran = hook.run(f"http://127.0.0.1:{ports.free()}{PATH}")
    assert (ran.mounted, ran.code) == (None, 1)
    assert "failed to download live image after 4 attempts." in ran.console


def test_a_network_that_comes_back_is_waited_for(hook: Hook) -> None:
    with served(Status(404), Status(503), reset(0.0)) as server:
        ran = hook.run(server.url(PATH))
    assert ran.mounted == BODY, ran.said


def test_without_the_argument_dracuts_own_script_runs(hook: Hook) -> None:
    with served(then=Flip()) as server:
        ran = hook.run(server.url(PATH), arguments="")
    assert ran.mounted not in (None, BODY), ran.said
    assert len(server.asked_for(PATH)) == 1


def test_a_second_interface_does_not_fetch_again(hook: Hook) -> None:
    with served() as server:
        assert hook.run(server.url(PATH)).mounted == BODY
        assert hook.again(server.url(PATH)).code == 0
    assert len(server.asked_for(PATH)) == 1


def test_https_needs_a_certificate_that_the_initrd_trusts(hook: Hook, tmp_path: Path) -> None:
    issued = Authority(tmp_path / "ca").issue("localhost", alternative="DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    (hook.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    with Server({PATH: Script(body=BODY)}, tls=context) as server:
        refused = hook.run(server.url(PATH))
        assert refused.mounted is None
        lax = hook.run(server.url(PATH), arguments=f"pxe-fetch.iso.sha256={DIGEST} rd.noverifyssl")
    assert lax.mounted == BODY, lax.said


def test_tftp_begins_again_and_is_verified(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/liveos.iso").write_bytes(BODY)
    with tftpd(tmp_path) as daemon:
        assert hook.run(daemon.url(PATH)).mounted == BODY
    with LossyTftp(BODY, Trouble(error_at=100, times=1)) as broken:
        ran = hook.run(f"{broken.url}/liveos.iso")
    assert ran.mounted == BODY, ran.said
    with LossyTftp(BODY[:-1], Trouble()) as short:
        assert hook.run(f"{short.url}/liveos.iso").mounted is None
