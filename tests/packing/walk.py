"""The way of a node through a layout, step by step, over a real TFTP server: what it asks for has to be there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from fakes.daemons import Tftpd, tftpd
from pxe_pack.image.grub import netboot
from pxe_pack.image.grub.efi_image import read_grub
from pxe_pack.image.grub.script import parse, unquoted, walk

_LOADS = ("linux", "linuxefi", "initrd", "initrdefi")


def walked(layout: Path, *, grub: str = "grubx64.efi") -> list[str]:
    """The paths that a node fetches by TFTP, in its order; each is compared with the layout's file."""
    with tftpd(layout) as server:
        return list(_steps(server, layout, grub))


def _steps(server: Tftpd, layout: Path, grub: str) -> Iterator[str]:
    for name in (grub.replace("grub", "boot"), grub):
        yield _fetched(server, layout, f"/{name}")
    image = read_grub((layout / grub).read_bytes())
    assert image
    config = netboot.over_network(image).config
    yield _fetched(server, layout, config)
    text = (layout / config.lstrip("/")).read_text()
    variables = {"root": "", "prefix": config.rpartition("/")[0]}
    for command in walk(parse(text)):
        words = [unquoted(word, variables).removeprefix("()") for word in command.words]
        if words[0] == "set" and len(words) == 2:
            name, _, value = words[1].partition("=")
            variables[name] = value.removeprefix("()")
        elif words[0] == "source":
            yield _fetched(server, layout, words[1])
            text += (layout / words[1].lstrip("/")).read_text()
    subprocess.run(["grub-script-check"], input=text.encode(), check=True, capture_output=True)
    for command in walk(parse(text)):
        if command.name in _LOADS:
            count = 2 if command.name.startswith("linux") else len(command.words)
            for word in command.words[1:count]:
                yield _fetched(server, layout, unquoted(word, variables).removeprefix("($root)").removeprefix("()"))


def _fetched(server: Tftpd, layout: Path, path: str) -> str:
    assert path.startswith("/"), path
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "30", server.url(path)]
    body = subprocess.run(command, check=True, capture_output=True).stdout
    assert body == (layout / path.lstrip("/")).read_bytes(), path
    return path
