"""The configuration on this node: every transfer to make, with nothing left to decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.model import Digest, RetryPolicy, Timeouts


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """One artifact to bring: absolute urls with their ${facts} filled in, ids looked up, headers with their secrets."""

    name: str
    urls: tuple[str, ...]  # mirrors, in the order to try
    digest: Digest
    size: int | None  # bytes on the wire
    dest: Path
    part: Path  # the file under way: beside `dest`, the same name in every run, so that a later run resumes
    mode: int | None
    uid: int | None
    gid: int | None
    extract: str
    required: bool
    headers: Mapping[str, str]
    start: tuple[str, ...]
    retry: RetryPolicy
    timeouts: Timeouts
