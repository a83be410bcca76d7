"""The codec "idna" for host names that are ASCII already, in the place of the standard library's in the frozen agent.

socket and urllib3 pass every host name through the codec of this name. The standard library's loads Unicode's tables at
its import, 1.1 MB, to treat names that pxe_fetch.contract.validators refuses. Rules as there: RFC 1035, 2.3.4.
"""

from __future__ import annotations

import codecs

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LONGEST_LABEL = 63


def encode(text: str, errors: str = "strict") -> tuple[bytes, int]:  # noqa: ARG001  a codec's signature
    """The bytes of a host name. Raises UnicodeError when a label is empty, too long or not ASCII."""
    name = text.encode("ascii")
    *labels, last = name.split(b".")  # the last may be empty: the root
    if any(not 0 < len(label) <= _LONGEST_LABEL for label in labels) or len(last) > _LONGEST_LABEL:
        raise UnicodeError("label empty or too long")
    return name, len(text)


def decode(data: ReadableBuffer, errors: str = "strict") -> tuple[str, int]:  # noqa: ARG001  a codec's signature
    """The text of a host name."""
    octets = bytes(data)
    return octets.decode("ascii"), len(octets)


def getregentry() -> codecs.CodecInfo:
    """What `encodings` asks a codec's module for."""
    return codecs.CodecInfo(name="idna", encode=encode, decode=decode)
