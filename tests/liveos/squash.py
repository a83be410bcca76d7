"""A tar stream made into a squashfs."""

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from liveos.programs import BuildError, environment, require

COMPRESSORS = ("gzip", "zstd", "xz", "lz4", "lzo")


def squash(partial: Path, *, compressor: str, block_size: int, feed: Callable[[IO[bytes]], None]) -> None:
    """Write a squashfs of the tar stream that `feed` writes; block_size in bytes. Raises BuildError.

    A stream, not a folder, so that owners, devices and xattrs need no privilege: they never exist on this machine.
    """
    require("sqfstar")
    options = ["-comp", compressor, "-b", str(block_size), "-no-progress", "-exit-on-error"]
    root = ["-root-uid", "0", "-root-gid", "0", "-root-mode", "755"]
    with subprocess.Popen(
        ["sqfstar", *options, *root, str(partial)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # SOURCE_DATE_EPOCH is in it: of sqfstar's ways to fix times the only one that reaches the root directory
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        complaints: list[bytes] = []
        reader = threading.Thread(target=lambda stream: complaints.append(stream.read()), args=(process.stderr,))
        reader.start()
        try:
            feed(process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it says why on stderr
        finally:
            reader.join()
    if process.returncode:
        raise BuildError(
            f"making the squashfs: sqfstar failed: {b''.join(complaints).decode(errors='replace').strip()}"
        )
