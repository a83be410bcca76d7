"""A real HAProxy on loopback, in front of others, for as long as a test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fakes import ports
from fakes.process import Process, WebServer, accepts, program, serving

_CONFIG = """
global
  maxconn 100
  log stdout format raw local0
defaults
  mode http
  log global
  log-format "%HM %HP %ST %s"
  timeout connect 1s
  timeout client 20s
  timeout server 20s
  timeout queue 1s
  retries 0
frontend all
  bind 127.0.0.1:{port}
  use_backend absent if {{ path_beg /absent/ }}
  use_backend limited if {{ path_beg /limited/ }}
  default_backend files
backend files
  balance roundrobin
{servers}
backend absent
  # What an administrator does to a site that is under repair, and what comes when every server is down.
  server none 127.0.0.1:9 disabled
backend limited
  balance roundrobin
  http-request replace-path /limited(/.*) \\1
  timeout queue 200ms
{limited}
"""


@contextlib.contextmanager
def haproxy(folder: Path, *, backends: Sequence[int]) -> Iterator[WebServer]:
    """Hand requests to the `backends` (ports) in turn; to none below `/absent/`; one at a time below `/limited/`."""
    folder.mkdir()
    port = ports.free()
    lines = [f"  server s{number} 127.0.0.1:{backend}" for number, backend in enumerate(backends)]
    config = folder / "haproxy.cfg"
    config.write_text(
        _CONFIG.format(port=port, servers="\n".join(lines), limited="\n".join(f"{line} maxconn 1" for line in lines))
    )
    process = Process(
        command=[program("haproxy"), "-db", "-f", config], is_ready=accepts(port), output=folder / "access.log"
    )
    with serving(WebServer(folder=folder, port=port, process=process)) as server:
        yield server
