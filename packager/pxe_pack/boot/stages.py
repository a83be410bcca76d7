"""How far the node got, derived from its serial console and from its requests to the server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum


class Stage(IntEnum):
    """The stages of a boot, in order."""

    FIRMWARE = 0
    TFTP = 1  # the firmware's PXE: DHCP, then shim and GRUB
    GRUB = 2
    KERNEL = 3  # the kernel, and the initrd until it downloads
    LIVENET = 4  # dracut's livenet downloads the ISO
    PIVOT = 5  # the image is mounted; the initrd switches to its root filesystem
    UNIT = 6  # the agent runs

    def __str__(self) -> str:
        return {Stage.TFTP: "TFTP", Stage.GRUB: "GRUB"}.get(self, self.name.lower())


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Why a boot cannot continue, according to its serial console."""

    why: str
    hint: str


# The console output that marks the start of each stage. Each is searched for until a later stage is reached.
SIGNS: tuple[tuple[Stage, re.Pattern[str]], ...] = (
    (Stage.TFTP, re.compile(r">>Start PXE over IPv4|iPXE initialising devices|iPXE \d+\.\d+")),
    (Stage.GRUB, re.compile(r"Welcome to GRUB|GNU GRUB +version")),
    (Stage.KERNEL, re.compile(r"EFI stub: |Linux version \d|\[ +0\.000000\] ")),
    (Stage.LIVENET, re.compile(r"livenet|% Total +% Received")),
    (Stage.PIVOT, re.compile(r"Switching root|initrd-switch-root\.(service|target)|Switch Root")),
    (Stage.UNIT, re.compile(r"pxe-fetch(\.service|\[\d+\])|pxe-fetch: ")),
)

# Console output that ends a boot at once: stages, pattern (its group is the node's own message), reason, hint. A line
# whose rest decides what it means is matched with its end: the console comes in pieces.
STOPS: tuple[tuple[frozenset[Stage], re.Pattern[str], str, str], ...] = (
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r'(PXE-E\d+: [^\r\n]+)(?s:.*?)BdsDxe: failed to load Boot\d+ "UEFI PXEv4'),
        "the firmware could not load the boot loader by PXE",
        "bootx64.efi must be at the TFTP server's root, readable, under exactly this name",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r'BdsDxe: failed to (?:load|start) Boot\d+ "UEFI PXEv4[^\r\n]*: '
                   r"(Access Denied|Security Violation)[\r\n]"),
        "the firmware refused the boot loader (Secure Boot)",
        "bootx64.efi was changed after it was signed, or the firmware does not have its signer's key",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r'BdsDxe: failed to (?:load|start) Boot\d+ "UEFI PXEv4[^\r\n]*: ([A-Z][\w ]+)[\r\n]'),
        "the firmware could not start the boot loader",
        "bootx64.efi must be a UEFI program for x86_64 (shim or GRUB)",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r"((?:Unable to fetch TFTP image|start_image\(\) returned|Failed to (?:open|load) )[^\r\n]*)[\r\n]"),
        "shim could not load GRUB",
        "grubx64.efi must be next to bootx64.efi, readable, and signed for this shim if Secure Boot is on",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        # iPXE since 2021 looks for autoexec.ipxe beside itself, and goes on without it.
        re.compile(r"[\r\n](?![^\r\n]*autoexec\.ipxe)([^\r\n]* \(https?://ipxe\.org/[0-9a-f]{8}\))[\r\n]"),
        "iPXE could not load a file",
        "boot.ipxe, the kernel and the initrd must be on the HTTP server at the same paths as in the layout",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r"UEFI Interactive Shell|No bootable option or device was found"),
        "the firmware found nothing to boot",
        "bootx64.efi must be at the TFTP server's root",
    ),
    (
        frozenset({Stage.GRUB}),
        re.compile(r"(?:error: ([^\r\n]+)(?s:.*?))?Press any key to continue"),
        "GRUB could not boot the entry",
        "the paths in boot/grub2/grub.cfg must exist on the TFTP server; `[ -f … ]` is always false over TFTP",
    ),
    (
        frozenset({Stage.TFTP, Stage.GRUB}),
        re.compile(r"(?:^|[\r\n])grub(?: rescue)?> $"),
        "GRUB shows its prompt: it found no configuration, or none with a bootable entry",
        "boot/grub2/grub.cfg must be at that path below the TFTP server's root, or where this GRUB's prefix points",
    ),
    (
        frozenset(Stage),
        re.compile(r"Kernel panic - not syncing: ([^\r\n]+)[\r\n]"),
        "the kernel panicked",
        "`Unable to mount root fs`: no initrd was loaded; `Attempted to kill init`: the initrd or the image is broken",
    ),
    (
        frozenset({Stage.KERNEL, Stage.LIVENET}),
        re.compile(r"dracut: FATAL: pxe-pack: ((?:the ISO|cannot verify)[^\r\n]*)[\r\n]"),
        "the node refused the ISO",
        "the ISO must be the one that was packed; `pxe-pack check` compares it with the kernel command line",
    ),
    (
        frozenset({Stage.KERNEL, Stage.LIVENET, Stage.PIVOT}),
        re.compile(r"(Entering emergency mode|You are in emergency mode|Press Enter for (?:emergency|maintenance)|"
                   r"dracut: (?:FATAL|Refusing)[^\r\n]*(?=[\r\n]))"),
        "the node gave up in an emergency shell",
        "read the serial log above the prompt: often the initrd lacks a module, or the image could not be mounted",
    ),
)  # fmt: skip

# The likely cause when the timeout expires in a stage.
USUAL_CAUSES: dict[Stage, str] = {
    Stage.FIRMWARE: "the firmware did not reach a boot device: the machine is too slow, or has too little --memory",
    Stage.TFTP: "the boot loader is still loading, or shim is waiting: check bootx64.efi and grubx64.efi",
    Stage.GRUB: "GRUB is waiting in its menu (grub.cfg has no `set timeout`), or loading a large initrd slowly",
    Stage.KERNEL: "the initrd has no network or no livenet: check dracut's modules, the card's driver, `ip=dhcp`",
    Stage.LIVENET: "the ISO was not fully downloaded, or does not fit in the machine's RAM: try more --memory",
    Stage.PIVOT: "a service of the image never finishes, nothing wants pxe-fetch.target, or pxe-fetch=off is set",
    Stage.UNIT: "the agent is still running: it retries an unresponsive server until the artifact's deadline",
}

VERDICT = re.compile(r"(?m:pxe-fetch: (done|failed)\b([^\r\n]*)[\r\n])")
ANSI = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00\x08]")
KEPT = 8192  # characters of the console that are searched; every pattern matches within fewer


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsoleVerdict:
    """The agent's one line on the console."""

    done: bool
    text: str  # the whole line


class Watcher:
    """Tracks the stage of a boot from the serial console's text and from what the server sees."""

    def __init__(self) -> None:
        self.stage = Stage.FIRMWARE
        self.stop: Stop | None = None
        self.verdict: ConsoleVerdict | None = None
        self._text = ""

    def read(self, text: str) -> None:
        """Process more of the serial console's text."""
        self._text = (self._text + text)[-KEPT - len(text) :]
        self._text = ANSI.sub("", self._text)
        for stage, sign in SIGNS:
            if stage > self.stage and sign.search(self._text):
                self.reached(stage)
        for line in VERDICT.finditer(self._text):  # the last one counts: the agent may run again
            self.verdict = ConsoleVerdict(done=line[1] == "done", text=line[0].strip())
        for stages, pattern, why, hint in STOPS:
            if self.stop is None and self.stage in stages and (match := pattern.search(self._text)):
                said = match[1].strip() if match.lastindex and match[1] else ""
                self.stop = Stop(why=f"{why}: {said}" if said else why, hint=hint)

    def reached(self, stage: Stage) -> None:
        """Record that the node reached `stage`."""
        self.stage = max(self.stage, stage)

    def last_lines(self, count: int) -> list[str]:
        """The last `count` non-empty lines of the serial console, without control sequences."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", self._text)]
        return [line for line in lines if line][-count:]
