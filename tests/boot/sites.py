"""The sites: what their nodes are to fetch, and how it has to lie there afterwards."""

from __future__ import annotations

from boot.nodes import Expected
from liveos.shapes import SAVED_CONFIGS

# A site whose web server is in trouble.
WOBBLY = Expected(dest="/srv/models/wobbly.bin", body=bytes(range(256)) * 16_384, mode="640", gid=4)
CORRUPT = Expected(dest="/srv/models/corrupt.bin", body=b"what its maker hashed\n" * 1000)
NOTE = Expected(dest="/srv/note.txt", body=b"carried by the layout\n")
TROUBLED = """\
version: 1
pack:
  boot_url: http://10.0.0.1/liveos.iso
  artifact_url: http://10.0.0.1/other-user-artifacts/
defaults:
  retry: {{attempts_without_progress: 3, base: 200ms, max: 1s}}
  timeouts: {{connect: 60s, read: 60s}}  # for an emulated node on a busy machine
artifacts:
  - {{name: wobbly, url: "{base}/wobbly.bin", sha256: {wobbly}, dest: /srv/models/wobbly.bin, mode: "0640", group: adm}}
  - {{name: corrupt, url: "{base}/corrupt.bin", sha256: {corrupt}, dest: /srv/models/corrupt.bin, required: false}}
  - {{name: note, source: note.txt, dest: /srv/note.txt}}
"""

LICENCE = Expected(dest="/srv/licence.txt", body=b"for those who know the word\n", mode="600")

# A site where all is well, on another port and in other folders; and the configuration that is not in its image.
PLAIN = Expected(dest="/srv/plain.txt", body=b"as it should be\n" * 50_000)
LARGE = Expected(dest="/opt/data/large file.bin", body=bytes(reversed(range(256))) * 32_768, mode="600", uid=1, gid=1)
SMALL = Expected(dest="/srv/small.conf", body="grün\n".encode(), mode="755", uid=65534, gid=65534)
CONFIGS = Expected(
    dest="/srv/configs.yaml", body=SAVED_CONFIGS.encode()
)  # a file of the image's own, which its layout serves
OTHER = Expected(dest="/srv/other.txt", body=b"named on the kernel command line\n", mode="600")
SOUND = """\
version: 1
pack:
  boot_url: http://10.0.1.7:8080/images/liveos.iso
  artifact_url: http://10.0.1.7:8080/files/
  trust: [site.pub]
serial: 2
allowed_roots: [/var/lib, /srv, /opt, /run, /etc/systemd/system]
artifacts:
  - {{name: plain, url: "{base}/plain.txt", sha256: {plain}, dest: /srv/plain.txt}}
  - name: large
    source: files/large file.bin
    chunks: {{size: 1MiB}}
    dest: /opt/data/large file.bin
    mode: "0600"
    owner: daemon
    group: "1"
  - {{name: small, source: files/klein.conf, dest: /srv/small.conf, mode: "0755", owner: nobody, group: nogroup}}
  - name: configs
    url: http://10.0.1.7:8080/images/azl-image-customizer/saved-configs.yaml
    sha256: {configs}
    dest: /srv/configs.yaml
  - name: licence
    url: "{base}/licence.txt"
    sha256: {licence}
    dest: /srv/licence.txt
    header_credential: pxe-fetch.site-token
    insecure: true
    when: {{cmdline: {{role: "gpu*"}}}}
"""
ELSEWHERE_URL = "http://10.0.1.7:8080/fleet/elsewhere.yaml"
ELSEWHERE = """\
version: 1
serial: {serial}
expires: 2999-12-31
artifacts:
  - {{name: other, url: "{base}/other.txt", sha256: {other}, dest: /srv/other.txt, mode: "0600"}}
"""

# A site whose image is made from a root filesystem, and has more artifacts on a share (boot.shares).
BESIDE = Expected(dest="/srv/note.txt", body=b"beside a root filesystem\n", mode="640", gid=4)
MADE = """\
version: 1
pack: {boot_url: "http://10.0.0.1/made.iso", artifact_url: "http://10.0.0.1/other-user-artifacts/"}
parallel: 1
artifacts:
  - {name: note, source: note.txt, dest: /srv/note.txt, mode: "0640", group: adm}
"""
