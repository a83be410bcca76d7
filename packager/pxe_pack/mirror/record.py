"""Which layers the files of a mirror are in its registry, so that a later run need not fetch them again.

It is a file in the mirror's own folder, and only what was verified is in it. A tag of the registry could not stand in
for it: everybody who may push can change what it names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.registry import Layer, read_manifest
from pxe_pack.mirror.files import MirroredFile, pin
from pxe_pack.tools import InputError

RECORD = "layers.json"  # its name in the folder
NEW_RECORD = ".layers.json.new"  # while it is written
_VERSION = 1


class Recorded(TypedDict):
    """A file that is in the registry: a digest of what pins its bytes, and its layers as manifests describe them."""

    pin: str
    layers: list[dict[str, object]]


@dataclass(kw_only=True, slots=True)
class Record:
    """The record in a folder; `save` writes it."""

    path: Path
    files: dict[str, Recorded] = field(default_factory=dict)  # by their titles

    def save(self) -> None:
        """Replace the file on disk. Raises OSError."""
        new = self.path.with_name(NEW_RECORD)
        document = {"version": _VERSION, "files": self.files}
        new.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        new.replace(self.path)

    def layers(self, title: str) -> list[Layer]:
        """The layers of the file with this title: itself, perhaps with its list of chunk digests."""
        return _layers(self.files[title])


def read_record(folder: Path) -> Record | None:
    """The record in `folder`; None if there is none. Raises InputError if it is not what was written, and OSError."""
    path = folder / RECORD
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Record(path=path, files=_files(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message, hint = f"{path} is not what `pxe-pack mirror` writes", "remove it: everything is fetched again then"
        raise InputError(Problem(reference="mirror-record", message=message, hint=hint)) from None


def _files(text: bytes) -> dict[str, Recorded]:
    """The files in the text of a record. Raises an error of some kind if it is none."""
    document = json.loads(text)
    if document["version"] != _VERSION:
        raise ValueError
    found = {str(name): Recorded(pin=str(one["pin"]), layers=one["layers"]) for name, one in document["files"].items()}
    for one in found.values():
        _layers(one)
    return found


def _layers(one: Recorded) -> list[Layer]:
    layers = read_manifest(json.dumps({"layers": one["layers"]}).encode())
    if not layers:
        raise ValueError
    return layers


def pin_of(file: MirroredFile, *, root: Path) -> str:
    """A digest of what pins the bytes of `file`; of a SHA256SUMS file, which is below `root`, that is its content."""
    sums = hashlib.sha256((root / file.sums).read_bytes()).hexdigest() if file.sums else ""
    return hashlib.sha256(repr((*pin(file), sums)).encode()).hexdigest()
