"""Debian's GRUB as an ordinary program, grub-emu, which runs a grub.cfg and says which kernels it would load.

The function `tried_linux` stands for the command, which a GRUB without a machine lacks (2.06), or which would
start a kernel here (2.12). It fails for every kernel, so GRUB goes on to what it falls back to, and then shows its menu
again.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PRELUDE = """\
function tried_linux { echo "<"; for word in "$@"; do echo "[$word]"; done; echo ">"; false; }
function tried_initrd { false; }
"""
_COMMAND = re.compile(r"((?:^|[;{]|\b(?:then|else|do)\b)\s*)(linux|initrd)(?=\s)", re.MULTILINE)
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# of a menu, and of an entry in a submenu
_ENDS = (b"Failed to boot both default and fallback entries", b"GNU GRUB")
_PATIENCE = 20  # seconds
# GRUB shows each failure for 2.5 s (DEFAULT_ENTRY_ERROR_DELAY_MS) before it falls back; its clock runs faster here.
_QUICKER = {"LD_PRELOAD": "/usr/$LIB/faketime/libfaketime.so.1", "FAKETIME": "+0 x20"}


def tried(text: str, folder: Path) -> list[list[str]]:
    """The words that each `linux` gets, in the order of GRUB's attempts, when no key is pressed.

    `folder` is the one of `text` and of other files that it reads, such as grubenv; they are not changed.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for path in filter(Path.is_file, folder.iterdir()):
            content = path.read_text(encoding="utf-8")
            (copy / path.name).write_text(_emulated(content) if path.suffix == ".cfg" else content, encoding="utf-8")
        (copy / "grub.cfg").write_text(PRELUDE + _emulated(text), encoding="utf-8")
        return _tried(copy)


def _emulated(text: str) -> str:
    return _COMMAND.sub(r"\1tried_\2", text)


def _tried(folder: Path) -> list[list[str]]:
    master, slave = pty.openpty()
    command = ["grub-emu", "-r", "host", "-d", str(folder)]
    environment = {**os.environ, "TERM": "dumb", **_QUICKER}
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True
    ) as emulator:
        os.close(slave)
        try:
            output = _output(master)
        finally:
            emulator.send_signal(signal.SIGKILL)
            os.close(master)
    plain = _ESCAPE.sub("", output).replace("\r", "")
    return [
        re.findall(r"^\[(.*)\]$", found, re.MULTILINE)
        for found in re.findall(r"^<$(.*?)^>$", plain, re.DOTALL | re.MULTILINE)
    ]


def _output(master: int) -> str:
    seen = b""
    end = time.monotonic() + _PATIENCE
    with contextlib.suppress(OSError):  # the emulator has ended
        while time.monotonic() < end and not any(one in seen for one in _ENDS):
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536)
    assert any(one in seen for one in _ENDS), seen.decode(errors="replace")
    return seen.decode(errors="replace")
