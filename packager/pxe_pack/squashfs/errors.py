"""What can be wrong with a squashfs image, as problems: damage, what we don't know, what is missing here."""

from __future__ import annotations

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError


class SquashfsError(InputError):
    """An image that can't be read, or a change that can't be made to it. Nothing has been written."""


def corrupt(message: str) -> SquashfsError:
    """The image is damaged: `message` says which part and how."""
    return SquashfsError(
        Problem(
            reference="squashfs-corrupt",
            message=f"the squashfs image is damaged: {message}",
            hint="compare its digest with its producer's and copy it again; `unsquashfs -ll` reads it independently",
        )
    )


def unsupported(message: str, *, hint: str = "") -> SquashfsError:
    """The image is, as far as we can see, sound, but has something that we don't know."""
    return SquashfsError(Problem(reference="squashfs-unsupported", message=message, hint=hint))
