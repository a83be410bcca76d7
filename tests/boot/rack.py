"""A rack: `pxe-pack serve` at one end of a wire, and at the other end machines that boot from it.

Both ends are network namespaces, so that dnsmasq and nginx have their ports and addresses, and nobody else hears of
them. The machines are on a bridge, beside another DHCP server where that is wanted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boot.nodes import PXE_PACK
from fakes.process import Process, program, running
from fakes.wire import NODE, SERVER, Wire, environment, wire
from pxe_pack.boot.machine import TCG

ADDRESS = "10.0.0.1"  # of `serve`
PATIENCE = 900  # seconds under emulation on a busy machine; a tenth is usual
WITHOUT_PXE = [
    word for version in (4, 6) for word in ("-fw_cfg", f"name=opt/org.tianocore/IPv{version}PXESupport,string=n")
]
OTHER_DHCP_LOG = "dhcp.log"
_BRIDGE = "bridge"
_FIRMWARE = Path("/usr/share/OVMF")
_IPXE = Path("/usr/lib/ipxe/ipxe.efi")
# iPXE as from a USB stick: the program that UEFI starts from a disk (UEFI Specification 3.5.1.1).
_REMOVABLE_MEDIA_PATH = "EFI/BOOT/BOOTX64.EFI"
_QEMU = f"""\
-nodefaults -no-user-config -display none -no-reboot -machine q35 -accel {" ".join(TCG)} -smp 2
-drive if=pflash,format=raw,unit=0,readonly=on,file={_FIRMWARE}/OVMF_CODE_4M.fd -device virtio-rng-pci
-netdev tap,id=net,ifname=tap0,script=no,downscript=no
""".split()
_LINE = re.compile(
    r'\S+ - - \[[^]]+\] "GET (?P<path>\S+) HTTP/1\.[01]" (?P<status>\d+) \d+ "[^"]*" "(?P<agent>[^"]*)" ".*"'
)


def can_run() -> bool:
    """Whether this machine lets its users have network cards of their own (tun)."""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A node that has been switched on."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def console(self) -> str:
        """What it has written to its serial console."""
        path = self.folder / "serial.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def unplug(self) -> None:
        """Pull the plug of its network card (QEMU's set_link)."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.folder / "monitor"))
            said = monitor.makefile("rw")
            for command, arguments in (("qmp_capabilities", {}), ("set_link", {"name": "net", "up": False})):
                said.write(f"{json.dumps({'execute': command, 'arguments': arguments})}\n")
                said.flush()
                while "return" not in (answer := json.loads(said.readline())):
                    assert "error" not in answer, answer

    def wait_until(self, is_so: Callable[[], object], *, why: Callable[[], str]) -> None:
        """Until `is_so()`; AssertionError, with what `why` says, if it takes too long or the machine ends."""
        end = time.monotonic() + PATIENCE
        while not is_so():
            assert self.process.poll() is None, f"the machine ended: {why()}{self.console[-3000:]}"
            assert time.monotonic() < end, f"{why()}{self.console[-3000:]}"
            time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class Rack:
    """The servers, and the place for machines."""

    wire: Wire
    folder: Path

    def log(self, name: str) -> str:
        """One of the servers' logs."""
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def asked(self) -> dict[str, tuple[str, str]]:
        """What nginx was asked for: path → status, and the first word of the client's name."""
        found = [match for line in self.log("nginx-access.log").splitlines() if (match := _LINE.fullmatch(line))]
        return {match["path"].lstrip("/"): (match["status"], re.split("[/ ]", match["agent"])[0]) for match in found}

    def nodes(self) -> dict[str, dict[str, Any]]:
        """What `pxe-pack nodes --json` says, by MAC address."""
        printed = self.wire.run(self.wire.at_server(PXE_PACK, "nodes", "--json"), check=False)
        (result,) = [one for line in printed.splitlines() if (one := json.loads(line))["event"] == "result"]
        return {one["mac"]: one for one in result["nodes"]}

    def said(self) -> str:
        """All that helps to see what went wrong."""
        return f"{self.asked()}{self.log('dnsmasq.log')[-3000:]}"

    @contextlib.contextmanager
    def machine(
        self,
        mac: str,
        *options: str,
        by_ipxe: bool = False,
        memory: int = 2560,
    ) -> Iterator[Machine]:
        """Switch on a machine with this MAC address that boots from its network card, or from a disk with iPXE.

        `memory` is in MiB.
        """
        folder = self.folder / mac.replace(":", "")
        folder.mkdir()
        shutil.copyfile(_FIRMWARE / "OVMF_VARS_4M.fd", folder / "variables.fd")
        (folder / "disk" / _REMOVABLE_MEDIA_PATH).parent.mkdir(parents=True)
        first = "" if by_ipxe else ",bootindex=0"
        words = [
            *_QEMU, *options, "-m", str(memory), "-serial", f"file:{folder}/serial.log",
            *("-qmp", f"unix:{folder}/monitor,server=on,wait=off"),
            *("-drive", f"if=pflash,format=raw,unit=1,file={folder}/variables.fd"),
            *("-device", f"virtio-net-pci,netdev=net,mac={mac},romfile={first}"),
        ]  # fmt: skip
        if by_ipxe:
            shutil.copyfile(_IPXE, folder / "disk" / _REMOVABLE_MEDIA_PATH)
            words += ["-blockdev", f"driver=vvfat,node-name=disk,read-only=on,dir={folder}/disk"]
            words += ["-device", "virtio-blk-pci,drive=disk,bootindex=0"]
        command = self.wire.at_node("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *words)
        with (folder / "qemu.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                yield Machine(process=process, folder=folder)
            finally:
                process.kill()


@contextlib.contextmanager
def rack(layout: Path, folder: Path, *options: str | Path, with_dhcp_server: bool = False) -> Iterator[Rack]:
    """A rack that boots from `layout`, by `pxe-pack serve` with these options; logs and machines are in `folder`."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(wire(f"{ADDRESS}/24"))
        script = f"""\
            ip address flush dev {NODE}
            ip link add name {_BRIDGE} type bridge
            ip link set {NODE} master {_BRIDGE}
            ip tuntap add tap0 mode tap
            ip link set tap0 master {_BRIDGE}
            ip link set tap0 up
            ip address add 10.0.0.50/24 dev {_BRIDGE}
            ip link set {_BRIDGE} up
        """
        made.run(made.at_node("sh", "-ec", script))
        if with_dhcp_server:
            stack.enter_context(running(_dhcp_server(made, folder / OTHER_DHCP_LOG)))
        command = made.at_server(PXE_PACK, "serve", layout, "--interface", SERVER, "--log-dir", folder, *options)
        output = folder / "served"
        serve = Process(
            command=command,
            is_ready=lambda: "Ctrl-C" in output.read_text(),
            output=output,
            environment={"TMPDIR": str(folder), "PATH": environment()["PATH"]},
            patience=60,
        )
        stack.enter_context(running(serve))
        yield Rack(wire=made, folder=folder)


def _dhcp_server(made: Wire, log: Path) -> Process:
    """Another DHCP server in the same network, which knows nothing of booting."""
    options = [
        *("--conf-file=/dev/null", "--no-daemon", "--port=0", f"--interface={_BRIDGE}", "--bind-dynamic", "--user="),
        *("--dhcp-range=10.0.0.200,10.0.0.210", "--no-ping", f"--dhcp-leasefile={log}.leases", f"--pid-file={log}.pid"),
        # GRUB before 2.12 takes its server from here alone (docs/serve.md).
        f"--dhcp-boot=,,{ADDRESS}",
    ]
    is_ready = lambda: ": started, version" in log.read_text()  # noqa: E731
    return Process(command=made.at_node(program("dnsmasq"), *options), is_ready=is_ready, output=log)
