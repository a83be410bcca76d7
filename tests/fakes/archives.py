"""Small tar archives for nodes to unpack."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping


def archive(files: Mapping[str, bytes], *, is_gzipped: bool = False) -> bytes:
    """A tar archive of `files`, path -> content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return gzip.compress(out.getvalue(), 1) if is_gzipped else out.getvalue()
