"""The caches that `pxe-pack snippet` prints configurations for, run with them for as long as a test needs one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes import ports
from fakes.process import Process, WebServer, as_ordinary_user, program, running

_NGINX = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
  log_format asked '$request_method $request_uri "$http_range" $status $body_bytes_sent $upstream_cache_status $host';
  access_log {folder}/access.log asked;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/printed.conf;
}}
"""
_SQUID = """
include {folder}/printed.conf
visible_hostname cache.lan
pid_filename {folder}/pid
logformat asked %rm %ru %>Hs %<st %Ss
access_log stdio:{folder}/access.log asked
cache_log {folder}/cache.log
coredump_dir {folder}
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
max_filedescriptors 1024
"""


@dataclass(frozen=True, kw_only=True)
class _Program:
    """How to run a cache: files beside the printed one, a command to run first, and the command itself."""

    files: Mapping[str, str]
    command: Sequence[str | Path]
    first: Sequence[str | Path] = ()


def _nginx(folder: Path, port: int) -> _Program:
    del port
    user = "user root;" if os.geteuid() == 0 else ""
    config = _NGINX.format(folder=folder, user=user)
    options = ("-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log")
    return _Program(files={"nginx.conf": config}, command=[program("nginx"), *options])


def _varnish(folder: Path, port: int) -> _Program:
    storage = f"file,{folder}/storage,256M"
    # Without a jail: it would give up root for a user who may not read the test's folder.
    options = ("-j", "none", "-F", "-n", folder / "work", "-a", f":{port}", "-s", storage)
    return _Program(files={}, command=[program("varnishd"), *options, "-f", folder / "printed.conf"])


def _squid(folder: Path, port: int) -> _Program:
    base = as_ordinary_user(program("squid"), "-N", "-n", f"cache{port}", "-f", folder / "squid.conf")
    return _Program(files={"squid.conf": _SQUID.format(folder=folder)}, command=base, first=[*base, "-z"])


_PROGRAMS: Mapping[str, Callable[[Path, int], _Program]] = {
    "nginx-cache": _nginx,
    "varnish": _varnish,
    "squid": _squid,
}


@contextlib.contextmanager
def cache(kind: str, folder: Path, *, printed: str, port: int, inside: Sequence[str] = ()) -> Iterator[WebServer]:
    """A cache with the configuration `printed`, which has to name `port`; what it caches goes below `folder`.

    `inside` are the words that run a command in another network namespace: nsenter(1).
    """
    folder.mkdir(exist_ok=True)
    (folder / "printed.conf").write_text(printed)
    made = _PROGRAMS[kind](folder, port)
    for name, text in made.files.items():
        (folder / name).write_text(text)
    if made.first:
        subprocess.run([*inside, *made.first], check=True, capture_output=True)
    process = Process(
        command=[*inside, *made.command],
        is_ready=lambda: ports.is_listening(port, inside=inside),
        output=folder / "output",
    )
    try:
        with running(process):
            yield WebServer(folder=folder, port=port, process=process)
    finally:
        for segment in Path("/dev/shm").glob(f"cache{port}-*"):
            segment.unlink()
