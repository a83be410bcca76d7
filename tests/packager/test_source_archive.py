"""An archive given as `source`: what no node would unpack is told when packing, and it is what nodes refuse."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.node import FakeNode
from packing.checking import Checked
from packing.site import Site

Check = Callable[..., Checked]
Packs = Callable[..., str]
Refused = Callable[..., str]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 8) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    info.size = size if kind == tarfile.REGTYPE else 0
    return info


def tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for one in members:
            archive.addfile(one, io.BytesIO(b"x" * one.size) if one.isreg() else None)
    return out.getvalue()


GOOD = tar(member("bin", tarfile.DIRTYPE), member("bin/app"), member("bin/sh", tarfile.SYMTYPE, "app"))
REFUSED: dict[str, tuple[bytes, str]] = {
    "absolute link": (tar(member("venv/python3", tarfile.SYMTYPE, "/usr/bin/python3")), "leads out of the archive"),
    "climbing link": (tar(member("d/x", tarfile.SYMTYPE, "../../x")), "leads out of the archive"),
    "member outside": (tar(member("../x")), "leads out of the archive"),
    "absolute member": (tar(member("/etc/x")), "leads out of the archive"),
    "device": (tar(member("null", tarfile.CHRTYPE)), "is not a file, folder or link"),
    "pipe": (tar(member("pipe", tarfile.FIFOTYPE)), "is not a file, folder or link"),
    "below a link": (tar(member("lib", tarfile.SYMTYPE, "usr"), member("lib/x")), "which is a link"),
    "below a file": (tar(member("lib"), member("lib/x")), "which is a file"),
    "two kinds": (tar(member("x", tarfile.DIRTYPE), member("x")), "as a folder and as something else"),
    "hard link to nothing": (tar(member("x", tarfile.LNKTYPE, "y")), "which is not a file before it"),
    "too deep": (tar(member("d/" * 300 + "f")), "folders deep"),
    "cut off": (gzip.compress(GOOD)[:-20], "is not a complete tar archive"),
    "cut off, plain": (GOOD[:1100], "is not a complete tar archive"),
    "no archive": (b"plain text, and long enough\n" * 50, "is not a complete tar archive"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_node_would_not_unpack_is_refused_when_packing(
    site: Site, refused: Refused, kind: str, tmp_path: Path
) -> None:
    content, reason = REFUSED[kind]
    (site.folder / "app.tar").write_bytes(content)
    site.rest = {"artifacts": [{"name": "app", "source": "app.tar", "dest": "/srv/app", "extract": "tar"}]}
    said = refused()
    assert "error[source-archive]" in said
    assert reason in " ".join(said.split())
    digest = hashlib.sha256(content).hexdigest()
    url = f"file://{site.folder}/app.tar"
    (tmp_path / "out").mkdir()
    (tmp_path / "node").mkdir()
    node = FakeNode(folder=tmp_path / "node")
    config = {"name": "app", "url": url, "sha256": digest, "dest": f"{tmp_path}/out/app", "extract": "tar"}
    file = tmp_path / "node.yaml"
    file.write_text(json.dumps({"version": 1, "allowed_roots": [f"{tmp_path}/out"], "artifacts": [config]}))
    assert node.run("run", "--config", str(file)).code == 77, "the node takes what packing refuses"


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_archives_that_nodes_unpack_are_packed(site: Site, packs: Packs, compress: Callable[[bytes], bytes]) -> None:
    (site.folder / "app.tar").write_bytes(compress(GOOD))
    site.rest = {"artifacts": [{"name": "app", "source": "app.tar", "dest": "/srv/app", "extract": "tar"}]}
    packs("--dry-run")


def test_a_window_of_zstd_that_nodes_do_not_take_is_told(site: Site, refused: Refused, packs: Packs) -> None:
    for extract in ("tar", "decompress"):
        file = site.folder / "app.tar.zst"
        site.rest = {"artifacts": [{"name": "app", "source": file.name, "dest": "/srv/app", "extract": extract}]}
        for long, taken in (("--long=30", False), ("--long=27", True)):
            # the window is no larger than the input unless its size is unknown: from a pipe
            done = subprocess.run(["zstd", "-q", "-c", long], input=GOOD, capture_output=True, check=True)
            file.write_bytes(done.stdout)
            if taken:
                packs("--dry-run")
            else:
                assert "with a window of 1.00 GiB" in refused()


def test_a_file_to_decompress_that_is_not_compressed_is_told(site: Site, refused: Refused) -> None:
    (site.folder / "words").write_text("plain\n")
    site.rest = {"artifacts": [{"name": "w", "source": "words", "dest": "/srv/words", "extract": "decompress"}]}
    assert "is not compressed with gzip, xz, bzip2 or zstd" in refused()


def test_the_unpacked_size_counts_for_a_nodes_memory(site: Site, checked: Check) -> None:
    (site.folder / "big.tar.gz").write_bytes(gzip.compress(tar(member("zeros", size=64 << 20)), 1))
    site.rest = {"artifacts": [{"name": "app", "source": "big.tar.gz", "dest": "/srv/app", "extract": "tar"}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config)
    spaces = told.memory["file_systems"]
    assert isinstance(spaces, list)
    assert spaces[0]["needed"] > 64 << 20
