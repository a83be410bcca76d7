"""The configuration as it is on disk: its file, and the lock file beside it."""

from __future__ import annotations

from pathlib import Path

from pxe_fetch.contract.document import MAX_CHARACTERS
from pxe_fetch.contract.model import Artifact
from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_pack.config import Document, read
from pxe_pack.input_file import read_input
from pxe_pack.lock.lockfile import Lock
from pxe_pack.tools import InputError


def read_config(path: Path, *, lock: Lock) -> tuple[str, Document]:
    """The text of the configuration `path`, and the parsed document, with the digests that `lock` has.

    Raises InputError with all problems found; one of them may be that the lock does not fit the configuration.
    """
    text = read_text(path)
    unpinned: list[str] = []

    def pin(artifact: Artifact, urls: tuple[str, ...]) -> Artifact:
        unpinned.append(artifact.name)
        return lock.pin(artifact, urls)

    try:
        document = read(text, name=str(path), pin=pin)
    except ProblemError as error:
        raise InputError(*error.problems) from error
    if problems := [*lock.unneeded(unpinned, document.fetch)]:
        raise InputError(*problems)
    return text, document


def read_text(path: Path) -> str:
    """The text of the configuration `path`. Raises InputError."""
    try:
        # a character has 4 bytes at most; `read` counts them
        return read_input(path, limit=4 * MAX_CHARACTERS + 1).decode()
    except OSError as error:
        message = f"cannot read the configuration {path}: {error.strerror}"
        hint = "give the path of your fetch.yaml"
        raise InputError(Problem(reference="config-unreadable", message=message, hint=hint)) from error
    except UnicodeDecodeError as error:
        message = f"the configuration {path} is not UTF-8 text (byte {error.start})"
        hint = "pass your fetch.yaml; an image is given with --image, or in it"
        raise InputError(Problem(reference="config-unreadable", message=message, hint=hint)) from error
