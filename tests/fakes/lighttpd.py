"""A real lighttpd on loopback, for as long as a test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fakes import ports
from fakes.process import Process, WebServer, accepts, program, serving

_CONFIG = """
server.modules = ("mod_access", "mod_accesslog", "mod_alias", "mod_redirect")
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{root}"
server.errorlog = "{folder}/error.log"
# Of files without a type it sends neither ETag nor Last-Modified.
mimetype.assign = ("" => "application/octet-stream")
server.upload-dirs = ("{folder}")
accesslog.filename = "{folder}/access.log"
accesslog.format = "%m %U \\"%{{Range}}i\\" %s %b"
alias.url = ("/slow" => "{root}", "/closed" => "{root}")
url.redirect = ("^/moved(.*)" => "$1")
server.kbytes-per-second = {rate}
$HTTP["url"] =~ "^/closed/" {{ url.access-deny = ("") }}
"""


@contextlib.contextmanager
def lighttpd(folder: Path, *, root: Path, rate: int = 0) -> Iterator[WebServer]:
    """Serve `root`, with a `rate` at so many KiB/s in all; `/closed` to nobody, `/moved` from elsewhere."""
    folder.mkdir()
    port = ports.free()
    config = folder / "lighttpd.conf"
    config.write_text(_CONFIG.format(folder=folder, root=root, port=port, rate=rate))
    process = Process(
        command=[program("lighttpd"), "-D", "-f", config], is_ready=accepts(port), output=folder / "printed"
    )
    with serving(WebServer(folder=folder, port=port, process=process)) as server:
        yield server
