"""What this machine must have before the agent can be frozen on it."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools

_PROGRAMS = ("gcc", "pkg-config", "objdump", "strip")
_REASON = "to freeze the agent"


def freeze_problems() -> list[Problem]:
    """All that is missing here for freezing the agent, each with the Debian package that has it; changes nothing."""
    return [*tools.missing(_PROGRAMS, reason=_REASON), *_missing_parts()]


def _missing_parts() -> Iterator[Problem]:
    if tools.find("pkg-config") and not _has_libsystemd():
        yield _missing("libsystemd's headers are", package="libsystemd-dev")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        yield _missing(f"Python {_version()}'s headers are", package=f"python{_version()}-dev")
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        yield _missing(f"Python {_version()}'s venv module is", package=f"python{_version()}-venv")
    if not _has_shared_library():
        yield _missing(f"Python {_version()}'s shared library is", package=f"libpython{_version()}")


def _missing(what: str, *, package: str) -> Problem:
    return Problem(
        reference="tool-missing",
        message=f"{what} needed {_REASON}, and not installed (for {sys.executable})",
        hint=f"apt-get install {package}; or give a folder with a ready agent by --agent",
    )


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _has_libsystemd() -> bool:
    # Not tools.run: an answer of "no" is no failure.
    with tools.start("pkg-config", "--exists", "libsystemd") as process:
        process.communicate()
    return process.returncode == 0


def _has_shared_library() -> bool:
    name = sysconfig.get_config_var("INSTSONAME")
    if not name or not str(name).endswith((".so", ".so.1.0")):
        return False
    directories = [sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib", Path(sys.base_prefix) / "lib64"]
    return any((Path(directory) / name).is_file() for directory in directories if directory)
