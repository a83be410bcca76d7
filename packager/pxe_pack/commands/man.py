"""`pxe-pack man`: the manual page, generated from the parser."""

from __future__ import annotations

import argparse
import os
import time

from argparse_manpage.manpage import Manpage

from pxe_fetch import __version__
from pxe_pack import parser as own
from pxe_pack.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Set the description; `man` has no arguments."""
    parser.description = "Print the manual page as roff. To read it: pxe-pack man | man -l -"


def run(_arguments: argparse.Namespace, console: Console) -> int:
    """Print the page."""
    text = page()
    console.result({"man": text}, text.rstrip("\n"))
    return 0


def page() -> str:
    """The manual page in man(7) format. Its date is SOURCE_DATE_EPOCH if set, else today."""
    tree = own.build_parser()
    tree.epilog = None  # the page has a section for exit codes
    about = {
        "project_name": "pxe-pack",
        "version": __version__,
        "description": "put an agent into a LiveOS image and export a PXE layout",
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
frozen agents are cached in its folder pxe\\-pack (default: ~/.cache)
.TP
NO_COLOR
if set, no colour and no progress bars
.TP
SOURCE_DATE_EPOCH
timestamp for generated files, in seconds since 1970"""
