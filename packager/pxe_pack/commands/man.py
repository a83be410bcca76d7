"""`pxe-pack man`: the manual pages, of pxe-pack and of the agent, generated from their parsers."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from argparse_manpage.manpage import Manpage

from pxe_fetch import __version__
from pxe_fetch.contract.commands import COMMANDS, Exit
from pxe_pack import parser as own
from pxe_pack.console import Console

PROGRAMS = ("pxe-pack", "pxe-fetch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument of `man`."""
    parser.description = (
        "Print the manual page of a program as roff. To read it: pxe-pack man | man -l -. That of pxe-fetch is packed "
        "into images."
    )
    parser.add_argument("program", choices=PROGRAMS, nargs="?", default="pxe-pack", help="the program")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the page."""
    text = page() if arguments.program == "pxe-pack" else agent_page()
    console.result({"man": text}, text.rstrip("\n"))
    return 0


def page() -> str:
    """The manual page of pxe-pack in man(7) format. Its date is SOURCE_DATE_EPOCH if set, else today."""
    tree = own.build_parser()
    tree.epilog = None  # the page has a section for exit codes
    date = time.strftime("%B %d, %Y", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    made = _made(tree, "put an agent into a LiveOS image and export a PXE layout", date=date)
    made.add_section("synopsis", "=", "\n.br\n".join(f"pxe-pack {usage}" for usage in own.USAGE).replace("-", r"\-"))
    made.add_section("examples", ">", _examples())
    made.add_section("exit status", ">", _defined(own.EXIT_CODES))
    made.add_section("environment", ">", _ENVIRONMENT)
    return str(made)


def agent_page() -> str:
    """The manual page of pxe-fetch: always the same, so that packing an image again gives the same bytes."""
    made = _made(agent_parser(), "fetch, verify and install this node's artifacts", date=_AGENT_DATE, section=8)
    usage = "\n.br\n".join(command.usage(name).replace("-", r"\-") for name, command in COMMANDS.items())
    made.add_section("synopsis", "=", usage)
    made.add_section("exit status", ">", _defined({int(code): code.meaning for code in Exit}))
    made.add_section("kernel arguments", ">", _defined(_ARGUMENTS))
    made.add_section("files", ">", _defined(_FILES))
    made.add_section("see also", ">", r"\fBjournalctl\fR(1), \fBsystemctl\fR(1), \fBsystemd\-creds\fR(1)")
    return str(made)


def agent_parser() -> argparse.ArgumentParser:
    """The command line of pxe-fetch, of which its manual page and its completion are made."""
    unwrapped = partial(argparse.HelpFormatter, width=1000)  # not as wide as this terminal
    tree = argparse.ArgumentParser(
        prog="pxe-fetch", description=_AGENT_DESCRIPTION, formatter_class=unwrapped, allow_abbrev=False
    )
    choices = tree.add_subparsers(title="commands", dest="command", metavar="COMMAND", prog="pxe-fetch")
    for name, command in COMMANDS.items():
        description = ". ".join(filter(None, (command.summary.capitalize(), command.details)))
        chosen = choices.add_parser(
            name,
            help=command.summary,
            description=description,
            usage=command.usage(name),
            allow_abbrev=False,
        )
        for option in command.options:
            if option.metavar:
                chosen.add_argument(option.flag, help=option.help, metavar=option.metavar, type=Path)
            else:
                chosen.add_argument(option.flag, help=option.help, action="store_true")
        if command.operand:
            chosen.add_argument(command.operand, help="the configuration", type=Path)
    return tree


def _examples() -> str:
    """Each command of the examples after what it is for."""
    shown = (f"{purpose}\n.PP\n.RS 4\n.nf\n{command}\n.fi\n.RE" for purpose, command in _EXAMPLES.items())
    return "\n.PP\n".join(shown).replace("-", r"\-")


def _made(tree: argparse.ArgumentParser, description: str, *, date: str, section: int = 1) -> Manpage:
    about = {
        "project_name": tree.prog,
        "version": __version__,
        "description": description,
        "manual_title": f"{tree.prog} manual",
        "manual_section": section,
        "date": date,
    }
    return Manpage(tree, _data=about)


def _defined(terms: Mapping[int, str] | Mapping[str, str]) -> str:
    return "\n".join(f".TP\n{term}\n{meaning}".replace("-", r"\-") for term, meaning in terms.items())


_EXAMPLES = {
    "Write a configuration to start from, and see what packing would do:": """\
pxe-pack init fetch.yaml
pxe-pack pack fetch.yaml --dry-run""",
    "Pack the image that fetch.yaml names, and verify what was written:": """\
pxe-pack --agent-config fetch.yaml
cd pxe && sha256sum -c SHA256SUMS""",
    "Pack another image, for nodes with 4 GiB of memory:": r"""\
pxe-pack pack fetch.yaml --image liveos.iso --output pxe/ \e
    --boot-url http://10.0.0.1/liveos.iso --node-memory 4GiB""",
    "Find out beforehand what will fail on nodes:": "pxe-pack check --agent-config fetch.yaml",
    "Serve the layout, with addresses for the nodes, until Ctrl-C:": "pxe-pack serve pxe/ --interface eth1 --dhcp full",
    "Publish a version of the layout, and go back to the one before it:": """\
pxe-pack pack fetch.yaml --publish /srv/pxe
pxe-pack rollback /srv/pxe""",
    "Boot the layout in a virtual machine:": "pxe-pack boot pxe/",
    "Move the layout to another server, and print the configuration of nginx there:": """\
pxe-pack relocate pxe/ --boot-url http://10.0.0.2/liveos.iso
pxe-pack snippet nginx pxe/""",
}
_ENVIRONMENT = """\
.TP
XDG_CACHE_HOME
frozen agents are cached in its folder pxe\\-pack (default: ~/.cache)
.TP
NO_COLOR
if set, no colour and no progress bars
.TP
SOURCE_DATE_EPOCH
timestamp for generated files, in seconds since 1970"""
_AGENT_DATE = "November 30, 2026"  # of the last change to the commands
_AGENT_DESCRIPTION = (
    "pxe-fetch runs once at boot, as pxe-fetch.service: it fetches the artifacts of its configuration, verifies and "
    "installs them. A destination is absent, or what it was before, or complete and verified; a later run resumes. To "
    "start another run: systemctl restart pxe-fetch.service. What happened is in its journal: journalctl -u pxe-fetch."
)
_ARGUMENTS = {
    "pxe-fetch=off": "fetch nothing on this boot",
    "pxe-fetch.config=URL": "use the configuration at URL; by plain http, or if /etc/pxe-fetch/trust has keys, it "
    "needs the next argument or a signature by one of them at URL.minisig",
    "pxe-fetch.config.sha256=HEX": "the SHA-256 digest of that configuration",
    "pxe-fetch.base_url=URL": "join relative urls to this one",
    "pxe-fetch.artifact_url=URL": "where the files that pxe-pack exported are served now",
    "pxe-fetch.deadline=30m": "the deadline of the whole run",
    "pxe-fetch.report=URL": "POST the state there",
    "pxe-fetch.debug": "write debug messages to the journal, and the traceback of a bug",
    "pxe-fetch.iso.sha256=HEX": "the SHA-256 digest of the ISO, for the initrd, which verifies it",
}
_FILES = {
    "/etc/pxe-fetch/fetch.yaml": "the configuration",
    "/etc/pxe-fetch/trust/NAME.pub": "public keys of minisign; a configuration by URL is signed by one of them",
    "/etc/pxe-fetch/credentials/NAME": "a credential of the image, if the unit gets none of that name",
    "/var/lib/pxe-fetch/serial": "the highest serial of a configuration by URL that was used",
    "/usr/lib/pxe-fetch/fetch.yaml": "the configuration if there is none in /etc",
    "/run/pxe-fetch/state.json": "the state of the latest run, which `pxe-fetch status` shows",
}
