"""Zstandard streams in the clear, by zstd(1): Python itself has it from 3.14 on only."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Generator, Iterable
from typing import IO, cast

from pxe_pack import tools

_PIECE = 256 * 1024


def unzstd(blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """What `blocks` hold in the clear, piece by piece. Raises ValueError where they are damaged or end too soon."""
    process = tools.start("zstd", "-dcq", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    entrance, exit_ = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    failures: list[Exception] = []

    def feed() -> None:
        try:
            # the reader has enough and goes away, or zstd finds the data damaged: its exit code tells
            with contextlib.suppress(BrokenPipeError), entrance:
                for block in blocks:
                    entrance.write(block)
        except Exception as error:  # whatever the source raises is raised again where it is waited for
            failures.append(error)

    feeder = threading.Thread(target=feed)
    feeder.start()
    ended = False
    try:
        while piece := exit_.read(_PIECE):
            yield piece
        ended = True
    finally:
        exit_.close()
        feeder.join()
        code = process.wait()
    if failures:
        raise failures[0]
    if ended and code:
        raise ValueError("its Zstandard data are damaged")
