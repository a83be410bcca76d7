"""A folder to pack in: a configuration, a small agent, and the command line run in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from liveos import iso as liveos_iso
from liveos import tree
from liveos.specials import Inode
from pxe_pack.freeze import Component
from pxe_pack.freeze.agent import PROGRAM, write_manifest
from pxe_pack.image.iso.reader import open_iso

BOOT_URL = "http://10.0.0.1:8080/images/liveos.iso"
COMPONENTS = [
    Component(name="Python", version="3.11.2", purl="pkg:generic/python@3.11.2"),
    Component(name="OpenSSL", version="3.0.17", purl="pkg:generic/openssl@3.0.17"),
]
ARTIFACT = {"name": "model", "url": "http://10.0.0.1/m.bin", "sha256": "0" * 64, "dest": "/srv/models/m.bin"}


def small_agent(folder: Path) -> Path:
    """A folder that passes for a frozen agent: a real program of this machine, and a manifest."""
    (folder / "_internal").mkdir(parents=True)
    shutil.copyfile("/bin/true", folder / PROGRAM)
    (folder / PROGRAM).chmod(0o755)
    (folder / "_internal" / "data.txt").write_text("of the agent\n")
    write_manifest(folder, version="0.0.1", components=COMPONENTS)
    return folder


@dataclass
class Site:
    """A folder with a configuration, and what packing needs beside it."""

    folder: Path
    image: Path
    agent: Path
    pack: dict[str, object] = field(default_factory=dict)
    rest: dict[str, object] = field(default_factory=lambda: {"artifacts": [ARTIFACT]})

    text: str = ""  # the whole configuration, where it is not to be made of `pack` and `rest`

    @property
    def output(self) -> Path:
        return self.folder / "pxe"

    @property
    def config(self) -> Path:
        return self.folder / "fetch.yaml"

    @property
    def iso(self) -> Path:
        """The ISO of the layout."""
        return self.output / "liveos.iso"

    def write_config(self) -> None:
        """Write the configuration. JSON is YAML."""
        defaults = {"image": str(self.image), "boot_url": BOOT_URL, "output": "pxe/"}
        document = {"version": 1, "pack": {**defaults, **self.pack}, **self.rest}
        self.config.write_text(self.text or json.dumps(document))

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line that packs here."""
        self.write_config()
        return ["--agent-config", str(self.config), "--agent", str(self.agent), *map(str, arguments)]

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Pack in a process of its own, and a group of its own."""
        command = [sys.executable, "-m", "pxe_pack", *self.command(*arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder, start_new_session=True
        )

    def manifest(self) -> dict[str, object]:
        document = json.loads((self.output / "manifest.json").read_bytes())
        assert isinstance(document, dict)
        return document

    def name_iso_at(self, url: str) -> None:
        """Have the manifest say that the ISO is at `url`, where `relocate` would want the image to be fit for it."""
        file = self.output / "manifest.json"
        file.write_text(file.read_text().replace(f'"{self.manifest()["boot_url"]}"', f'"{url}"'))

    def leftovers(self) -> list[str]:
        """What lies beside the output under a name of ours."""
        return [path.name for path in self.folder.iterdir() if ".pxe-pack-" in path.name]


def take_out(image: Path, name: str, target: Path) -> Path:
    """A file of an ISO, read by xorriso: not by what is under test."""
    command = ["xorriso", "-osirrox", "on", "-indev", str(image), "-extract", f"/{name}", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    target.chmod(0o644)
    return target


def listed(image: Path) -> dict[str, str]:
    """Path -> what xorriso lists of it, of an ISO."""
    command = ["xorriso", "-indev", str(image), "-find", "/", "-exec", "lsdl", "--"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.partition("'") for line in output.splitlines() if "'" in line]
    return {path.rstrip("'").partition("' -> '")[0]: facts + path.partition("' -> '")[2] for facts, _, path in lines}


def make_iso(target: Path, files: dict[str, str | bytes], *, options: Sequence[str] = ()) -> Path:
    """A small ISO with these files, made by xorriso."""
    stage = target.with_suffix(".stage")
    for name, content in files.items():
        path = stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    stage.mkdir(exist_ok=True)
    command = ["xorriso", "-as", "mkisofs", "-V", liveos_iso.VOLUME_ID, "-r", *options, "-o", str(target), str(stage)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(stage)
    return target


def with_files(image: Path, target: Path, files: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
    """The ISO with further files and symbolic links, which are put on it by xorriso."""
    stage = target.with_suffix(".stage")
    for name, content in files.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_bytes(content)
    for name, leads_to in (links or {}).items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).symlink_to(leads_to)
    command = ["xorriso", "-indev", str(image), "-outdev", str(target), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(stage), "/"], check=True, capture_output=True)
    shutil.rmtree(stage)
    return target


def files_of(image: Path) -> dict[str, bytes]:
    """Every regular file of an ISO, by our own reader."""
    with open_iso(image) as opened:
        return {entry.path: opened.read(entry) for entry in opened.entries.values() if entry.is_file}


def image_with_root(image: Path, contents: Sequence[Inode], where: Path) -> Path:
    """The image with another root filesystem; of `contents`, a member called "." is its root directory."""
    root, target = where / "root.squashfs", where / "other.iso"
    with subprocess.Popen(["tar2sqfs", "-q", "-c", "gzip", root], stdin=subprocess.PIPE) as writer:
        assert writer.stdin
        tree.write(writer.stdin, base=None, over=contents)
        writer.stdin.close()
    assert writer.returncode == 0
    command = ["xorriso", "-indev", str(image), "-outdev", str(target), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(root), "/liveos/rootfs.img"], check=True, capture_output=True)
    return target


def partitioned(site: Site, where: Path) -> Path:
    """The site's image as a partitioned disk too."""
    hybrid = where / "hybrid.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(hybrid), "-boot_image", "any", "replay"]
    table = [
        "-boot_image",
        "any",
        "appended_part_as=gpt",
        "-append_partition",
        "2",
        "0xef",
        str(site.agent / "pxe-fetch"),
    ]
    subprocess.run([*command, *table, "-mkdir", "/more", "--"], check=True, capture_output=True)
    return hybrid
