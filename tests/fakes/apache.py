"""A real Apache on loopback, for as long as a test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fakes import ports
from fakes.certs import Issued
from fakes.process import Process, WebServer, accepts, as_ordinary_user, program, serving

_MODULES = (
    *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "alias", "deflate", "env"),
    *("filter", "headers", "ratelimit", "setenvif", "socache_shmcb", "ssl"),
)
_CONFIG = """
ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
Mutex pthread
Listen 127.0.0.1:{port}
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
LogLevel warn
ErrorLog {folder}/error.log
LogFormat "%m %U \\"%{{Range}}i\\" %>s %B" asked
CustomLog {folder}/access.log asked
DocumentRoot {root}
<Directory {root}>
  Require all granted
</Directory>
Alias /slow {root}
<Location /slow>
  SetOutputFilter RATE_LIMIT
  SetEnv rate-limit 400
</Location>
Alias /packed {root}
<Location /packed>
  # As found in the field: whatever the request says, the answer is compressed.
  RequestHeader set Accept-Encoding gzip
  SetOutputFilter DEFLATE
</Location>
Alias /closed {root}
<Location /closed>
  Require all denied
</Location>
Alias /private {root}
<Location /private>
  AuthType Basic
  AuthName private
  AuthUserFile {folder}/passwords
  Require valid-user
</Location>
Redirect 302 /moved /
"""
_SECURE = """
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
  SSLEngine on
  SSLProtocol {protocols}
  SSLCertificateFile {certificate}
  SSLCertificateKeyFile {key}
  SSLCACertificateFile {authority}
  Alias /clients {root}
  # Wanted only once the request is read: post-handshake authentication with TLS 1.3, renegotiation before it.
  <Location /clients>
    SSLVerifyClient require
  </Location>
</VirtualHost>
"""


@contextlib.contextmanager
def apache(
    folder: Path,
    *,
    root: Path,
    certificate: Issued | None = None,
    clients_of: Path | None = None,
    protocols: str = "-all +TLSv1.3",
    passwords: str = "",
) -> Iterator[WebServer]:
    """Serve `root` by http, and by https with `certificate`; below /clients to those with one of the CA `clients_of`.

    `/slow` comes at 400 KiB/s, `/packed` compressed whatever is asked for, `/closed` to nobody, `/moved` from
    elsewhere, and `/private` to the users in `passwords`, lines as htpasswd(1) writes them.
    """
    folder.mkdir()
    port, secure_port = ports.free(), ports.free()
    config = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in _MODULES)
    config += _CONFIG.format(folder=folder, root=root, port=port)
    if certificate:
        config += _SECURE.format(
            port=secure_port,
            protocols=protocols,
            certificate=certificate.certificate,
            key=certificate.key,
            authority=clients_of,
            root=root,
        )
    (folder / "apache.conf").write_text(config)
    (folder / "passwords").write_text(passwords)
    command = as_ordinary_user(program("apache2"), "-X", "-f", folder / "apache.conf")
    process = Process(command=command, is_ready=accepts(port), output=folder / "printed")
    with serving(WebServer(folder=folder, port=port, secure_port=secure_port, process=process)) as server:
        yield server
