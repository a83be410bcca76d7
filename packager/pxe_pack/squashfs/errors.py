"""Errors about squashfs images: damage, unsupported features, missing modules."""

from __future__ import annotations

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError


class SquashfsError(InputError):
    """An image cannot be read, or a change cannot be made to it. Nothing has been written."""


def corrupt(message: str) -> SquashfsError:
    """The error for a damaged image; `message` says which part and how."""
    return SquashfsError(
        Problem(
            reference="squashfs-corrupt",
            message=f"the squashfs image is damaged: {message}",
            hint="compare its digest with the producer's and copy it again; `unsquashfs -ll` is an independent check",
        )
    )


def unsupported(message: str, *, hint: str = "") -> SquashfsError:
    """The error for an image that is not damaged but uses something we do not support."""
    return SquashfsError(Problem(reference="squashfs-unsupported", message=message, hint=hint))
