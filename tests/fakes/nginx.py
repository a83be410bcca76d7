"""A real nginx on loopback, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fakes import ports
from fakes.certs import Issued
from fakes.waiting import PATIENCE

_CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  log_format asked '$connection $connection_requests $request_method $uri "$http_range" $status $body_bytes_sent';
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  gzip on;
  gzip_types *;
  gzip_min_length 1;
  sendfile on;
  limit_conn_zone $binary_remote_addr zone=node:1m;
  map $http_range $held {{ "" 2k; default 200k; }}
  server {{
    listen {address}:{port};
    root {root};
    access_log {folder}/access.log asked;
    location = /logged {{ access_log off; return 204; }}
    location /slow/ {{ alias {root}/; limit_rate 200k; }}
    location /held/ {{ alias {root}/; limit_rate_after 600k; limit_rate $held; }}
    location /single/ {{ alias {root}/; limit_rate 800k; limit_conn node 1; }}
    location /single-403/ {{ alias {root}/; limit_rate 800k; limit_conn node 1; limit_conn_status 403; }}
    location /single-500/ {{ alias {root}/; limit_rate 800k; limit_conn node 1; limit_conn_status 500; }}
  }}
  {secure}
}}
"""
_SECURE = """
  server {{
    listen {address}:{port} ssl;
    root {root};
    access_log {folder}/access.log asked;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols {protocols};
    location /slow/ {{ alias {root}/; limit_rate 200k; }}
    {verify}
  }}
"""


@dataclass(kw_only=True)
class Nginx:
    """A running one."""

    folder: Path
    address: str
    port: int
    secure_port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again), and wait until it listens."""
        # It is not on the path of ordinary users, who may run it nevertheless.
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        assert program, "nginx is not installed"
        command: list[str | Path] = [
            program,
            "-p",
            self.folder,
            "-c",
            self.folder / "nginx.conf",
            "-e",
            self.folder / "error.log",
        ]
        self.process = subprocess.Popen(command, start_new_session=True)
        ports.wait_for(self.address, self.port, self.process)

    def kill(self) -> None:
        """SIGKILL for it and its worker: nothing is said to clients, and what is under way is not logged."""
        assert self.process, "it does not run"
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE)

    def sending(self) -> list[int]:
        """For each connection that there is, how many bytes its client has taken so far."""
        return ports.taken(self.port)

    def url(self, path: str) -> str:
        return f"http://{self.address}:{self.port}{path}"

    def secure_url(self, path: str) -> str:
        return f"https://localhost:{self.secure_port}{path}"

    def asked(self) -> list[list[str]]:
        """The requests so far: connection, number in the connection, method, path, range, status, bytes."""
        if self.address == "127.0.0.1":
            # The one worker logs a request after its last byte, and before it answers another one.
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port)) as connection:
                connection.sendall(b"GET /logged HTTP/1.0\r\n\r\n")
                while connection.recv(4096):
                    pass
        return [line.split() for line in (self.folder / "access.log").read_text().splitlines()]


@contextlib.contextmanager
def nginx(
    folder: Path,
    *,
    root: Path,
    certificate: Issued | None = None,
    clients_of: Path | None = None,
    protocols: str = "TLSv1.2 TLSv1.3",
    address: str = "127.0.0.1",
) -> Iterator[Nginx]:
    """Serve `root` by http, and by https with `certificate`, to those who have one of the CA `clients_of` if given.

    Below /slow/ files come slowly; below /held/ all but stops after 600 KiB, until a range is asked for.

    `address` is another than the loopback's only in a network namespace that was made for this.
    """
    folder.mkdir()
    port, secure_port = ports.free(address), ports.free(address)
    secure = ""
    if certificate:
        secure = _SECURE.format(
            address=address,
            port=secure_port,
            root=root,
            folder=folder,
            certificate=certificate.certificate,
            key=certificate.key,
            protocols=protocols,
            verify=f"ssl_verify_client on; ssl_client_certificate {clients_of};" if clients_of else "",
        )
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker may not read the test's folder
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, root=root, address=address, port=port, secure=secure, user=user))
    running = Nginx(folder=folder, address=address, port=port, secure_port=secure_port)
    try:
        running.start()
        yield running
    finally:
        if running.process:
            running.process.terminate()
            running.process.wait(timeout=PATIENCE)
