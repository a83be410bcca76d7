"""`pxe-pack man`: the manual page, made from the parser."""

from __future__ import annotations

import argparse
import os
import time

from argparse_manpage.manpage import Manpage

from pxe_fetch import __version__
from pxe_pack import parser as own
from pxe_pack.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `man` takes: nothing."""
    parser.description = "Print the manual page, as roff: `pxe-pack man | man -l -` shows it."


def run(_arguments: argparse.Namespace, console: Console) -> int:
    """Print it."""
    text = page()
    console.result({"man": text}, text.rstrip("\n"))
    return 0


def page() -> str:
    """The page of `pxe-pack` and all its commands: man(7). Dated by SOURCE_DATE_EPOCH where that is set."""
    tree = own.build_parser()
    tree.epilog = None  # its exit codes have a section of their own
    about = {
        "project_name": "pxe-pack",
        "version": __version__,
        "description": "put an agent into a LiveOS image, and export what PXE boots it",
        "manual_title": "pxe-pack manual",
        "date": time.strftime("%B %d, %Y", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time())))),
    }
    made = Manpage(tree, _data=about)
    codes = "\n".join(f".TP\n{code}\n{meaning}" for code, meaning in own.EXIT_CODES.items())
    made.add_section("synopsis", "=", _SYNOPSIS)
    made.add_section("exit status", ">", codes)
    made.add_section("environment", ">", _ENVIRONMENT)
    return str(made)


_SYNOPSIS = r"""\
\fBpxe\-pack\fR \fB\-\-agent\-config\fR \fIFILE\fR [options]
.br
\fBpxe\-pack\fR \fICOMMAND\fR [options]"""
_ENVIRONMENT = """\
.TP
XDG_CACHE_HOME
below it, in pxe\\-pack, frozen agents are kept (default: ~/.cache)
.TP
NO_COLOR
when set, neither colour nor moving bars are shown
.TP
SOURCE_DATE_EPOCH
the time that is written into what is made, in seconds since 1970"""
