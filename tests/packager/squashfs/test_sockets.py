"""Sockets, which a tar cannot hold: an image built from a real directory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from packager.squashfs import trees
from packager.squashfs.images import mksquashfs_tree
from packager.squashfs.payload import WHEN
from pxe_pack.squashfs import Image, Kind, NewFile, NewSymlink, graft


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = tmp_path / "source"
    (source / "run").mkdir(parents=True)
    monkeypatch.chdir(source / "run")  # the path of a socket is short
    for name in ("alone", "linked"):
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(name)
    os.mkfifo("pipe", 0o640)
    os.link("linked", "other")
    os.link("pipe", "pipe2")
    return mksquashfs_tree(tmp_path / "image", source)


def test_sockets_and_fifos_stay_replaced_or_linked(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    additions = [
        NewFile(path="run/other", mode=0o600, mtime=WHEN, content=b"no socket"),
        NewSymlink(path="run/pipe2", mode=0o777, mtime=WHEN, target="pipe"),
    ]
    graft(image, additions=additions, output=out)
    before, after = trees.listing(image), trees.listing(out)
    assert {path for path in after if before.get(path) != after[path]} == {"run/other", "run/pipe2"}
    with Image.open(image) as old, Image.open(out) as new:
        for name, kind, links in (("alone", Kind.SOCKET, 1), ("linked", Kind.SOCKET, 2), ("pipe", Kind.FIFO, 2)):
            former, now = old.find(f"run/{name}"), new.find(f"run/{name}")
            assert former
            assert now
            assert (former.kind, former.links, now.kind, now.links) == (kind, links, kind, 1)
            assert (former.number, former.mode, former.mtime) == (now.number, now.mode, now.mtime)
