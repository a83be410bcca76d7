"""The file that holds the run's result while the run goes on and after it."""

from __future__ import annotations

import os

from pxe_fetch.contract import paths


def path() -> str | None:
    """The state file of runs of this user: the unit's runtime directory, /run's for root, or the user's own.

    None for an ordinary user without a runtime directory: such a run tells its story on the terminal only.
    """
    if directory := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:  # systemd.exec(5)
        return f"{directory}/state.json"
    if os.geteuid() == 0:
        return paths.STATE
    own = os.environ.get("XDG_RUNTIME_DIR")
    return f"{own}/{paths.USER_STATE_DIR}/state.json" if own else None


def write(text: str, *, file: str) -> None:
    """Replace `file` by `text` in one step, so that a reader sees the whole of one moment. Raises OSError."""
    directory = os.path.dirname(file)  # noqa: PTH120  pathlib is an import
    if not os.path.isdir(directory):  # noqa: PTH112
        os.makedirs(directory, mode=0o755)  # noqa: PTH103
    beside = f"{file}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123  a descriptor is no path
        os.fchmod(descriptor, 0o644)  # the unit's umask may be tighter; `status` is for everybody
        stream.write(text)
    os.replace(beside, file)  # noqa: PTH105
