"""A real NFS server, NFS-Ganesha, on loopback: NFSv4.1 and 4.2 at one port. It takes root (open_by_handle_at(2))."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fakes import ports

# Graceless: else, after a restart, nothing can be opened until clients had time to claim what they had open (RFC 8881).
# PrivilegedPort: QEMU's user network asks from any port.
# Allow_Set_Io_Flusher_Fail: root in a container may lack CAP_SYS_RESOURCE. Ganesha 4 ignores it, with a warning.
_CONFIG = """
NFS_CORE_PARAM {{
  Protocols = 4;
  Bind_addr = 127.0.0.1;
  NFS_Port = {port};
  Enable_NLM = false;
  Enable_RQUOTA = false;
  Allow_Set_Io_Flusher_Fail = true;
}}
NFSv4 {{
  Graceless = true;
  RecoveryRoot = {folder}/recovery;
  Minor_Versions = 1, 2;
}}
EXPORT {{
  Export_Id = 1;
  Path = {root};
  Pseudo = {export};
  Access_Type = RO;
  SecType = sys;
  Protocols = 4;
  Transports = TCP;
  PrivilegedPort = false;
  FSAL {{ Name = VFS; }}
}}
"""


@dataclass(kw_only=True)
class Ganesha:
    """An NFS server that runs from `start` to `kill`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again), and wait until it listens."""
        program = shutil.which("ganesha.nfsd")
        assert program, "nfs-ganesha is not installed"
        config, log, pid = (self.folder / name for name in ("ganesha.conf", "log", "pid"))
        command: list[str | Path] = [program, "-F", "-f", config, "-L", log, "-p", pid]
        self.process = subprocess.Popen(command, start_new_session=True)
        ports.wait_for("127.0.0.1", self.port, self.process)
        said = log.read_text()
        assert "No export entries found" not in said, said  # it runs on without them

    def kill(self) -> None:
        """SIGKILL: clients hear nothing but that the connection is gone."""
        assert self.process, "it does not run"
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)
        self.process = None

    def sending(self) -> list[int]:
        """For each connection that there is, how many bytes its client has taken so far."""
        return ports.taken(self.port)


@contextlib.contextmanager
def ganesha(folder: Path, *, root: Path, export: str) -> Iterator[Ganesha]:
    """A server of `root` under the name of `export`, to be started; ended with the context.

    `root` must not be on a tmpfs: Ganesha 6 exports none (src/FSAL/localfs.c).
    """
    (folder / "recovery").mkdir(parents=True)
    port = ports.free()
    config = _CONFIG.format(port=port, folder=folder, root=root, export=export)
    (folder / "ganesha.conf").write_text(config)
    server = Ganesha(folder=folder, port=port)
    try:
        yield server
    finally:
        if server.process:
            server.kill()
