"""Libraries as wheels, exactly those that lock files name, in a folder: for another Python than the one that runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pxe_pack import tools

# Wheels for this glibc and older ones will do (PEP 600); the agent's floor is 2.34 anyway.
_MANYLINUX = range(34, 16, -1)


def install_wheels(target: Path, *, locks: Sequence[Path], python: str, machine: str, wheels: Path) -> None:
    """Put into the folder `target` what the `locks` name, for CPython `python` ("3.11") on `machine` (`uname -m`).

    The user's settings of pip say where libraries come from, but not where they go (PIP_USER, PIP_PREFIX, …): so they
    apply to the download only, which goes to the folder `wheels`. Raises WorkError.
    """
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    chosen = ["--no-deps", "--only-binary", ":all:"]
    abi = f"cp{python.replace('.', '')}"
    chosen += ["--implementation", "cp", "--python-version", python, "--abi", abi]
    for minor in _MANYLINUX:
        chosen += ["--platform", f"manylinux_2_{minor}_{machine}"]
    chosen += ["--platform", f"manylinux2014_{machine}"]
    requirements = [word for lock in locks for word in ("--requirement", str(lock))]
    anywhere = {"PYTHONPATH": "", "PIP_REQUIRE_VIRTUALENV": "0"}  # a download changes no environment
    tools.run(*pip, "download", *chosen, "--require-hashes", *requirements, "--dest", wheels, env=anywhere)
    isolated = {"PYTHONPATH": "", "PIP_CONFIG_FILE": os.devnull}  # pip's documented way to read no configuration file
    install = ("--isolated", "install", "--no-index", "--no-compile", "--target", target)
    tools.run(*pip, *install, *chosen, *sorted(wheels.iterdir()), env=isolated)
