"""How far a node got, derived from excerpts of real serial console logs."""

from __future__ import annotations

import pytest

from pxe_pack.boot.stages import Stage, Watcher

PXE = (
    "\x1b[2J\x1b[01;01H\r\n>>Start PXE over IPv4.\r\n  Station IP address is 10.0.2.15\r\n\r\n"
    "  Server IP address is 10.0.2.2\r\n  NBP filename is bootx64.efi\r\n"
)
MISSING = (
    PXE + "  NBP filesize is 0 Bytes\r\n  PXE-E23: Client received TFTP error from server.\r\n"
    'BdsDxe: failed to load Boot0001 "UEFI PXEv4 (MAC:525400123456)" from PciRoot(0x0)/Pci(0x1,0x0): Not Found\r\n'
)
LOADED = (
    PXE + "  NBP filesize is 1048504 Bytes\r\n Downloading NBP file...\r\n\r\n  NBP file downloaded successfully.\r\n"
    'BdsDxe: starting Boot0001 "UEFI PXEv4 (MAC:525400123456)" from PciRoot(0x0)/Pci(0x1,0x0)\r\n'
    "Fetching Netboot Image grubx64.efi\r\n"
)
GRUB = LOADED + "\x1b[0m\x1b[30m\x1b[47mWelcome to GRUB!\r\n\r\n\x1b[0m\x1b[37m\x1b[40m"
PROMPT = (
    GRUB
    + "\x1b[2J\x1b[01;01H                             GNU GRUB  version 2.06\r\n\r\n   Minimal BASH-like line editing "
    "is supported. For the first word, TAB\r\n   lists possible command completions.\r\n\r\n\rgrub> "
)
NO_KERNEL = (
    GRUB + "  Booting `Azure Linux'\r\n\r\nerror: file `/boot/vmlinuz' not found.\r\n\r\nPress any key to continue..."
)
KERNEL = GRUB + "[    0.000000] Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)\r\n"
PANIC = KERNEL + "[    9.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n"
PIVOT = KERNEL + "[  OK  ] Reached target \x1b[0;1;39minitrd-switch-root.target\x1b[0m - Switch Root.\r\n"
UNIT = PIVOT + "         Starting \x1b[0;1;39mpxe-fetch.service\x1b[0m - Fetch this node's artifacts...\r\n"
LIVENET = KERNEL + "[   10.2] dracut-initqueue[512]: livenet: fetching http://10.0.0.1/liveos.iso\r\n"
REFUSED = (
    LIVENET + "[   44.1] dracut: FATAL: pxe-pack: the ISO at http://10.0.0.1/liveos.iso has the sha256 0123\r\n"
    "[   44.2] dracut: Refusing to continue\r\n"
)
IPXE = (
    'BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0)\r\niPXE initialising devices...\r\n'
    "file:autoexec.ipxe... Not found (https://ipxe.org/7f4de18e)\r\n"
    "file:/autoexec.ipxe... Not found (https://ipxe.org/7f4de18e)\r\n\r\n\r\n\r\n"
    "\x1b[1m\x1b[37m\x1b[40miPXE 1.21.1+git20250501\x1b[0m\x1b[37m\x1b[40m -- Open Source Network Boot Firmware -- \r\n"
    "Configuring (net0 52:54:00:12:34:56)...... ok\r\nhttp://10.0.0.1/boot.ipxe... ok\r\n"
)
IPXE_NO_KERNEL = IPXE + "boot/vmlinuz... Not found (https://ipxe.org/2d12618e)\r\n"


@pytest.mark.parametrize(
    ("log", "stage"),
    [
        ("", Stage.FIRMWARE),
        (PXE, Stage.TFTP),
        (LOADED, Stage.TFTP),
        (IPXE, Stage.TFTP),
        (GRUB, Stage.GRUB),
        (KERNEL, Stage.KERNEL),
        (PIVOT, Stage.PIVOT),
        (UNIT, Stage.UNIT),
    ],
)
@pytest.mark.parametrize("piece", [7, 100_000])
def test_tells_the_stage_however_the_log_is_cut(log: str, stage: Stage, piece: int) -> None:
    watcher = Watcher()
    for start in range(0, len(log), piece):
        watcher.read(log[start : start + piece])
    assert watcher.stage is stage
    assert watcher.stop is None


@pytest.mark.parametrize(
    ("log", "stage", "why"),
    [
        (MISSING, Stage.TFTP, "PXE-E23: Client received TFTP error"),
        (LOADED + "start_image() returned Not Found\r\n", Stage.TFTP, "shim could not load GRUB"),
        (IPXE_NO_KERNEL, Stage.TFTP, "iPXE could not load a file: boot/vmlinuz... Not found"),
        (PROMPT, Stage.GRUB, "prompt"),
        (NO_KERNEL, Stage.GRUB, "file `/boot/vmlinuz' not found"),
        (PANIC, Stage.KERNEL, "VFS: Unable to mount root fs"),
        (PIVOT + "You are in emergency mode. After logging in\r\n", Stage.PIVOT, "emergency"),
        (REFUSED, Stage.LIVENET, "the node refused the ISO: the ISO at http://10.0.0.1/liveos.iso has the sha256 0123"),
        (LIVENET + "dracut: FATAL: No root device\r\n", Stage.LIVENET, "shell: dracut: FATAL: No root device"),
    ],
)
@pytest.mark.parametrize("piece", [1, 60, 100_000])
def test_knows_at_once_that_a_boot_cannot_go_on(log: str, stage: Stage, why: str, piece: int) -> None:
    watcher = Watcher()
    for start in range(0, len(log), piece):
        watcher.read(log[start : start + piece])
    assert watcher.stage is stage
    assert watcher.stop
    assert why in watcher.stop.why
    assert watcher.stop.hint


def test_hears_the_agents_line_amid_others() -> None:
    watcher = Watcher()
    watcher.read(UNIT + "[  OK  ] Reached target x.\r\npxe-fetch: failed model: not ")
    assert watcher.verdict is None
    watcher.read("found (exit code 69)\r\n[  OK  ] Reached")
    assert watcher.verdict
    assert (watcher.verdict.done, watcher.verdict.text) == (False, "pxe-fetch: failed model: not found (exit code 69)")


def test_gives_the_last_lines_without_control_sequences() -> None:
    watcher = Watcher()
    watcher.read(UNIT)
    assert watcher.last_lines(1) == ["Starting pxe-fetch.service - Fetch this node's artifacts..."]
