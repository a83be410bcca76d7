"""`pxe-pack boot`: boot an exported layout over UEFI PXE in a virtual machine and report what the node said.

The layout is served unchanged: boot files over TFTP, everything else over HTTP under the URLs it was packed with. Only
grub.cfg (or boot.ipxe) is altered: it gets a serial console and the URL to report to.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pxe_fetch.contract import facts
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.boot import boot_method, credentials, grubcfg, machine, network, signed
from pxe_pack.boot.boot_method import BootMethod
from pxe_pack.boot.events import Events
from pxe_pack.boot.machine import Firmware
from pxe_pack.boot.network import Network
from pxe_pack.boot.outcome import Outcome
from pxe_pack.boot.served_layout import ServedLayout, read_served_layout, with_files
from pxe_pack.boot.server import serving
from pxe_pack.boot.trial import Trial
from pxe_pack.cleanup import signals_raise, temporary_folder
from pxe_pack.console import Console
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.layout import TEST_BOOT_LOADER
from pxe_pack.tools import InputError

MiB = 1 << 20
MIN_MEMORY = 2048  # MiB; a LiveOS with systemd and its overlay
# The artifacts end up in /run, a tmpfs of a fifth of the memory (node_memory/tmpfs.py).
MEMORY_FACTOR = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to boot, and how."""

    layout: Path
    serial_log: Path
    timeout: float  # seconds to wait for a verdict
    via: BootMethod = BootMethod.TFTP
    memory: int | None = None  # MiB; None: derived from the layout's size
    append: str = ""  # extra kernel arguments, as on a kernel command line
    keep: bool = False  # keep the node running after its verdict, until it powers off
    credentials: Mapping[str, Path] = field(default_factory=dict)  # name -> file, for the node's systemd
    secure_boot: Path | None = None  # a store of firmware variables with keys: boot with Secure Boot
    serve: Sequence[tuple[Path, str]] = ()  # further files, each with its URL; empty: the pinned configuration's


def boot(options: Options, *, console: Console) -> Outcome:
    """Boot the layout, wait for the node's verdict and return the outcome.

    Raises InputError if the layout, the options or this machine rule it out. The virtual machine and the servers are
    always stopped on return, also after an exception.
    """
    layout = with_files(read_served_layout(options.layout), options.serve)
    if problem := boot_method.unsupported_reason(layout, options.via) or signed.unsupported_reason(
        layout, via=options.via, append=options.append, secure=options.secure_boot is not None
    ):
        raise InputError(problem)
    net = network.plan_network([*layout.http, *([boot_method.base(layout)] if options.via is BootMethod.IPXE else [])])
    if problems := machine.missing(options.via):
        raise InputError(*problems)
    secure = machine.secure_firmware(options.secure_boot) if options.secure_boot else None
    added = _kernel_arguments(options, net)
    for_grub, for_ipxe = grubcfg.words(added), boot_method.words(added) if options.via is BootMethod.IPXE else ""
    for_ipxe = f"{layout.command_line} {for_ipxe}" if layout.program else for_ipxe  # given ones replace its own
    for_stub = signed.smbios(layout, added, options.via)
    if layout.pinned and layout.pinned not in layout.http:
        console.say(f"the configuration at {redact(layout.pinned)} is not served here: --serve FILE does that")
    if layout.findings:
        console.problems(layout.findings)
    with _serial_log(options.serial_log) as log, temporary_folder(prefix="pxe-pack-boot-") as work:
        smbios = [*credentials.arguments(options.credentials, work=work), *for_stub]
        (work / "tftp").mkdir()
        _fill_tftp_root(layout, work / "tftp", for_grub=for_grub, for_ipxe=for_ipxe)
        with console.step("choosing the accelerator") as step:
            accelerator = machine.choose_accelerator(work)
            step.note("KVM" if accelerator is machine.KVM else f"emulation (TCG): {machine.kvm_problem()}")
        return _run(
            options,
            layout,
            net=net,
            work=work,
            accelerator=accelerator,
            smbios=smbios,
            secure=secure,
            log=log,
            console=console,
        )


def _run(
    options: Options,
    layout: ServedLayout,
    *,
    net: Network,
    work: Path,
    accelerator: Sequence[str],
    smbios: Sequence[str],
    secure: Firmware | None,
    log: BinaryIO,
    console: Console,
) -> Outcome:
    events = Events()
    socket = work / "http"
    files = {url: layout.root / path for url, path in layout.http.items()}
    boot_file = TEST_BOOT_LOADER
    if options.via is BootMethod.IPXE:
        files |= boot_method.boot_files(layout, work / "tftp")
        boot_file = f"{boot_method.base(layout)}/{IPXE_SCRIPT}"
    netdev = net.netdev(tftp=work / "tftp", boot_file=boot_file, server=socket)
    memory = options.memory or _enough_memory(layout)
    with (
        serving(socket, files=files, network=net, events=events),
        machine.machine(
            work,
            netdev=netdev,
            via=options.via,
            memory=memory,
            accelerator=accelerator,
            smbios=smbios,
            secure=secure,
            serial_log=log,
            events=events,
        ),
    ):
        trial = Trial(layout, console=console, reports=signed.takes_arguments(layout, options.via))
        try:
            with signals_raise(signal.SIGINT):
                stop = trial.follow(events, timeout=options.timeout, keep=options.keep)
        except KeyboardInterrupt:
            if not (options.keep and trial.has_verdict):
                raise
            stop = None
        finally:
            trial.close()
    return Outcome(
        node=trial.node,
        console_verdict=trial.watcher.verdict,
        stage=trial.watcher.stage,
        stages=tuple(trial.stages),
        served=tuple(trial.served.values()),
        failure=trial.explain(stop) if stop else None,
        serial_log=options.serial_log,
        accelerator="KVM" if accelerator is machine.KVM else "TCG",
        seconds=trial.seconds,
    )


def _kernel_arguments(options: Options, net: Network) -> list[str]:
    """The arguments added for a test boot: serial console, report URL, and the user's own."""
    own = ["console=ttyS0", "systemd.show_status=1", f"pxe-fetch.report={net.report_url}"]
    return own + [word.replace('"', "") for word in facts.split(options.append)]


def _fill_tftp_root(layout: ServedLayout, folder: Path, *, for_grub: str, for_ipxe: str) -> None:
    """Fill the TFTP root `folder`: links to the layout's boot files, and copies of its scripts with more arguments."""
    for path in layout.tftp:
        file, link = (layout.root / path).absolute(), folder / path
        if not file.is_file():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "grub.cfg":
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
            served = grubcfg.for_test_boot(text, added=for_grub)
            link.write_text(served, encoding="utf-8", errors="surrogateescape")
        elif path == IPXE_SCRIPT:
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
            served = boot_method.script_for_test_boot(text, added=for_ipxe)
            link.write_text(served, encoding="utf-8", errors="surrogateescape")
        else:
            link.symlink_to(file)


def _enough_memory(layout: ServedLayout) -> int:
    """Memory for the machine in MiB: the ISO and the artifacts must fit in its RAM, and the artifacts in /run."""
    fetched = sum(layout.size(path) for path in layout.http.values() if path not in layout.additional)
    return MIN_MEMORY + MEMORY_FACTOR * fetched // MiB


@contextmanager
def _serial_log(path: Path) -> Iterator[BinaryIO]:
    try:
        # O_NONBLOCK: opening a named pipe would wait for somebody who reads it (fifo(7))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            Problem(
                reference="serial-log-unwritable",
                message=f"cannot write the serial log {path}: {error.strerror}",
                hint="choose another file with --serial-log FILE",
            )
        ) from None
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as log:
        yield log
