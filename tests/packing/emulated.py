"""A node with another processor, as far as its programs go: they are emulated, in a root directory of their own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pxe_pack.freeze.environment import Environment

# Of Debian, what a node has and a frozen agent takes from it: the loader, the C library and zlib.
_LIBRARIES = ("ld-*.so.*", "libc.so.*", "libm.so.*", "libdl.so.*", "libpthread.so.*", "libz.so.*")
_START = """
mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" && mount --bind "$1/cmdline" "$1/proc/cmdline" &&
mount --bind "$2" "$1/agent" && mount --bind "$3" "$1$3" && exec chroot "$1" /agent/pxe-fetch "${@:4}"
"""


@dataclass(frozen=True, kw_only=True)
class EmulatedNode:
    """A root directory, whose programs reach this machine's network, and the folder `shared` by its own name."""

    root: Path
    agent: Path  # the folder with the frozen agent
    shared: Path

    def run(self, *arguments: str | Path, cmdline: str = "quiet") -> subprocess.CompletedProcess[str]:
        """Run the agent, on a node with that kernel command line."""
        (self.root / "cmdline").write_text(cmdline + "\n")
        start = ("unshare", "--map-root-user", "--mount", "bash", "-c", _START, "bash")
        command: list[str | Path] = [*start, self.root, self.agent, self.shared, *arguments]
        env = {"RUNTIME_DIRECTORY": "/run/pxe-fetch", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


def emulated_node(root: Path, *, environment: Environment, agent: Path, shared: Path) -> EmulatedNode:
    """One in the folder `root`, with the C library of `environment`."""
    for folder in ("proc", "dev", "agent", "etc/pxe-fetch/trust", "var/lib", "run/pxe-fetch", "lib", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / shared.relative_to("/")).mkdir(parents=True, exist_ok=True)
    for pattern in _LIBRARIES:
        for library in (environment.root / "usr/lib").glob(f"*-linux-gnu/{pattern}"):
            (root / "lib" / library.name).write_bytes(library.read_bytes())
            (root / "lib" / library.name).chmod(0o755)
    return EmulatedNode(root=root, agent=agent, shared=shared)
