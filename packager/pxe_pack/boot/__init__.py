"""`pxe-pack boot`: an exported layout booted by UEFI PXE in a virtual machine, and what the node said.

The layout is served as it is: by TFTP what a TFTP server would have, by HTTP under the very URLs it was made with. Only
grub.cfg gets a serial console and the place to report to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pxe_fetch.contract import cmdline
from pxe_fetch.contract.problem import Problem
from pxe_pack.boot import credentials, grubcfg, machine, network, ways
from pxe_pack.boot.account import Outcome
from pxe_pack.boot.events import Events
from pxe_pack.boot.layout import BOOT_LOADER, Layout, read
from pxe_pack.boot.network import Network
from pxe_pack.boot.server import serving
from pxe_pack.boot.trial import Trial
from pxe_pack.boot.ways import Via
from pxe_pack.cleanup import sigint_raises, temporary_folder
from pxe_pack.console import Console
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.tools import InputError

MiB = 1 << 20
LEAST_MEMORY = 2048  # MiB; a LiveOS with systemd and its overlay
ROOM = 4  # times the ISO and artifacts, which both end up in RAM, in a tmpfs that may hold half of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is to be booted, and how."""

    layout: Path
    serial_log: Path
    timeout: float  # seconds until a node without a verdict is given up
    via: Via = Via.TFTP
    memory: int | None = None  # MiB; None: by the layout's size
    append: str = ""  # kernel arguments, as on a kernel command line
    keep: bool = False  # let the node run on after its verdict, until it powers off
    credentials: Mapping[str, Path] = field(default_factory=dict)  # by name: files for the node's systemd


def boot(options: Options, *, console: Console) -> Outcome:
    """Boot the layout and wait for what the node says.

    Raises InputError when the layout, the options or this machine do not allow it. The machine and the servers are
    gone when this returns, however it does.
    """
    layout = read(options.layout)
    if problem := ways.objection(layout, options.via):
        raise InputError(problem)
    net = network.around([*layout.http, *([ways.base(layout)] if options.via is Via.IPXE else [])])
    if problems := machine.missing(options.via):
        raise InputError(*problems)
    added = _kernel_arguments(options, net)
    for_grub, for_ipxe = grubcfg.words(added), ways.words(added) if options.via is Via.IPXE else ""
    if layout.findings:
        console.problems(layout.findings)
    with _serial_log(options.serial_log) as log, temporary_folder(prefix="pxe-pack-boot-") as work:
        handed = credentials.arguments(options.credentials, work=work)
        (work / "tftp").mkdir()
        _lay_out(layout, work / "tftp", for_grub=for_grub, for_ipxe=for_ipxe)
        with console.step("choosing how to run the machine") as step:
            accelerator = machine.choose_accelerator(work)
            step.note("KVM" if accelerator is machine.KVM else f"emulation (TCG): {machine.kvm_problem()}")
        return _run(
            options,
            layout,
            net=net,
            work=work,
            accelerator=accelerator,
            handed=handed,
            log=log,
            console=console,
        )


def _run(
    options: Options,
    layout: Layout,
    *,
    net: Network,
    work: Path,
    accelerator: Sequence[str],
    handed: Sequence[str],
    log: BinaryIO,
    console: Console,
) -> Outcome:
    events = Events()
    socket = work / "http"
    files = {url: layout.root / path for url, path in layout.http.items()}
    boot_file = BOOT_LOADER
    if options.via is Via.IPXE:
        files |= ways.boot_files(layout, work / "tftp")
        boot_file = f"{ways.base(layout)}/{IPXE_SCRIPT}"
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
            credentials=handed,
            serial_log=log,
            events=events,
        ),
    ):
        trial = Trial(layout, console=console)
        try:
            with sigint_raises():
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
    """What a trial adds: where the node can be watched, where it reports, and what the user wants."""
    own = ["console=ttyS0", "systemd.show_status=1", f"pxe-fetch.report={net.report_url}"]
    return own + [word.replace('"', "") for word in cmdline.split(options.append)]


def _lay_out(layout: Layout, folder: Path, *, for_grub: str, for_ipxe: str) -> None:
    """The server's root in `folder`: the layout's boot files by links, its scripts with further kernel arguments."""
    for path in layout.tftp:
        file, link = (layout.root / path).absolute(), folder / path
        if not file.is_file():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "grub.cfg":
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
            served = grubcfg.for_trial(text, added=for_grub)
            link.write_text(served, encoding="utf-8", errors="surrogateescape")
        elif path == IPXE_SCRIPT:
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
            served = ways.script_for_trial(text, added=for_ipxe)
            link.write_text(served, encoding="utf-8", errors="surrogateescape")
        else:
            link.symlink_to(file)


def _enough_memory(layout: Layout) -> int:
    """MiB for the machine: the ISO and the artifacts lie in its RAM, each in a tmpfs that has a part of it."""
    served = sum(layout.size(path) for path in layout.http.values())
    return LEAST_MEMORY + ROOM * served // MiB


@contextmanager
def _serial_log(path: Path) -> Iterator[BinaryIO]:
    try:
        log = path.open("wb")
    except OSError as error:
        raise InputError(
            Problem(
                reference="serial-log-unwritable",
                message=f"the serial log {path} cannot be written: {error.strerror}",
                hint="give another place with --serial-log FILE",
            )
        ) from None
    with log:
        yield log
