"""A site that has its artifacts on an NFS server, which comes late and dies once; by the units of examples/nfs."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from boot.nodes import HOST, Expected
from boot.trouble import Wakes
from fakes.faults import Serve, Status
from fakes.ganesha import Ganesha
from fakes.server import Script

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/nfs"
EXPORT = "/export/artifacts"
MOUNTED = "file:///mnt/artifacts"
LATE = Expected(dest="/srv/late.txt", body=b"from a server that was not there yet\n" * 1_000)
CUT = Expected(dest="/srv/cut.bin", body=bytes(range(1, 252)) * 133_000)  # 32 MiB
TAKEN = 4 * 1024 * 1024  # bytes that the node has of the server when that is killed
LISTED = Expected(dest="/srv/listed.csv", body=b"1,2\n")
_ARTIFACTS = """\
  - name: late
    urls: ["{mounted}/late.txt", "{base}/late.txt"]
    mirror_order: listed
    sha256: {late}
    dest: /srv/late.txt
  - name: cut
    urls: ["{mounted}/cut.bin", "{base}/cut.bin"]
    mirror_order: listed
    sha256: {cut}
    dest: /srv/cut.bin
  - name: listed
    url: {mounted}/${{hostname}}.csv
    sha256_url: {mounted}/SHA256SUMS
    dest: /srv/listed.csv
"""


def artifacts(*, base: str) -> str:
    """What a node has from the share, for the end of its configuration; `base` is where the second mirrors are."""
    return _ARTIFACTS.format(base=base, mounted=MOUNTED, late=LATE.sha256, cut=CUT.sha256)


@contextlib.contextmanager
def exported() -> Iterator[Path]:
    """The folder that the server exports. It is not below /tmp: that is a tmpfs on Debian 13, see `ganesha`."""
    with tempfile.TemporaryDirectory(prefix="pxe-pack-share-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # root of a node is nobody here (root_squash)
        (folder / "late.txt").write_bytes(LATE.body)
        (folder / "cut.bin").write_bytes(CUT.body)
        (folder / "liveos.csv").write_bytes(LISTED.body)
        (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(LISTED.body).hexdigest()}  liveos.csv\n")
        yield folder


def mirrors(server: Ganesha) -> dict[str, Script]:
    """The second mirrors: being asked, they have `server` start. One of them has nothing to give itself."""
    return {
        "/late.txt": Script(then=Wakes(server=server, then=Status(503))),
        "/cut.bin": Script(body=CUT.body, then=Wakes(server=server, then=Serve())),
    }


def lay(root: Path, *, port: int) -> None:
    """Put the example's units where its README says; their server is the one of this machine, at `port`.

    They hear of its death after 4 seconds, not 15: a read that is cut off takes that several times.
    """
    table = re.findall(r"(?m)^\| `([^`]+)` \| `/([^`]+)` \|$", (EXAMPLE / "README.md").read_text())
    assert table, "it has a table of what goes where"
    for name, place in table:
        text = (EXAMPLE / name).read_text()
        text = text.replace("fileserver.lan:/export/artifacts", f"{HOST}:{EXPORT}")
        text = text.replace("timeo=50,retrans=2", f"timeo=20,retrans=1,port={port}")
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
