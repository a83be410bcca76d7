"""A large file to fetch, and the agent's configurations for it: with one digest, and with one of each chunk."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

MiB = 1 << 20
CHUNK = 4 * MiB  # as the packager makes them; smaller ones of a small file, so that there are several


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A file of bytes that repeat nowhere a page does, and beside it (`.chunks`) the list of its chunks' digests."""

    size: int
    chunk: int
    sha256: str
    list_sha256: str

    def configure(self, work: Path, *, url: str, dest: Path, rest: str = "") -> tuple[Path, Path]:
        """Write two configurations into `work`: one that pins the whole, and one that pins the chunks."""
        head = f"version: 1\nallowed_roots: [{work}]\n{rest}artifacts:\n"
        chunks = f"{{size: {self.chunk}, url: '{url}.chunks', sha256: {self.list_sha256}}}"
        whole, pieces = work / "fetch.yaml", work / "chunks.yaml"
        for config, pinned in ((whole, f"sha256: {self.sha256}"), (pieces, f"size: {self.size}, chunks: {chunks}")):
            config.write_text(f"{head}  - {{name: m, url: '{url}', {pinned}, dest: {dest}}}\n")
        return whole, pieces


def make_noise(path: Path, *, size: int) -> Noise:
    """Write `size` bytes, and the list of their chunks' digests."""
    path.parent.mkdir()
    length = min(CHUNK, max(MiB, size // 8))
    whole, listed = hashlib.sha256(), ""
    with path.open("wb") as file:
        for at in range(0, size, length):
            chunk = os.urandom(min(length, size - at))
            whole.update(chunk)
            listed += f"{hashlib.sha256(chunk).hexdigest()}\n"
            file.write(chunk)
    path.with_name(f"{path.name}.chunks").write_text(listed)
    list_sha256 = hashlib.sha256(listed.encode()).hexdigest()
    return Noise(size=size, chunk=length, sha256=whole.hexdigest(), list_sha256=list_sha256)
