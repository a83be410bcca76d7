"""Digests of what arrives, and the comparison with what the configuration names."""

from __future__ import annotations

import hashlib

from pxe_fetch.contract.model import Digest
from pxe_fetch.errors import IntegrityError


class Digester:
    """A digest that grows. Without an expected digest it still counts as sha256, for the journal."""

    def __init__(self, expected: Digest | None) -> None:
        self.expected = expected
        self._algorithm = expected.algorithm if expected else "sha256"
        self._hash = hashlib.sha512() if self._algorithm == "sha512" else hashlib.sha256()

    def update(self, data: memoryview) -> None:
        """Take `data` in, in the order of the file. hashlib lets go of the interpreter for more than 2 KiB."""
        self._hash.update(data)

    def digest(self) -> Digest:
        """Of everything taken in so far."""
        found = self._hash.hexdigest()
        expected = self.expected
        return expected if expected and expected.hex == found else Digest(algorithm=self._algorithm, hex=found)

    def matches(self) -> bool:
        """Whether it is the expected one; False where none is expected."""
        return self.expected is not None and self._hash.hexdigest() == self.expected.hex

    def check(self, *, remark: str = "") -> None:
        """Raises IntegrityError unless it is the expected one; `remark` goes into the message."""
        found = self.digest()
        if self.expected and found != self.expected:
            note = f" ({remark})" if remark else ""
            raise IntegrityError(
                f"wrong {found.algorithm}: expected {self.expected.hex[:16]}…, found {found.hex[:16]}…{note}",
                expected=str(self.expected),
                found=str(found),
            )


def check_size(found: int, *, expected: int | None) -> None:
    """Raises IntegrityError if the size is known and another."""
    if expected is not None and found != expected:
        raise IntegrityError(
            f"wrong size: expected {expected} bytes, found {found}", expected=str(expected), found=str(found)
        )
