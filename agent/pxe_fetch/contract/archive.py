"""What an archive may hold that a node unpacks. pxe-pack asks before it packs a folder, the agent before it unpacks."""

from __future__ import annotations

from pathlib import PurePosixPath

MOST_MEMBERS = 1_000_000
STAGING_SUFFIX = ".pxe-fetch-staging"  # of the hidden folder beside the destination that an archive is unpacked into
LONGEST_NAME = 255  # bytes; NAME_MAX of Linux's file systems, limits.h
_LONGEST_PATH = 4095  # bytes; PATH_MAX of limits.h counts the byte that ends a path
_FILE_MODE = 0o755  # bits of a mode that are the archive's: set-id bits and write permission for others are not


def leads_outside(target: str, *, depth: int) -> bool:
    """Return whether a symbolic link could lead out of the archive: one to `target`, `depth` folders deep.

    Only a relative target with `..` at its front alone, and no more of them than the link is deep, cannot, whatever
    else in the archive is a link.
    """
    parts = PurePosixPath(target).parts
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return not target or target.startswith("/") or climbs > depth or ".." in parts[climbs:] or "\0" in target


def file_mode(mode: int) -> int:
    """Return the mode of a file on the node whose mode in the archive is `mode`, as tarfile's `data` filter has it."""
    mode &= _FILE_MODE
    return (mode if mode & 0o100 else mode & ~0o111) | 0o600


def folder_mode(mode: int) -> int:
    """Return the mode of a folder on the node whose mode in the archive is `mode`. Its owner may make files in it."""
    return mode & _FILE_MODE | 0o700


def longest_member(dest: str) -> int:
    """Return how many bytes the path of a member may have, of an archive that is unpacked at `dest`."""
    return _LONGEST_PATH - len(f"{dest}.{STAGING_SUFFIX}/".encode())
