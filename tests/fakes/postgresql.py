"""A database of Debian's PostgreSQL, which runs as an ordinary user."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fakes import ports
from fakes.process import Process, as_ordinary_user, running


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a new database, whose files are in `folder`."""
    (binaries,) = [*Path("/usr/lib/postgresql").glob("*/bin")][-1:]
    port = ports.free()
    folder.mkdir()
    folder.chmod(0o777)
    data = folder / "data"
    subprocess.run(
        as_ordinary_user(binaries / "initdb", "-D", data, "-A", "trust", "-U", "collector", "--no-sync", "-E", "UTF8"),
        check=True,
        capture_output=True,
    )
    command = as_ordinary_user(
        binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"
    )
    ask = shlex.join(map(str, [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]))
    process = Process(command=command, is_ready=lambda: not subprocess.call(["sh", "-c", ask]), output=folder / "log")
    with running(process):
        yield f"postgresql://collector@127.0.0.1:{port}/postgres"
