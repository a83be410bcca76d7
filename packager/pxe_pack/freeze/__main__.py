"""`python -m pxe_pack.freeze [PROCESSOR…]`: freeze agents, and have this installation carry them as ready ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pxe_fetch.contract.problem import ProblemError
from pxe_pack.console import PlainConsole
from pxe_pack.freeze import ready
from pxe_pack.freeze.cache import SOURCES, cache_key, default_cache, freeze_agent
from pxe_pack.freeze.machines import THIS_MACHINE


def main(machines: Sequence[str]) -> int:
    """Freeze one for each of `machines`, and print each archive's path.

    Exit code 1, and what is wrong on stderr, if one fails.
    """
    console = PlainConsole()
    for machine in machines:
        try:
            agent = freeze_agent(cache=default_cache(), console=console, machine=machine)
        except ProblemError as error:
            console.problems(error.problems)
            return 1
        archive = ready.archive_path(machine, key=cache_key(SOURCES, packages=()))
        archive.parent.mkdir(exist_ok=True)
        ready.write_archive(agent, archive)
        print(archive)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [THIS_MACHINE]))
