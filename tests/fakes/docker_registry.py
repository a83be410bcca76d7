"""Debian's docker-registry, for as long as a test needs it, and blobs put into it."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes import ports
from fakes.process import Process, program, running

_CONFIG = """
version: 0.1
log: {{accesslog: {{disabled: false}}, level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: false}}}}
http: {{addr: "{address}:{port}"}}
"""
_USERS = "auth: {{htpasswd: {{realm: registry.lan, path: {folder}/users}}}}\n"
USER, PASSWORD = "reader", "word"
_HASH = "$2b$04$tA5AJV5AG8b4wk1mN9g2bODa7ddluMGkvMWHsGNTFyWzkjvMYgnWS"  # of the password, by htpasswd -B
REPOSITORY = "site/model"


@dataclass(frozen=True, kw_only=True)
class DockerRegistry:
    """A running one."""

    folder: Path
    address: str
    port: int
    words: Sequence[str]  # that run curl where the registry is
    process: Process

    def url(self, path: str) -> str:
        return f"http://{self.address}:{self.port}{path}"

    def push(self, body: bytes) -> str:
        """Put a blob into the repository; its path."""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        file = self.folder / "blob"
        file.write_bytes(body)
        begun = self._curl("-i", "-X", "POST", self.url(f"/v2/{REPOSITORY}/blobs/uploads/"))
        (place,) = [line.partition(": ")[2] for line in begun.splitlines() if line.lower().startswith("location:")]
        kind = ("-H", "Content-Type: application/octet-stream")
        self._curl("-X", "PUT", *kind, "--data-binary", f"@{file}", f"{place}&digest={digest}")
        return f"/v2/{REPOSITORY}/blobs/{digest}"

    def _curl(self, *words: str) -> str:
        command = [*self.words, "curl", "-sSf", "-u", f"{USER}:{PASSWORD}", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def sent(self) -> int:
        """The bytes of bodies that it has sent so far, by its own log."""
        found = 0
        for line in self.process.printed().splitlines():
            request = line.partition('] "')[2]
            if request.startswith("GET /v2/"):
                found += int(request.partition('" ')[2].split()[1])
        return found


@contextlib.contextmanager
def docker_registry(
    folder: Path, *, private: bool = False, address: str = "127.0.0.1", port: int = 0, inside: Sequence[str] = ()
) -> Iterator[DockerRegistry]:
    """A registry; `private`: for USER alone. `inside`: the words that run a command in its network namespace."""
    folder.mkdir()
    port = port or ports.free(address)
    text = _CONFIG + (_USERS if private else "")
    (folder / "users").write_text(f"{USER}:{_HASH}\n")
    (folder / "config.yml").write_text(text.format(folder=folder, address=address, port=port))
    process = Process(
        command=[*inside, program("docker-registry"), "serve", folder / "config.yml"],
        is_ready=lambda: ports.is_listening(port, inside=inside),
        output=folder / "output",
    )
    with running(process):
        yield DockerRegistry(folder=folder, address=address, port=port, words=inside, process=process)
