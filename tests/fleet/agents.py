"""The agent on many nodes at once: a program that forks one process for each node, and imports the agent only once.

Stdin has the nodes as JSON: a list of objects with `root`, `output`, `environment`, `arguments`, and `namespace`
(a network namespace's file, or null). All begin at the same moment. Stdout gets a list with the `code` and the
`seconds` of each.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from importlib import import_module
from typing import NoReturn, TypedDict

from pxe_fetch import cli
from pxe_fetch.reporting import journal

_CLONE_NEWNET = 0x40000000  # setns(2)
_LATE = ("pxe_fetch.run", "pxe_fetch.fetcher", "pxe_fetch.transport.http")  # modules that the agent imports late


class Node(TypedDict):
    """One node."""

    root: str
    output: str
    environment: dict[str, str]
    arguments: list[str]
    namespace: str | None


def main() -> None:
    """Run all of them."""
    for module in _LATE:
        import_module(module)
    gc.freeze()  # so that collections do not write to the pages that all processes share
    nodes: list[Node] = json.load(sys.stdin)
    waits, starts = os.pipe()
    processes: dict[int, int] = {}
    for index, node in enumerate(nodes):
        pid = os.fork()
        if not pid:
            os.close(starts)
            _be(node, waits)
        processes[pid] = index
    began = time.monotonic()
    os.close(starts)
    ended: dict[int, dict[str, float]] = {}
    while processes:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        ended[processes.pop(pid)] = {"code": code, "seconds": time.monotonic() - began}
    print(json.dumps([ended[index] for index in range(len(nodes))]))


def _be(node: Node, waits: int) -> NoReturn:
    """Become the node, in its network, and run the agent once `waits` ends."""
    code = 70
    try:
        if node["namespace"]:
            namespace = os.open(node["namespace"], os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        output = os.open(node["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(node["environment"])
        journal.CONSOLE = f"{node['root']}/dev/console"
        os.read(waits, 1)
        code = cli.main(node["arguments"], root=node["root"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
