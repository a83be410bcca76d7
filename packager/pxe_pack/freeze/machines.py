"""The processors that the agent can be frozen for, and whether this machine runs programs for one of them.

PyInstaller freezes for the Python that runs it. So the environment for another processor is one of Debian for that
processor, and its programs run by QEMU's emulation of single programs (qemu-user), which the kernel starts by itself
once it is registered with binfmt_misc (Documentation/admin-guide/binfmt-misc.rst).
"""

from __future__ import annotations

import os
import platform
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.packages import install_command

THIS_MACHINE = platform.machine()

ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
"""Processor (as `uname -m` says it) -> Debian's name for it."""

# e_machine (elf.h), and the machine code of exit(0).
_EXIT = {
    "x86_64": (62, bytes.fromhex("b83c000000 31ff 0f05")),  # mov eax, 60; xor edi, edi; syscall
    "aarch64": (183, bytes.fromhex("000080d2 a80b80d2 010000d4")),  # mov x0, 0; mov x8, 93; svc 0
}
_EMULATOR = "qemu-user-static"


def machine_problem(machine: str) -> Problem | None:
    """The error for a processor that the agent cannot be frozen for."""
    if machine in ARCHITECTURES:
        return None
    return Problem(
        reference="agent-machine",
        message=f"the agent cannot be frozen for {machine}",
        hint=f"it runs on {' and '.join(ARCHITECTURES)} only",
    )


def emulation_problem(machine: str, *, folder: Path) -> Problem | None:
    """The error if this machine runs no programs for `machine` in a root directory of their own.

    One is tried, in a temporary folder inside `folder`.
    """
    if machine == THIS_MACHINE:
        return None
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as name:
        program = Path(name, "exit")
        program.write_bytes(_exit_program(machine))
        program.chmod(0o755)
        namespace = () if os.geteuid() == 0 else ("unshare", "--map-root-user")
        try:
            tools.run("env", *namespace, "chroot", name, "/exit")
        except tools.WorkError:
            return Problem(
                reference="agent-emulation",
                message=f"this machine cannot run programs for {machine}, which is needed to freeze the agent for it",
                hint=f"{install_command(_EMULATOR)}; where systemd does not run, also as root: "
                "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && /usr/lib/systemd/systemd-binfmt; "
                f"or run `pxe-pack freeze -o DIR` on a machine with {machine}, and use that folder with --agent",
            )
    return None


def _exit_program(machine: str) -> bytes:
    """A static program for `machine` that does nothing (elf(5)): the ELF header, one segment to load, the code."""
    number, code = _EXIT[machine]
    header_size, segment_size, address = 64, 56, 0x400000
    start = header_size + segment_size
    size = start + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1))  # 64 bits, little-endian, version 1
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        identity, 2, number, 1, address + start, header_size, 0, 0, header_size, segment_size, 1, 64, 0, 0,
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size, size, 0x10000)
    return header + segment + code
