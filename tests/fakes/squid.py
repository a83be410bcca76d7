"""A real Squid on loopback, a forward proxy, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fakes import ports
from fakes.process import Process, WebServer, accepts, as_ordinary_user, program, serving

_CONFIG = """
http_port 127.0.0.1:{port}
visible_hostname proxy.lan
pid_filename {folder}/pid
logformat asked %rm %ru %>Hs %un
access_log stdio:{folder}/access.log asked
cache_log {folder}/cache.log
coredump_dir {folder}
netdb_filename none
pinger_enable off
cache_mem 8 MB
memory_pools off
shutdown_lifetime 0 seconds
connect_timeout 2 seconds
forward_max_tries 1
connect_retries 0
dns_nameservers 127.0.0.1
max_filedescriptors 1024
{users}
acl forbidden port {forbidden}
http_access deny forbidden
http_access allow {who}
http_access deny all
"""
_USERS = """
auth_param basic program {helper} {passwords}
auth_param basic realm proxy.lan
auth_param basic children 1 startup=1 idle=1
acl users proxy_auth REQUIRED
"""
_HELPER = "/usr/lib/squid/basic_ncsa_auth"


@contextlib.contextmanager
def squid(folder: Path, *, user: tuple[str, str] | None = None, forbidden: int = 9) -> Iterator[WebServer]:
    """A proxy for everybody, or for the one `user` (name, password); to the port `forbidden` it connects nobody."""
    folder.mkdir()
    port = ports.free()
    users = ""
    if user:
        passwords = folder / "passwords"
        passwords.write_text(f"{user[0]}:{_hashed(user[1])}\n")
        users = _USERS.format(helper=_HELPER, passwords=passwords)
    config = folder / "squid.conf"
    config.write_text(
        _CONFIG.format(folder=folder, port=port, users=users, who="users" if user else "all", forbidden=forbidden)
    )
    service = f"squid{port}"  # what its shared memory is called by; another Squid of this machine has its own
    process = Process(
        command=as_ordinary_user(program("squid"), "-N", "-n", service, "-f", config),
        is_ready=accepts(port),
        output=folder / "printed",
    )
    try:
        with serving(WebServer(folder=folder, port=port, process=process)) as server:
            yield server
    finally:
        for segment in Path("/dev/shm").glob(f"{service}-*"):
            segment.unlink()


def _hashed(password: str) -> str:
    """As htpasswd(1) writes it; by openssl, since that comes with another package."""
    return subprocess.run(
        ["openssl", "passwd", "-apr1", password], check=True, capture_output=True, text=True
    ).stdout.strip()
