"""Decompress Zstandard streams with zstd(1), since Python has a module for it only from 3.14 on."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Generator, Iterable
from typing import IO, cast

from pxe_pack import tools

_PIECE = 256 * 1024


def unzstd(blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """The decompressed content of `blocks`, in pieces. Raises ValueError if they are damaged or truncated."""
    process = tools.start("zstd", "-dcq", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    failures: list[Exception] = []

    def feed() -> None:
        try:
            # the consumer stopped early, or zstd found damaged data, which its exit code shows
            with contextlib.suppress(BrokenPipeError), stdin:
                for block in blocks:
                    stdin.write(block)
        except Exception as error:  # re-raised in the consumer's thread
            failures.append(error)

    feeder = threading.Thread(target=feed)
    feeder.start()
    ended = False
    try:
        while piece := stdout.read(_PIECE):
            yield piece
        ended = True
    finally:
        stdout.close()
        feeder.join()
        code = process.wait()
    if failures:
        raise failures[0]
    if ended and code:
        raise ValueError("its Zstandard data is damaged")
