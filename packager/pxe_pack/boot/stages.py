"""How far the node came: read from its serial console and from what it asked the server for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum


class Stage(IntEnum):
    """The stages of a boot, in their order."""

    FIRMWARE = 0
    TFTP = 1  # the firmware's PXE: DHCP, then shim and GRUB
    GRUB = 2
    KERNEL = 3  # and the initrd's beginning
    LIVENET = 4  # dracut's livenet downloads the ISO
    PIVOT = 5  # the image is mounted; the root file system is switched to
    UNIT = 6  # the agent is at work

    def __str__(self) -> str:
        return {Stage.TFTP: "TFTP", Stage.GRUB: "GRUB"}.get(self, self.name.lower())


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Why a boot cannot go on, as its serial console tells."""

    why: str
    hint: str


# What is first seen in a stage. Each is looked for until a later stage is reached.
SIGNS: tuple[tuple[Stage, re.Pattern[str]], ...] = (
    (Stage.TFTP, re.compile(r">>Start PXE over IPv4|iPXE initialising devices|iPXE \d+\.\d+")),
    (Stage.GRUB, re.compile(r"Welcome to GRUB|GNU GRUB +version")),
    (Stage.KERNEL, re.compile(r"EFI stub: |Linux version \d|\[ +0\.000000\] ")),
    (Stage.LIVENET, re.compile(r"livenet|% Total +% Received")),
    (Stage.PIVOT, re.compile(r"Switching root|initrd-switch-root\.(service|target)|Switch Root")),
    (Stage.UNIT, re.compile(r"pxe-fetch(\.service|\[\d+\])|pxe-fetch: ")),
)

# What ends a boot at once: in which stages, the sign (its group is the node's own word for it), why, what to do.
STOPS: tuple[tuple[frozenset[Stage], re.Pattern[str], str, str], ...] = (
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r'(PXE-E\d+: [^\r\n]+)(?s:.*?)BdsDxe: failed to load Boot\d+ "UEFI PXEv4'),
        "the firmware could not load the boot loader by PXE",
        "bootx64.efi has to lie at the TFTP server's root, readable, under just this name",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r'BdsDxe: failed to (?:load|start) Boot\d+ "UEFI PXEv4[^\r\n]*: ([A-Z][\w ]+)[\r\n]'),
        "the firmware could not start the boot loader",
        "bootx64.efi has to be a UEFI program for x86_64 (shim or GRUB)",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r"((?:Unable to fetch TFTP image|start_image\(\) returned|Failed to (?:open|load) )[^\r\n]*)[\r\n]"),
        "shim could not load GRUB",
        "grubx64.efi has to lie beside bootx64.efi, readable, and be signed for this shim if Secure Boot is on",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r"([^\r\n]* \(https?://ipxe\.org/[0-9a-f]{8}\))[\r\n]"),
        "iPXE could not load what it was to",
        "boot.ipxe, kernel and initrd have to lie on the HTTP server as they lie in the layout",
    ),
    (
        frozenset({Stage.FIRMWARE, Stage.TFTP}),
        re.compile(r"UEFI Interactive Shell|No bootable option or device was found"),
        "the firmware found nothing that boots",
        "bootx64.efi has to lie at the TFTP server's root",
    ),
    (
        frozenset({Stage.GRUB}),
        re.compile(r"(?:error: ([^\r\n]+)(?s:.*?))?Press any key to continue"),
        "GRUB could not boot the entry",
        "the paths in boot/grub2/grub.cfg have to be those of the TFTP server; `[ -f … ]` is always false over TFTP",
    ),
    (
        frozenset({Stage.TFTP, Stage.GRUB}),
        re.compile(r"(?:^|[\r\n])grub(?: rescue)?> $"),
        "GRUB shows its prompt: it found no configuration, or one without a bootable entry",
        "boot/grub2/grub.cfg has to lie there below the TFTP server's root (or where this GRUB's prefix says)",
    ),
    (
        frozenset(Stage),
        re.compile(r"Kernel panic - not syncing: ([^\r\n]+)[\r\n]"),
        "the kernel panicked",
        "`Unable to mount root fs`: no initrd was loaded; `Attempted to kill init`: the initrd or the image is broken",
    ),
    (
        frozenset({Stage.KERNEL, Stage.LIVENET, Stage.PIVOT}),
        re.compile(r"(Entering emergency mode|You are in emergency mode|Press Enter for (?:emergency|maintenance)|"
                   r"dracut: (?:FATAL|Refusing)[^\r\n]*)"),
        "the node gave up in an emergency shell",
        "see the serial log above the prompt: a module that the initrd lacks, or an image that could not be mounted",
    ),
)  # fmt: skip

# For a boot that says nothing any more until its time is over.
USUAL_CAUSES: dict[Stage, str] = {
    Stage.FIRMWARE: "the firmware came to no boot device: too slow a machine, or too little --memory",
    Stage.TFTP: "the boot loader is still being loaded, or shim waits: look at bootx64.efi and grubx64.efi",
    Stage.GRUB: "GRUB waits in its menu (a grub.cfg without `set timeout`), or loads a large initrd slowly",
    Stage.KERNEL: "the initrd has no network or no livenet: dracut's modules, the card's driver, `ip=dhcp`",
    Stage.LIVENET: "the ISO was not fetched whole, or does not fit in the machine's RAM: try more --memory",
    Stage.PIVOT: "a service of the image waits for ever; or pxe-fetch.target is not wanted, or pxe-fetch=off",
    Stage.UNIT: "the agent is still at it: a server that does not answer is asked again until the artifact's deadline",
}

VERDICT = re.compile(r"(?m:pxe-fetch: (done|failed)\b([^\r\n]*)[\r\n])")
ANSI = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00\x08]")
KEPT = 8192  # characters of the console that are looked at; what belongs to one sign lies within less


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsoleVerdict:
    """The agent's one line on the console."""

    done: bool
    text: str  # the whole line


class Watcher:
    """Follows a boot: feed it what the serial console shows, and tell it what the server saw."""

    def __init__(self) -> None:
        self.stage = Stage.FIRMWARE
        self.stop: Stop | None = None
        self.verdict: ConsoleVerdict | None = None
        self._text = ""

    def read(self, text: str) -> None:
        """Take in more of the serial console's text."""
        self._text = (self._text + text)[-KEPT - len(text) :]
        self._text = ANSI.sub("", self._text)
        for stage, sign in SIGNS:
            if stage > self.stage and sign.search(self._text):
                self.reached(stage)
        if match := VERDICT.search(self._text):
            self.verdict = ConsoleVerdict(done=match[1] == "done", text=match[0].strip())
        for stages, pattern, why, hint in STOPS:
            if self.stop is None and self.stage in stages and (match := pattern.search(self._text)):
                said = match[1].strip() if match.lastindex and match[1] else ""
                self.stop = Stop(why=f"{why}: {said}" if said else why, hint=hint)

    def reached(self, stage: Stage) -> None:
        """Take note that the node came to `stage`, as somebody else saw."""
        self.stage = max(self.stage, stage)

    def last_lines(self, count: int) -> list[str]:
        """The last lines of the serial console that are not empty, without control sequences."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", self._text)]
        return [line for line in lines if line][-count:]
