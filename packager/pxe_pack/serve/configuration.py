"""The servers' configurations: what `pxe-pack snippet` prints, and what makes it a server of its own.

Sources: https://nginx.org/en/docs/ngx_core_module.html and ngx_http_core_module.html; dnsmasq(8).
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from pxe_pack.layout import dnsmasq, nginx
from pxe_pack.layout.servers import SNIPPETS
from pxe_pack.serve.plan import SNIPPETS as DHCP_SNIPPETS
from pxe_pack.serve.plan import Plan
from pxe_pack.serve.user import server_user


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where the servers write."""

    run: Path  # temporary
    logs: Path

    @property
    def nginx_access(self) -> Path:
        """Nginx's access log."""
        return self.logs / "nginx-access.log"

    @property
    def nginx_pid(self) -> Path:
        """The file that nginx writes as soon as it listens."""
        return self.run / "nginx.pid"

    @property
    def dnsmasq_log(self) -> Path:
        """What dnsmasq logs: DHCP, and each file by TFTP."""
        return self.logs / "dnsmasq.log"


_NGINX = """\
daemon off;
worker_processes {workers};
pid {pid};
error_log stderr warn;
{user}
events {{ worker_connections 4096; }}
http {{
  log_format pxe_pack '{log_format}';
  access_log {access_log} pxe_pack;
{temporary}
  uninitialized_variable_warn off;
  sendfile on;
  tcp_nopush on;
  server_names_hash_bucket_size 128;
{servers}}}
"""


_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_config(plan: Plan, folders: Folders) -> str:
    """nginx.conf(5). Raises InputError for URLs that nginx cannot serve."""
    user = server_user(Path(plan.site.folder))
    return _NGINX.format(
        pid=nginx.word(str(folders.nginx_pid)),
        access_log=nginx.word(str(folders.nginx_access)),
        temporary="\n".join(f"  {kind}_temp_path {nginx.word(f'{folders.run}/{kind}')};" for kind in _TEMPORARY),
        log_format=nginx.LOG_FORMAT,
        workers=min(8, os.cpu_count() or 1),
        user=f"user {user.pw_name} {_group(user)};" if user else "",
        servers="".join(f"  {line}\n" for line in SNIPPETS["nginx"](plan.site).splitlines()),
    )


def dnsmasq_config(plan: Plan, folders: Folders) -> str:
    """dnsmasq.conf: TFTP, and DHCP if it is asked for. Raises InputError if the subnet is not known."""
    lines = [
        SNIPPETS[DHCP_SNIPPETS[plan.dhcp]](plan.site),
        f"dhcp-leasefile={dnsmasq.word(str(folders.run / 'leases'))}",
        f"log-facility={dnsmasq.word(str(folders.dnsmasq_log))}",
        "log-dhcp",
        "dhcp-authoritative",  # leases of an earlier run are not known, and clients keep them (dnsmasq(8))
        "pid-file=",
    ]
    if plan.interface and plan.site.listen:
        lines += [f"interface={plan.interface.name}", "except-interface=lo", "bind-dynamic"]
    elif plan.interface:
        lines += [f"interface={plan.interface.name}", "bind-dynamic"]
    return "\n".join(lines) + "\n"


def dnsmasq_user(plan: Plan) -> list[str]:
    """Dnsmasq's options for the user that it becomes; an empty one has it stay who it is."""
    user = server_user(Path(plan.site.folder))
    if user is None or user.pw_uid == os.geteuid():
        return ["--user=", "--group="]
    return [f"--user={user.pw_name}", f"--group={_group(user)}"]


def _group(user: pwd.struct_passwd) -> str:
    return grp.getgrgid(user.pw_gid).gr_name
