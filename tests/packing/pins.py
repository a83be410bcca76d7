"""A layout in which a configuration by URL is pinned, and what it says afterwards."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from packing.site import ARTIFACT, Site
from pxe_pack import cli

URL = "http://10.0.0.1/fleet.yaml"


@dataclass
class Pins:
    """Pins a configuration in the layout of a site, whose packed one has `serial: 5`."""

    site: Site
    capsys: pytest.CaptureFixture[str]

    @property
    def fleet(self) -> Path:
        return self.site.folder / "fleet.yaml"

    def write(self, **rest: object) -> None:
        self.fleet.write_text(json.dumps({"version": 1, "serial": 5, "artifacts": [ARTIFACT], **rest}))

    def run(self, *words: str | Path) -> int:
        return cli.main(["pin", str(self.site.output), *map(str, words)])

    def done(self, *words: str | Path, url: str = URL) -> str:
        """Pin the configuration; gives what was said. The layout is whole afterwards."""
        assert self.run(self.fleet, "--url", url, *words) == 0, self.capsys.readouterr().err
        self.check_whole()
        return self.capsys.readouterr().out

    def refused(self, *words: str | Path, url: str = URL) -> str:
        """Try to; nothing is changed."""
        before = self.content()
        assert self.run(self.fleet, "--url", url, *words) == 2
        assert self.content() == before
        said = self.capsys.readouterr().err
        assert "Traceback" not in said
        return said

    def content(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.site.folder.rglob("*") if path.is_file()}

    def arguments(self) -> list[list[str]]:
        """The agent's arguments in each line that loads a kernel, of grub.cfg and boot.ipxe."""
        lines = (self.site.output / "boot/grub2/grub.cfg").read_text().splitlines()
        lines += (self.site.output / "boot.ipxe").read_text().splitlines()
        loading = [line.split() for line in lines if line.split()[:1] in (["linux"], ["linuxefi"], ["kernel"])]
        words = [[word.strip("'") for word in line] for line in loading]  # grub.cfg has quotes around some
        return [[word for word in line if word.startswith("pxe-fetch.config")] for line in words]

    def check_whole(self) -> None:
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=self.site.output, check=True)
        subprocess.run(["grub-script-check", self.site.output / "boot/grub2/grub.cfg"], check=True)
        assert not self.site.leftovers()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.fleet.read_bytes()).hexdigest()

    @property
    def recorded(self) -> dict[str, object]:
        pinned = self.site.manifest()["pinned"]
        assert isinstance(pinned, dict)
        return pinned
