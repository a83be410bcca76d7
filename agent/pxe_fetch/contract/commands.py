"""The commands of `pxe-fetch` and its exit codes: the agent's command line, and the manual page that pxe-pack makes."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Self


class Exit(IntEnum):
    """How a run ended; 64-78 after sysexits(3). The unit restarts on NETWORK, BUG, IO, DEADLINE, INTEGRITY."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        exit_code = int.__new__(cls, code)
        exit_code._value_, exit_code.meaning = code, meaning
        return exit_code

    DONE = 0, "done"
    DEGRADED = 2, "done, but an optional artifact failed"
    USAGE = 64, "usage"
    CONFIG = 65, "configuration"
    NETWORK = 69, "network"
    BUG = 70, "bug"
    CANNOT_CREATE = 73, "cannot create a destination, or start a required unit"
    IO = 74, "input/output"
    DEADLINE = 75, "deadline or stopped"
    INTEGRITY = 76, "integrity"
    REFUSED = 77, "refused"
    TRUST = 78, "TLS trust"
    NO_ROOM = 79, "no room"


class Option(NamedTuple):
    """A flag of a command."""

    flag: str
    help: str
    metavar: str = ""  # of its value; empty: it has none


class Command(NamedTuple):
    """What follows `pxe-fetch` on the command line."""

    summary: str
    options: tuple[Option, ...] = ()
    operand: str = ""  # metavar of the one argument that it needs; empty: it has none
    details: str = ""

    def usage(self, name: str) -> str:
        """The command line as a pattern: `pxe-fetch check [--json] FILE`."""
        options = [f"[{' '.join(filter(None, (one.flag, one.metavar)))}]" for one in self.options]
        return " ".join(filter(None, ("pxe-fetch", name, *options, self.operand)))


COMMANDS = {
    "run": Command(
        "fetch and install this node's artifacts",
        options=(
            Option("--config", "use this configuration, and not the node's own", "FILE"),
            Option("--unpinned", "allow artifacts without a digest in FILE, for `pxe-pack lock`"),
            Option("--debug", "print debug messages, and the traceback of a bug"),
        ),
        details="Without --config, the first configuration that exists is used: the URL in pxe-fetch.config= on the "
        "kernel command line, the credential pxe-fetch.config, /etc/pxe-fetch/fetch.yaml, then the same in /usr/lib.",
    ),
    "status": Command(
        "show the state of the latest run",
        options=(
            Option("--wait", "wait until the run has ended, and exit with its exit code"),
            Option("--json", "print the state as JSON"),
        ),
        details="Exits with 1 if there is no state: no run has been recorded since this machine booted, or its file is "
        "damaged.",
    ),
    "check": Command(
        "validate a configuration file",
        options=(Option("--json", "print the result as JSON, each problem with its file, line and column"),),
        operand="FILE",
        details="Prints what the file would fetch, or every problem in it. Nothing is fetched.",
    ),
    "version": Command("print the version"),
}
