"""A site that shows all that an artifact can ask for, and whose server is killed; its configuration is a credential."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile

from boot.nodes import HOST, Expected, Site
from boot.sites import LICENCE
from boot.trouble import WrongOnce
from fakes.faults import Demand
from fakes.nginx import Nginx
from fakes.server import Script

TOKEN = "Bearer xyzzy-2718281828"  # noqa: S105  of this test alone
ROLE = "gpu-a100"
MAC = "52:54:00:12:34:56"  # QEMU's first card
PERSONAL = Expected(dest=f"/srv/nodes/{ROLE}-{MAC}.conf", body=b"for this very node\n", mode="640", gid=4)
CHOSEN = Expected(dest="/srv/driver.bin", body=b"for machines with such cards\n" * 100)
CHUNK = 64 * 1024  # bytes
MODEL = Expected(dest="/srv/model.bin", body=bytes(range(1, 252)) * 8_200)  # 32 chunks, the last not whole
MODEL_LIST = "".join(
    hashlib.sha256(MODEL.body[at : at + CHUNK]).hexdigest() + "\n" for at in range(0, len(MODEL.body), CHUNK)
)
# The byte of the model that comes wrong, once: in a chunk that its first stream has read before another takes it over.
WRONG = 2 * CHUNK + 7
WORDS = Expected(dest="/srv/words.txt", body=b"compressed on the way, and plain in its place\n" * 5_000)
SLOW = Expected(dest="/srv/slow.bin", body=bytes(reversed(range(253))) * 16_600)  # 4 MiB, held until a restart
STOPPED_AT = 512 * 1024  # bytes of it that are there when the unit is restarted
KILLED_AT = 512 * 1024  # bytes that its server sends the next run before it is killed
GREETING = Expected(dest="/srv/proof/greeting", body=b"hello from a tree\n")
SHARED = Expected(dest="/srv/shared.conf", body=PERSONAL.body)  # by a mount that is made while the agent runs
STATUS_CODE = Expected(dest="/srv/proof/exit", body=b"0\n")

_UNIT = f"""\
[Unit]
Description=Prove that the tree is there, and restart the agent in the middle of a download
Before=liveos-inspect.service

[Service]
Type=oneshot
ExecStart=/srv/app/bin/prove {STOPPED_AT}
TimeoutStartSec=infinity
"""
_PROVE = """\
#!/bin/bash
set -eu
mkdir -p /srv/proof
cat /srv/app/share/greeting >/srv/proof/greeting
until [[ $(jq '.artifacts[] | select(.name == "slow") | .bytes' /run/pxe-fetch/state.json) -gt $1 ]]; do
    sleep 0.2
done
systemctl restart pxe-fetch.service
"""
_TELLER = """\
[Unit]
Description=Tell how the run went, once everything is there
Requires=pxe-fetch.target
After=pxe-fetch.target
Before=liveos-inspect.service

[Service]
Type=oneshot
ExecStart=/srv/app/bin/tell
"""
_TELL = """\
#!/bin/bash
set -eu
sha256sum /srv/slow.bin | cut -c-64 >/srv/proof/slow
pxe-fetch status --wait >/run/status && code=0 || code=$?
echo "$code" >/srv/proof/exit
curl --silent --show-error --fail --data-binary @/run/status "$(cat /srv/app/share/tell)"
"""
UNIT = Expected(dest="/etc/systemd/system/prove.service", body=_UNIT.encode())
TELLER = Expected(dest="/etc/systemd/system/tell.service", body=_TELLER.encode())
LATER = Expected(dest="/srv/proof/slow", body=f"{SLOW.sha256}\n".encode())
_MOUNT = b"""\
[Unit]
Description=What a site would mount from its file server (docs/fetch-yaml.md); here a folder that is there

[Mount]
What=/srv/nodes
Where=/mnt/share
Type=none
Options=bind,ro
"""
MOUNT = Expected(dest="/etc/systemd/system/mnt-share.mount", body=_MOUNT)


def tree(*, tell: str) -> bytes:
    """The archive with the programs that the units run; one posts the node's status to the URL `tell`."""
    files = {
        "bin/prove": (0o755, _PROVE.encode()),
        "bin/tell": (0o755, _TELL.encode()),
        "share/greeting": (0o644, GREETING.body),
        "share/tell": (0o644, tell.encode()),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, (mode, body) in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(body)
            archive.addfile(member, io.BytesIO(body))
    return out.getvalue()


CONFIG = """\
version: 1
defaults: {{base_url: "{base}/", retry: {{base: 500ms, max: 2s}}}}
parallel: 1
allowed_roots: [/srv, /etc/systemd/system]
artifacts:
  - name: personal
    url: nodes/${{arch}}/${{mac}}.conf
    sha256: {personal}
    dest: /srv/nodes/${{cmdline.role}}-${{mac}}.conf
    mode: "0640"
    group: adm
  - name: driver
    url: driver.bin
    sha256: {chosen}
    dest: /srv/driver.bin
    when: {{arch: "x86*", mac: ["de:ad:*", "52:54:*"], cmdline: {{role: "gpu-*"}}}}
  - name: other-driver
    url: other-driver.bin
    sha256: {chosen}
    dest: /srv/driver.bin
    when: {{mac: "de:ad:*"}}
  - name: licence
    url: licence.txt
    sha256: {licence}
    dest: /srv/licence.txt
    mode: "0600"
    header_credential: pxe-fetch.site-token
    insecure: true
  - name: mount
    url: mnt-share.mount
    sha256: {mount}
    dest: /etc/systemd/system/mnt-share.mount
    start: mnt-share.mount
  - name: model
    urls: [one/model.bin, other/model.bin]
    size: {size}
    chunks: {{size: 64KiB, url: one/model.bin.chunks, sha256: {chunks}}}
    dest: /srv/model.bin
  - {{name: words, url: words.xz, sha256: {words}, dest: /srv/words.txt, extract: decompress}}
  - {{name: unit, url: prove.service, sha256: {unit}, dest: /etc/systemd/system/prove.service}}
  - name: teller
    url: tell.service
    sha256: {teller}
    dest: /etc/systemd/system/tell.service
    start: tell.service
  - name: tree
    url: tree.tar.gz
    sha256: {tree}
    dest: /srv/app
    extract: tar
    start: [prove.service, absent.service]
  - name: shared
    url: file:///mnt/share/${{cmdline.role}}-${{mac}}.conf
    sha256: {personal}
    dest: /srv/shared.conf
    retry: {{base: 8s, max: 30s}}
  - {{name: slow, url: "{slow_url}", sha256: {slow}, dest: /srv/slow.bin, timeouts: {{min_rate: 1KiB}}}}
"""


def serve(site: Site, *, slowly: Nginx) -> tuple[str, list[str]]:
    """Have the site's server and nginx give what the configuration names.

    The configuration, and a list that will have the path that the one wrong byte came by.
    """
    archive, words = tree(tell=site.url("/status")), lzma.compress(WORDS.body)
    wrong = WrongOnce(byte=WRONG)
    site.server.scripts |= {
        f"/nodes/x86_64/{MAC}.conf": Script(body=PERSONAL.body),
        "/driver.bin": Script(body=CHOSEN.body),
        "/licence.txt": Script(body=LICENCE.body, then=Demand(name="Authorization", value=TOKEN)),
        "/one/model.bin": Script(body=MODEL.body, then=wrong),
        "/other/model.bin": Script(body=MODEL.body, then=wrong),
        "/one/model.bin.chunks": Script(body=MODEL_LIST.encode()),
        "/words.xz": Script(body=words),
        "/prove.service": Script(body=UNIT.body),
        "/tell.service": Script(body=TELLER.body),
        "/mnt-share.mount": Script(body=MOUNT.body),
        "/tree.tar.gz": Script(body=archive),
    }
    config = CONFIG.format(
        base=site.url(""),
        personal=PERSONAL.sha256,
        chosen=CHOSEN.sha256,
        licence=LICENCE.sha256,
        size=len(MODEL.body),
        chunks=hashlib.sha256(MODEL_LIST.encode()).hexdigest(),
        words=hashlib.sha256(words).hexdigest(),
        unit=UNIT.sha256,
        teller=TELLER.sha256,
        mount=MOUNT.sha256,
        tree=hashlib.sha256(archive).hexdigest(),
        slow=SLOW.sha256,
        slow_url=f"http://{HOST}:{slowly.port}/held/slow.bin",
    )
    return config, wrong.told
