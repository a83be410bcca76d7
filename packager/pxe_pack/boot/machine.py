"""The virtual machine: QEMU with UEFI firmware, one network card and a serial console; it never outlives pxe-pack."""

from __future__ import annotations

import codecs
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.boot.boot_method import BootMethod
from pxe_pack.boot.events import Ended, Events, Serial
from pxe_pack.packages import install_command

QEMU = "qemu-system-x86_64"
KVM = ("kvm", "-cpu", "host")
_KVM_DEVICE = Path("/dev/kvm")
# On a busy machine, QEMU gets through one step of a repeated instruction from tick to tick. Linux clears pages with
# such an instruction: by a byte a step with ERMS, by 8 with REP_GOOD, which AMD's family 6 does not have. No processor
# has FSRM alone: memmove of Linux 6.1 never ends there (arch/x86/lib/clear_page_64.S, memmove_64.S, kernel/cpu/amd.c).
TCG = ("tcg,thread=multi", "-cpu", "max,family=6,-erms,-fsrm")
# Firmware with PXE support and its empty variable store: Debian and Ubuntu; Fedora, Azure Linux and RHEL; Arch.
FIRMWARE = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
)
# The same with Secure Boot, which keeps its variables in memory that only System Management Mode can write.
SECURE_CODE = (
    "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
    "/usr/share/OVMF/OVMF_CODE.secboot.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
    "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd",
)
SMM = ("-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
# iPXE as a UEFI program with its own network drivers: Debian and Ubuntu; Fedora; Arch.
IPXE_PROGRAMS = (
    "/usr/lib/ipxe/ipxe.efi",
    "/usr/share/ipxe/ipxe-x86_64.efi",
    "/usr/share/ipxe/x86_64/ipxe.efi",
)
# The program that UEFI starts from a disk without a boot entry of its own (UEFI Specification 3.5.1.1).
REMOVABLE_MEDIA_PATH = "EFI/BOOT/BOOTX64.EFI"
PROBE = 5.0  # seconds within which firmware under KVM must print something
GATHER = 0.05  # seconds between reads of the serial console, which QEMU writes character by character
STOPPING = 5.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True, kw_only=True, slots=True)
class Firmware:
    """UEFI firmware for a virtual machine: its code, and the variable store that each machine gets a copy of."""

    code: Path
    variables: Path
    secure: bool = False  # it has Secure Boot


def firmware() -> Firmware | None:
    """The first firmware found on this machine; None if there is none."""
    for code, variables in FIRMWARE:
        if Path(code).is_file() and Path(variables).is_file():
            return Firmware(code=Path(code), variables=Path(variables))
    return None


def secure_firmware(variables: Path) -> Firmware:
    """Firmware with Secure Boot for a copy of the store `variables`, which has the keys. Raises InputError.

    Code and store make one flash device: the size of both together is a power of two.
    """
    try:
        size = variables.stat().st_size
    except OSError as error:
        message = f"cannot read the firmware's variables {variables}: {error.strerror}"
        hint = (
            "make it with your certificate (docs/trust.md); /usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd has Debian's test "
            "key, not yours"
        )
        raise tools.InputError(Problem(reference="firmware-variables", message=message, hint=hint)) from None
    for code in map(Path, SECURE_CODE):
        if code.is_file() and (code.stat().st_size + size).bit_count() == 1:
            return Firmware(code=code, variables=variables, secure=True)
    message = f"this machine has no UEFI firmware (OVMF) with Secure Boot that fits the variables {variables}"
    raise tools.InputError(Problem(reference="tool-missing", message=message, hint=install_command("ovmf")))


def ipxe_program() -> Path | None:
    """The first iPXE found on this machine; None if there is none."""
    return next((path for path in map(Path, IPXE_PROGRAMS) if path.is_file()), None)


def missing(via: BootMethod = BootMethod.TFTP) -> list[Problem]:
    """One problem for each missing program or file that booting by `via` needs."""
    problems = tools.missing([QEMU, "setpriv"], reason="to boot the layout")
    if firmware() is None:
        problems.append(
            Problem(
                reference="tool-missing",
                message="UEFI firmware for virtual machines (OVMF) is needed to boot the layout, but is not installed",
                hint=install_command("ovmf"),
            )
        )
    if via is BootMethod.IPXE and ipxe_program() is None:
        problems.append(
            Problem(
                reference="tool-missing",
                message="iPXE for UEFI (ipxe.efi) is needed to boot the layout with it, but is not installed",
                hint=install_command("ipxe"),
            )
        )
    return problems


@contextmanager
def machine(
    work: Path,
    *,
    netdev: str,
    via: BootMethod,
    memory: int,
    accelerator: Sequence[str],
    smbios: Sequence[str],
    serial_log: BinaryIO,
    events: Events,
    secure: Firmware | None = None,
) -> Iterator[None]:
    """Run a machine that boots from the network for the duration of the context.

    `memory` is in MiB, `accelerator` comes from `choose_accelerator`, `smbios` from `credentials.arguments`, and
    `secure` is the firmware if it is not the usual one. `work` is a folder for the firmware's variables and iPXE's
    disk. Serial output goes unchanged to `serial_log` and as Serial events to `events`; Ended follows when the machine
    is off.
    """
    # each interrupt of System Management Mode stops all processors, and waits for those that are not being emulated
    processors = 1 if secure else min(4, max(2, os.cpu_count() or 1))
    arguments = [
        *("-m", str(memory), "-smp", str(processors)),
        *("-netdev", netdev),
        *_boot_device(work, via),
        *("-device", "virtio-rng-pci"),
        *smbios,
    ]
    with _start(work, accelerator, arguments, secure=secure) as process:
        watcher = threading.Thread(target=_watch, args=(process, serial_log, events), name="serial")
        watcher.start()
        try:
            yield
        finally:
            _stop(process)
            watcher.join()


def _boot_device(work: Path, via: BootMethod) -> list[str]:
    """QEMU's arguments for the network card, and for what the firmware boots from: that card, or a disk with iPXE.

    The card has no option ROM: firmware may prefer its own driver and PXE to a ROM's, as edk2 of 2025 does, and without
    one it starts seconds earlier.
    """
    card = ["-device", "virtio-net-pci,netdev=net,romfile="]
    if via is BootMethod.TFTP:
        return [card[0], f"{card[1]},bootindex=0"]
    found = ipxe_program()
    if found is None:
        raise tools.InputError(*missing(via))
    program = work / "disk" / REMOVABLE_MEDIA_PATH
    program.parent.mkdir(parents=True)
    shutil.copyfile(found, program)
    disk = str(work / "disk").replace(",", ",,")
    return [
        *card,
        *("-blockdev", f"driver=vvfat,node-name=disk,read-only=on,dir={disk}"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=0"),
    ]


def choose_accelerator(work: Path) -> Sequence[str]:
    """KVM if the firmware starts under it, else emulation.

    Opening /dev/kvm is not proof: when nested, or in some containers, KVM fails only once the firmware runs.
    """
    if not os.access(_KVM_DEVICE, os.R_OK | os.W_OK):
        return TCG
    with _start(work, KVM, ["-m", "512"]) as process:
        try:
            return KVM if _has_output(process, seconds=PROBE) else TCG
        finally:
            _stop(process)


def kvm_problem() -> str:
    """Why `choose_accelerator` did not choose KVM."""
    if _KVM_DEVICE.exists() and not os.access(_KVM_DEVICE, os.R_OK | os.W_OK):
        return f"this user may not open {_KVM_DEVICE}: only its group may, usually kvm"
    return "KVM does not work here"


def _start(
    work: Path, accelerator: Sequence[str], arguments: Sequence[str], *, secure: Firmware | None = None
) -> subprocess.Popen[bytes]:
    found = secure or firmware()
    if found is None:
        raise tools.InputError(*missing())
    variables = work / "variables.fd"
    shutil.copyfile(found.variables, variables)
    return tools.start(
        QEMU,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35,smm=on", *SMM) if found.secure else ("-machine", "q35"),
        *("-accel", *accelerator),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={found.code}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={str(variables).replace(',', ',,')}"),
        *("-serial", "stdio"),
        *arguments,
    )


def _has_output(process: subprocess.Popen[bytes], *, seconds: float) -> bool:
    """Whether the serial console shows anything within `seconds`."""
    output = process.stdout
    assert output is not None  # noqa: S101  we asked for a pipe
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([output], [], [], left)[0]:
            return bool(os.read(output.fileno(), 4096))
    return False


def _watch(process: subprocess.Popen[bytes], serial_log: BinaryIO, events: Events) -> None:
    output, errors = process.stdout, process.stderr
    assert output is not None  # noqa: S101  we asked for pipes
    assert errors is not None  # noqa: S101
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while piece := os.read(output.fileno(), 65536):
        serial_log.write(piece)
        serial_log.flush()
        events.put(Serial(text=decoder.decode(piece)))
        time.sleep(GATHER)
    complaint = errors.read().decode(errors="replace").strip()
    events.put(Ended(code=process.wait(), complaint=complaint))


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
