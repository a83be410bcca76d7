"""`python -m pxe_pack.freeze`: freeze the agent, and have this installation carry it as a ready one."""

from __future__ import annotations

import platform
import sys

from pxe_fetch.contract.problem import ProblemError
from pxe_pack.console import PlainConsole
from pxe_pack.freeze import ready
from pxe_pack.freeze.cache import SOURCES, cache_key, default_cache, freeze_agent


def main() -> int:
    """Freeze, and print the archive's path. Exit code 1 and what is wrong on stderr if it fails."""
    console = PlainConsole()
    try:
        agent = freeze_agent(cache=default_cache(), console=console)
    except ProblemError as error:
        console.problems(error.problems)
        return 1
    archive = ready.archive_path(platform.machine(), key=cache_key(SOURCES, packages=()))
    archive.parent.mkdir(exist_ok=True)
    ready.write_archive(agent, archive)
    print(archive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
